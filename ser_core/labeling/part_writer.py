"""Collects rows and writes them as parts, by number and by time, in a thread of its own."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Self

import pyarrow as pa
import tenacity

from ser_core.console import say
from ser_core.errors import RunError, one_line
from ser_core.labeling.label_store import LabelStore
from ser_core.labeling.parts import rows_per_part
from ser_core.storage.filesystem import REQUEST_SECONDS

_PATIENCE_SECONDS = 600.0  # in which output that cannot be written is tried again
_MAX_PAUSE_SECONDS = 30.0
_MAX_WAITING_PARTS = 4  # about 60 MB, also while nothing can be written


class PartWriter:
    """Writes a part when it has enough rows, or rows that have waited long enough.

    The thread writes also while no further rows come. Where writing fails, it keeps the rows and
    tries again for minutes; a part is named by its rows, so that writing it twice changes nothing.

    ::

        with PartWriter(store, seconds=60.0) as writer:
            writer.add(rows)

    Attributes:
        write_seconds: spent so far on writing.
        written_rows: in parts so far.
    """

    def __init__(
        self, store: LabelStore, seconds: float, patience: float = _PATIENCE_SECONDS
    ) -> None:
        self._store = store
        self._seconds = seconds
        self._patience = patience
        self._rows_per_part = rows_per_part(store.schema)
        self._waiting: deque[pa.Table] = deque()  # kept until they are written
        self._waiting_rows = 0
        self._since = 0.0  # when the first of them came
        self._ended = False  # no further rows come
        self._finished = False  # the thread has nothing left to do
        self._error: Exception | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="part writer", daemon=True)
        self.write_seconds = 0.0
        self.written_rows = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, _: object, raised: BaseException | None, __: object) -> None:
        """Writes what is left, also when the run stops: what is labelled stays labelled.

        Raises:
            RunError: it could not be written, and nothing else had stopped the run.
        """
        with self._changed:
            self._ended = True
            self._changed.notify_all()
            # An interrupted `join` can't be repeated.
            self._wait_for(lambda: self._finished or self._error is not None)
        if self._error is not None and raised is None:
            raise self._error
        if self._error is not None and raised is not self._error:
            say(one_line(self._error), logging.ERROR)

    def add(self, rows: pa.Table) -> None:
        """Takes rows of the store's schema; waits while too many could not be written yet.

        Raises:
            RunError: earlier rows could not be written.
        """
        with self._changed:
            self._wait_for(
                lambda: (
                    self._error is not None
                    or self._waiting_rows < _MAX_WAITING_PARTS * self._rows_per_part
                )
            )
            if self._error is not None:
                raise self._error
            if not self._waiting:
                self._since = time.monotonic()
            if rows.num_rows:
                self._waiting.append(rows)
                self._waiting_rows += rows.num_rows
                self._changed.notify_all()

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        """Waits, but not for storage that hangs: then it sets the error."""
        limit = self._patience + _MAX_PAUSE_SECONDS + REQUEST_SECONDS
        while not condition():
            before = self._waiting_rows
            if not self._changed.wait_for(
                lambda: condition() or self._waiting_rows < before,  # noqa: B023 (called here only)
                limit,
            ):
                self._error = self._lost(f"the output has not answered for {limit:,.0f} s")
                return

    def _lost(self, problem: object) -> RunError:
        rest = f"{self.written_rows:,} rows are written, {self._waiting_rows:,} are lost"
        return RunError(f"{problem}; {rest}, and the same command makes them again")

    def _run(self) -> None:
        try:
            while tables := self._next_part():
                self._write(pa.concat_tables(tables))
                with self._changed:
                    for table in tables:
                        self._waiting.popleft()
                        self._waiting_rows -= table.num_rows
                    self._since = time.monotonic()
                    self._changed.notify_all()
        except Exception as error:  # raised again in the thread that adds rows
            self._error = error
        finally:
            with self._changed:
                self._finished = True
                self._changed.notify_all()

    def _next_part(self) -> list[pa.Table]:
        """Waits for the tables of the next part; none when all has been written."""
        with self._changed:
            while not self._is_due():
                left = self._since + self._seconds - time.monotonic()
                self._changed.wait(max(left, 0.0) if self._waiting else None)
            tables: list[pa.Table] = []
            num_rows = 0
            for table in self._waiting:
                tables.append(table)
                num_rows += table.num_rows
                if num_rows >= self._rows_per_part:
                    break
            return tables

    def _is_due(self) -> bool:
        if self._ended or not self._waiting:
            return self._ended
        waited = time.monotonic() - self._since
        return waited >= self._seconds or self._waiting_rows >= self._rows_per_part

    def _write(self, rows: pa.Table) -> None:
        """Writes one part.

        Raises:
            RunError: it failed for too long.
        """
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(RunError),  # all else is a bug
            wait=tenacity.wait_exponential(max=_MAX_PAUSE_SECONDS),
            stop=tenacity.stop_after_delay(self._patience),
            before_sleep=self._say_first,
            reraise=True,
        )
        started = time.monotonic()
        try:
            retrying(self._store.write_part, rows)
        except RunError as error:
            raise self._lost(error) from error
        seconds = time.monotonic() - started
        if retrying.statistics["attempt_number"] > 1:
            say(f"labels can be written again, after {seconds:,.0f} s")
        self.written_rows += rows.num_rows
        self.write_seconds += seconds

    def _say_first(self, state: tenacity.RetryCallState) -> None:
        if state.attempt_number == 1 and state.outcome is not None:
            minutes = f"{self._patience / 60:.0f} minutes"
            say(f"{state.outcome.exception()}; trying again for {minutes}", logging.WARNING)
