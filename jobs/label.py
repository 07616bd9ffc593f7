"""Labels every recording of a corpus: ``python -m jobs.label --input URI --output URI``."""

import sys

from jobs.ser_batch import run_job

if __name__ == "__main__":
    sys.exit(run_job("label", sys.argv[1:], prog="python -m jobs.label"))
