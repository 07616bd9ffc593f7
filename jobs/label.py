"""Labels every recording of a corpus: ``python -m jobs.label --input URI --output URI``."""

import sys

from jobs.start import start

if __name__ == "__main__":
    sys.exit(start("label"))
