"""Measurements and the baselines to compare with; `python -m benchmarks.<name>` writes `results/`."""
