"""Lines for whoever watches a job, on standard error."""

import sys


def say(message: str) -> None:
    """Prints one line on standard error."""
    print(message, file=sys.stderr, flush=True)
