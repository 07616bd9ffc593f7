"""A terminal: a live line that says what a command is doing, and messages above it."""

import logging
import os
import sys
import time
from contextlib import suppress

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from ser_core.console import Event, as_text

_BAR_WIDTH = 24  # characters, where there is room for twice the message's width
_REFRESHES = 8  # a second


class Terminal(logging.Handler):
    """Draws phases and progress in a live line on standard error."""

    def __init__(self) -> None:
        """Shows nothing yet."""
        super().__init__()
        self._stream = _Stream()
        self._console = Console(
            file=self._stream,  # type: ignore[arg-type]
            force_terminal=True,
            soft_wrap=True,
            highlight=False,
            markup=False,
            emoji=False,
        )
        self._spinner = Spinner("dots")
        self._words, self._since = "", time.monotonic()
        self._done: int | None = None
        self._total: int | None = None
        self._live: Live | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Shows a record."""
        event, message = getattr(record, "event", Event.MESSAGE), record.getMessage()
        if event in (Event.PHASE, Event.PROGRESS):
            facts = getattr(record, "facts", {})
            self._done, self._total = facts.get("done"), facts.get("total")
            self._words = as_text(record.levelno, message)
            if event == Event.PHASE:
                self._since = time.monotonic()
            self._start()
        elif event == Event.MESSAGE:
            self._console.print(as_text(record.levelno, message))
        else:  # others print
            self._stop()

    def close(self) -> None:
        """Removes the live line."""
        self._stop()
        self._stream.close()
        super().close()

    def _start(self) -> None:
        if self._live is None:
            self._live = Live(
                get_renderable=self._line,
                console=self._console,
                transient=True,
                redirect_stdout=False,  # which need not be this terminal
                refresh_per_second=_REFRESHES,
            )
            self._live.start(refresh=True)

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _line(self) -> RenderableType:
        """Never longer than a line: what does not fit is cut at its end."""
        line = Table.grid(padding=(0, 1))
        words = self._words
        cells: list[RenderableType] = [self._spinner]
        if self._done is None:
            words += f" {time.monotonic() - self._since:.0f} s"
        elif self._console.width >= len(words) + _BAR_WIDTH + 4:
            cells.append(ProgressBar(self._total, self._done, _BAR_WIDTH, pulse=not self._total))
        cells.append(Text(words, no_wrap=True, overflow="ellipsis"))
        line.add_row(*cells)
        return line


class _Stream:
    """The terminal itself, also while standard error leads elsewhere; it may go away."""

    def __init__(self) -> None:
        self._descriptor = os.dup(sys.stderr.fileno())
        self.encoding = getattr(sys.stderr, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        with suppress(OSError):
            os.write(self._descriptor, text.encode(self.encoding, "replace"))
        return len(text)

    def flush(self) -> None:
        """Nothing waits."""

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        os.close(self._descriptor)
