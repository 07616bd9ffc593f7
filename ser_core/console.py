"""Lines for whoever watches a job, on standard error."""

import sys

from ser_core.errors import without_credentials


def say(message: str) -> None:
    """Prints one line on standard error, without credentials."""
    print(without_credentials(message), file=sys.stderr, flush=True)
