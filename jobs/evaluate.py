"""Compares labels with truth: ``python -m jobs.evaluate --labels URI --truth URI --output DIR``."""

import sys

from jobs.ser_batch import run_job

if __name__ == "__main__":
    sys.exit(run_job("evaluate", sys.argv[1:], prog="python -m jobs.evaluate"))
