"""Reports on a folder of labels: ``python -m jobs.report --labels URI --output DIR``."""

import sys

from jobs.start import start

if __name__ == "__main__":
    sys.exit(start("report"))
