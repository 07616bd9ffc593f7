"""Measurements and their baselines; `python -m benchmarks.<name>` writes to `results/`."""
