"""Compares labels with truth: ``python -m jobs.evaluate --labels URI --truth URI --output DIR``."""

import sys

from jobs.start import start

if __name__ == "__main__":
    sys.exit(start("evaluate"))
