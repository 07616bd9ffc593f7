"""The sizes and versions of files that are named one by one, as in a manifest."""

import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from ser_core.sources.recording import Recording
from ser_core.storage.listing import Entry, stat_file

_CONCURRENT = 32  # requests in flight


class NamedFiles:
    """Asks for each file once, as long as its rows follow each other.

    It ends the listing rather than wait for each file of a store in turn: a store is out of reach
    if a request failed until its deadline while no other had an answer.

    ::

        with NamedFiles() as files:
            entries = files.entries(uris)
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_CONCURRENT)
        self._known: dict[str, Entry] = {}  # the last one: the next page may go on with it
        self._answered: dict[str, float] = {}  # by store, monotonic

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def entries(self, uris: Sequence[str]) -> list[Entry]:
        """The files of a page of rows; of unknown size where they could not be seen.

        Args:
            uris: absolute, at least one; those of one file follow each other.

        Raises:
            Exception: their storage cannot be reached; of whatever type the file system raises.
        """
        new = [uri for uri in dict.fromkeys(uris) if uri not in self._known]
        known = self._known | dict(zip(new, self._pool.map(self._stat, new), strict=True))
        self._known = {uris[-1]: known[uris[-1]]}
        return [known[uri] for uri in uris]

    def _stat(self, uri: str) -> Entry:
        store, started = "/".join(uri.split("/", 3)[:3]), time.monotonic()
        try:
            entry = stat_file(uri)
        except Exception:
            if self._answered.get(store, -math.inf) < started:
                raise
            return Entry(uri, None, "")
        self._answered[store] = time.monotonic()
        return entry


def recordings_in(
    entries: Sequence[Entry],
    names: Sequence[str],
    starts: Sequence[float | None],
    durations: Sequence[float | None],
) -> list[Recording]:
    """References to files, or to stretches of them, each with the path that the user gave it."""
    return [
        Recording(
            entry.path,
            entry.size,
            entry.version,
            name=None if name == entry.path else name,
            start=start,
            duration=duration,
        )
        for entry, name, start, duration in zip(entries, names, starts, durations, strict=True)
    ]
