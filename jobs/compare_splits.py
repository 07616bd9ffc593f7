"""Train on a corpus split three ways: ``python -m jobs.protocols --corpus NAME --data DIR …``."""

import sys

from jobs.command import run
from ser_core.training.compare_splits import CompareSplitsConfig, compare_splits

if __name__ == "__main__":
    sys.exit(run(CompareSplitsConfig, compare_splits))
