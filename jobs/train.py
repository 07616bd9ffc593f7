"""Fine-tune a checkpoint: ``python -m jobs.train --corpus NAME --data DIR --output DIR``."""

import sys

from jobs.command import run
from ser_core.training.job import TrainConfig, train

if __name__ == "__main__":
    sys.exit(run(TrainConfig, train))
