"""Label every recording of a corpus: ``python -m jobs.label --input URI --output URI``."""

import sys

from jobs.command import run
from ser_core.labeling.job import LabelConfig, label_corpus

if __name__ == "__main__":
    sys.exit(run(LabelConfig, label_corpus))
