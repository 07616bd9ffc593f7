"""Collects rows and writes them as parts, by number and by time."""

import time
from typing import Self

import pyarrow as pa

from ser_core.labeling.label_store import ROWS_PER_PART, LabelStore


class PartWriter:
    """Writes a part when it has enough rows, or rows that have waited long enough.

    Attributes:
        write_seconds: spent so far on writing.
    """

    def __init__(self, store: LabelStore, seconds: float) -> None:
        self._store = store
        self._seconds = seconds
        self._tables: list[pa.Table] = []
        self._since = time.monotonic()
        self.write_seconds = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()  # also when the run stops: what is labelled stays labelled

    def add(self, rows: pa.Table) -> None:
        """Takes rows of the store's schema; they are on disk after the next flush."""
        self._tables.append(rows)
        full = sum(table.num_rows for table in self._tables) >= ROWS_PER_PART
        if full or time.monotonic() - self._since >= self._seconds:
            self.flush()

    def flush(self) -> None:
        """Writes what was collected."""
        tables, self._tables = self._tables, []  # what cannot be written is not tried twice
        started = time.monotonic()
        if tables:
            self._store.write_part(pa.concat_tables(tables))
        self._since = time.monotonic()
        self.write_seconds += self._since - started
