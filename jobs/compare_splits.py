"""Compares ways to split a corpus: ``python -m jobs.compare_splits --corpus NAME --data DIR …``."""

import sys

from jobs.ser_batch import run_job

if __name__ == "__main__":
    sys.exit(run_job("compare-splits", sys.argv[1:], prog="python -m jobs.compare_splits"))
