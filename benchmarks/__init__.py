"""What is measured, and against whom; `python -m benchmarks.<name>` writes to `results/`."""
