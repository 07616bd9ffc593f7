"""Compares labels with the model card's script: ``python -m jobs.verify --labels URI``."""

import sys

from jobs.start import start

if __name__ == "__main__":
    sys.exit(start("verify"))
