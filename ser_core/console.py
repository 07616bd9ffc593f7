"""What a job says: its phases, messages, progress and result; `log.py` decides where they appear.

Nobody reading, a full disk or a terminal that is gone never ends a run.
"""

import io
import logging
import sys
from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum
from typing import IO, Any

from ser_core.errors import without_credentials

# What cannot be printed, as on a full disk, must not end a run. ValueError: a closed stream.
UNWRITABLE = (OSError, ValueError)
_LOG_WIDTH = 100  # of tables, characters
LOGGER = logging.getLogger("ser_core")  # has handlers while a command runs; see `log.py`


class Event(StrEnum):
    """What a line is about."""

    PHASE = "phase"
    PROGRESS = "progress"
    MESSAGE = "message"
    RESULT = "result"
    BUG = "bug"


def say(message: str, level: int = logging.INFO) -> None:
    """Says something in one line on standard error, and in the log file, without credentials."""
    if LOGGER.handlers:
        _log(Event.MESSAGE, message, level)
    elif sys.stderr is not None:  # `print` would take standard output
        with suppress(*UNWRITABLE):
            print(as_text(level, message), file=sys.stderr, flush=True)


def phase(words: str) -> None:
    """Says what a command does from now on; called from Python, a job does not say so."""
    _log(Event.PHASE, words)


def progress(
    message: str,
    done: int | None = None,
    total: int | None = None,
    facts: Mapping[str, Any] | None = None,
    last: bool = False,
) -> None:
    """Says how far a phase has come, as often as wanted: a log takes one now and then.

    Args:
        message: all of it in one line.
        done: so much of the total.
        total: None while it is not known.
        facts: the same as numbers.
        last: whether none follows; a log takes it in any case.
    """
    counts = {"done": done, "total": total} if done is not None else {}
    _log(Event.PROGRESS, message, facts=counts | dict(facts or {}), last=last)


def show(*parts: Any, width: int | None = None, facts: Mapping[str, Any] | None = None) -> None:
    """Prints a result on standard output; it goes to the log file, too.

    Args:
        parts: texts, and tables of rich.
        width: of the tables, in characters; None for that of the terminal.
        facts: the same as numbers, for the log.
    """
    from rich.console import Console  # whoever prints lines only need not wait for it

    def printed(file: IO[str], width: int | None) -> None:
        console = Console(file=file, width=width, highlight=False, markup=False, emoji=False)
        for part in parts:
            console.print(part, soft_wrap=True)

    if LOGGER.handlers:
        printed(lines := io.StringIO(), width or _LOG_WIDTH)
        _log(Event.RESULT, lines.getvalue().rstrip(), facts=facts)
    if sys.stdout is not None:
        with suppress(*UNWRITABLE, SystemExit):  # rich exits at a closed pipe
            printed(sys.stdout, width)


def as_text(level: int, message: str) -> str:
    """A message without credentials, after the word for its level if that is a problem.

    >>> as_text(logging.INFO, "loading"), as_text(logging.ERROR, "--input: not there")
    ('loading', 'error: --input: not there')
    """
    word = f"{logging.getLevelName(level).lower()}: " if level > logging.INFO else ""
    return word + without_credentials(message)


def counted(count: int, noun: str) -> str:
    """A number with its noun.

    >>> counted(1, "recording"), counted(2_000, "recording")
    ('1 recording', '2,000 recordings')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def clock(seconds: float) -> str:
    """A duration for reading.

    >>> clock(3725)
    '1:02:05'
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _log(
    event: Event,
    message: str,
    level: int = logging.INFO,
    facts: Mapping[str, Any] | None = None,
    last: bool = False,
) -> None:
    if LOGGER.handlers:
        extra = {"event": event.value, "facts": dict(facts or {}), "last": last}
        LOGGER.log(level, "%s", message, extra=extra)
