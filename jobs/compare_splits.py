"""Compares ways to split a corpus: ``python -m jobs.compare_splits --corpus NAME --data DIR …``."""

import sys

from jobs.start import start

if __name__ == "__main__":
    sys.exit(start("compare-splits"))
