"""Train on a corpus split three ways: ``python -m jobs.protocols --corpus NAME --data DIR …``."""

import sys

from jobs.command import run
from ser_core.protocols import ProtocolsConfig, compare_protocols

if __name__ == "__main__":
    sys.exit(run(ProtocolsConfig, compare_protocols))
