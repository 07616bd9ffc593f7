"""Where a command's lines go: a live line on a terminal, elsewhere a log, and a log file."""

import json
import logging
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Literal

from ser_core.console import LOGGER, UNWRITABLE, Event, as_text
from ser_core.errors import UsageError, without_credentials

LogFormat = Literal["text", "json"]
_MIN_SECONDS, _MAX_SECONDS = 10.0, 60.0  # between two lines of progress
_SHARE = 0.1  # of the time that progress has been going on, until the next line


def open_log(
    log_file: str | None, log_format: LogFormat, live: bool = True
) -> Sequence[logging.Handler]:
    """What takes the lines of a command; nothing takes any yet.

    Args:
        log_file: lines are appended to it.
        log_format: of lines; a terminal shows JSON only if no file takes it.
        live: whether a terminal shows a live line, which output of others would disturb.

    Raises:
        UsageError: the file cannot be written.
    """
    formatter = _Json() if log_format == "json" else _Text()
    handlers: list[logging.Handler] = []
    if live and _is_terminal() and (log_format == "text" or log_file):
        from ser_core.terminal import Terminal  # it imports rich

        handlers.append(Terminal())
    else:
        handlers.append(_StandardError())
        handlers[-1].addFilter(_Paced())
        # Standard output has the result, and Python prints a bug.
        handlers[-1].addFilter(lambda record: _event(record) not in (Event.RESULT, Event.BUG))
    if log_file is not None:
        handlers.append(_open(log_file))
        handlers[-1].addFilter(_Paced())
    for handler in handlers:
        handler.setFormatter(formatter)
    return handlers


@contextmanager
def logged(handlers: Sequence[logging.Handler]) -> Iterator[None]:
    """Within it, the handlers of `open_log` take what is said, and the traceback of a bug."""
    before = LOGGER.level, LOGGER.propagate
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    for handler in handlers:
        LOGGER.addHandler(handler)
    try:
        yield
    except Exception:
        LOGGER.error("%s", traceback.format_exc().strip(), extra={"event": Event.BUG.value})
        raise
    finally:
        LOGGER.level, LOGGER.propagate = before
        for handler in handlers:
            LOGGER.removeHandler(handler)
            with suppress(*UNWRITABLE):
                handler.close()


def _is_terminal() -> bool:
    with suppress(*UNWRITABLE):
        return sys.stderr is not None and sys.stderr.isatty()
    return False


def _open(path: str) -> logging.Handler:
    try:
        return _File(path, encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"--log-file {path}: it cannot be written ({reason}); name a file of this machine, in"
            " a folder that exists"
        ) from None


class _File(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Goes on without the line: a full disk must not end a run."""


class _StandardError(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """Prints a line where standard error leads now."""
        if sys.stderr is not None:
            with suppress(*UNWRITABLE):
                print(self.format(record), file=sys.stderr, flush=True)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """The time and the message, in each of its lines."""
        text = as_text(record.levelno, record.getMessage())
        return "\n".join(f"{_time(record)} {line}" for line in text.splitlines() or [""])


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """An object in one line."""
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "event": _event(record),
            "message": without_credentials(record.getMessage()),
            **getattr(record, "facts", {}),
        }
        return json.dumps(line, ensure_ascii=False)


class _Paced(logging.Filter):
    """Lets progress pass every 10 s at first, and every minute later."""

    def __init__(self) -> None:
        super().__init__()
        self._since = self._passed = time.monotonic()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is due."""
        now = time.monotonic()
        if _event(record) == Event.PHASE:
            self._since = self._passed = now
        if _event(record) != Event.PROGRESS or getattr(record, "last", False):
            return True
        pause = min(_MAX_SECONDS, max(_MIN_SECONDS, _SHARE * (now - self._since)))
        if now - self._passed < pause:
            return False
        self._passed = now
        return True


def _event(record: logging.LogRecord) -> str:
    return str(getattr(record, "event", Event.MESSAGE))


def _time(record: logging.LogRecord) -> str:
    return f"{datetime.fromtimestamp(record.created, UTC):%Y-%m-%dT%H:%M:%SZ}"
