"""Fine-tunes a checkpoint: ``python -m jobs.train --corpus NAME --data DIR --output DIR``."""

import sys

from jobs.start import start

if __name__ == "__main__":
    sys.exit(start("train"))
