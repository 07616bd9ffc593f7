"""Compare labels with truth: ``python -m jobs.evaluate --labels URI --truth URI --output DIR``."""

import sys

from jobs.command import run
from ser_core.evaluation.job import EvaluateConfig, evaluate_labels

if __name__ == "__main__":
    sys.exit(run(EvaluateConfig, evaluate_labels))
