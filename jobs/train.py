"""Fine-tunes a checkpoint: ``python -m jobs.train --corpus NAME --data DIR --output DIR``."""

import sys

from jobs.ser_batch import run_job

if __name__ == "__main__":
    sys.exit(run_job("train", sys.argv[1:], prog="python -m jobs.train"))
