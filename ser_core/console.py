"""What a job prints: lines for whoever watches it, and its result; both go on without a reader."""

import sys
from contextlib import suppress
from typing import Any

from ser_core.errors import without_credentials

# What cannot be printed, as on a full disk, must not end a run. ValueError: a closed stream.
_UNWRITABLE = (OSError, ValueError)


def say(message: str) -> None:
    """Prints one line on standard error, without credentials."""
    if sys.stderr is not None:  # `print` would take standard output
        with suppress(*_UNWRITABLE):
            print(without_credentials(message), file=sys.stderr, flush=True)


def show(*parts: Any, width: int | None = None) -> None:
    """Prints a result on standard output.

    Args:
        parts: texts, and tables of rich.
        width: of the tables, in characters; None for that of the terminal.
    """
    from rich.console import Console  # whoever prints lines only need not wait for it

    if sys.stdout is None:
        return
    console = Console(width=width, soft_wrap=True, highlight=False, markup=False)
    with suppress(*_UNWRITABLE, SystemExit):  # rich exits at a closed pipe
        for part in parts:
            console.print(part)
