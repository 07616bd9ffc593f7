"""Checkpoints → networks, waveforms → scores; it knows neither audio files nor Ray."""
