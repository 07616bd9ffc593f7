"""Bytes to waveforms; it does not know where the bytes lie."""
