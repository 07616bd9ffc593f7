"""Checkpoints to networks, waveforms to scores; it knows neither files of audio nor Ray."""
