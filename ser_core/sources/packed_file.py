"""Shared by the input forms whose files hold several recordings."""

import io
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import BinaryIO, TypeVar

import numpy as np
import pyarrow as pa

from ser_core.errors import CorpusError, RecordingError, Status
from ser_core.sources.inputs import input_errors, shown
from ser_core.sources.interface import Listing, Page
from ser_core.sources.recording import Recording
from ser_core.sources.skipped import describe
from ser_core.storage.reading import Stopwatch, open_table, recording_error

Item = TypeVar("Item")


class PackedFile:
    """A file for a parser; it remembers whether the storage failed, whatever the parser raises.

    Attributes:
        failure: what the storage raised.
        at_end: whether the last read found nothing more.
    """

    def __init__(self, uri: str) -> None:
        """Opens a file.

        Raises:
            Exception: what the file system raises, of whatever type.
        """
        self._handle: BinaryIO = open_table(uri)
        self.failure: Exception | None = None
        self.at_end = False
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        """Reads on.

        Raises:
            Exception: what the file system raises, of whatever type.
        """
        try:
            data = self._handle.read(size)
        except Exception as error:
            self.failure = error
            raise
        self.at_end = not data
        return data

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        """Goes to a position, which takes no request."""
        return self._handle.seek(position, whence)

    def tell(self) -> int:
        """The position."""
        return self._handle.tell()

    def close(self) -> None:
        """Closes the file."""
        self.closed = True
        self._handle.close()


@dataclass(frozen=True)
class PackedSource:
    """The recordings in packed files; a form says how one of them is listed.

    Attributes:
        uris: of the files.
        columns: beside the recordings, of all files together; a file may lack some.
    """

    uris: tuple[str, ...]
    columns: pa.Schema

    def pages(self) -> Iterator[Page]:
        """Lists one file after the other.

        Raises:
            CorpusError: there is no recording in any of them.
            RunError: the storage cannot be reached.
        """
        yield from list_each(self.uris, self.list_file)

    def split(self, parts: int) -> Sequence[Listing]:
        """Some of the files each."""
        return [PackedFiles(self, uris) for uris in in_groups(self.uris, parts)]

    def covers(self, recordings: Sequence[Recording]) -> np.ndarray:
        """Whole members of its files, by their names alone."""
        uris = frozenset(self.uris)
        covered = [
            each.uri in uris
            and each.member is not None
            and each.start is None
            and self.takes(each.member)
            for each in recordings
        ]
        return np.array(covered, bool)

    def takes(self, member: str) -> bool:
        """Whether a member of a file is listed, by its name alone."""
        del member
        return True

    def list_file(self, uri: str) -> Iterator[Page]:
        """Lists one file; the last page says if it cannot be opened, or not read to its end.

        Raises:
            RunError: its storage cannot be reached.
        """
        yield from list_one(uri, partial(self._pages, uri))

    def _pages(self, uri: str, file: PackedFile) -> Iterator[Page]:
        raise NotImplementedError


@dataclass(frozen=True)
class PackedFiles:
    """Some of the files of a source."""

    source: PackedSource
    uris: Sequence[str]

    @property
    def columns(self) -> pa.Schema:
        """Those of all files."""
        return self.source.columns

    def pages(self) -> Iterator[Page]:
        """Lists one file after the other."""
        return chain.from_iterable(map(self.source.list_file, self.uris))


def in_groups(items: tuple[Item, ...], most: int) -> Iterator[tuple[Item, ...]]:
    """Items in their order, in at most so many groups of one size; the last may be smaller.

    >>> list(in_groups((1, 2, 3, 4, 5), 2))
    [(1, 2, 3), (4, 5)]
    """
    size = -(-len(items) // most)
    return (items[at : at + size] for at in range(0, len(items), size))


def list_one(uri: str, pages: Callable[[PackedFile], Iterator[Page]]) -> Iterator[Page]:
    """Lists one file; the last page says if it cannot be opened, or not read to its end.

    Args:
        uri: of the file.
        pages: lists it; what it raises as RecordingError concerns the rest of the file.

    Raises:
        RunError: its storage cannot be reached.
    """
    try:
        with input_errors("--input", uri), closing(PackedFile(uri)) as file:
            yield from pages(file)
    except RecordingError as error:
        yield Page([], unseen=(f"{uri}: {error}",))
    except CorpusError as error:
        yield Page([], unseen=(str(error).removeprefix("--input "),))


def list_each(uris: Sequence[str], list_file: Callable[[str], Iterator[Page]]) -> Iterator[Page]:
    """Lists one file after the other; one that cannot be read does not stop the others.

    Args:
        uris: of the files.
        list_file: lists one of them, by `list_one`.

    Raises:
        CorpusError: there is no recording in any of them.
        RunError: the storage cannot be reached.
    """
    found, unseen, skipped = False, "", Counter[str]()
    for page in chain.from_iterable(map(list_file, uris)):
        found = found or bool(page.recordings)
        unseen = unseen or next(iter(page.unseen), "")
        skipped.update(page.skipped)
        yield page
    if not found and unseen:
        raise CorpusError(f"--input {unseen}")
    if not found:
        but = f", but {describe(skipped)}; add --include PATTERN" if skipped else ""
        raise CorpusError(f"--input {shown(uris)}: there are no recordings{but}")


def read_each(
    uri: str,
    recordings: Sequence[Recording],
    stopwatch: Stopwatch,
    read: Callable[[PackedFile, Sequence[Recording]], Iterator[bytes | RecordingError]],
) -> Iterator[bytes | RecordingError]:
    """Reads recordings of one file; once the storage has failed, the others are not tried.

    Args:
        uri: of the file.
        recordings: its members.
        stopwatch: receives the time that it took.
        read: yields the content of each recording, or why it cannot be read; what it raises of the
            file as a whole, as RecordingError, concerns all that follow.
    """
    remaining = len(recordings)
    try:
        with stopwatch.waiting():
            file = PackedFile(uri)
    except Exception as error:
        yield from [_storage_error(uri, error)] * remaining
        return
    with closing(file):
        contents = read(file, recordings)
        while remaining:
            try:
                with stopwatch.waiting():
                    content = next(contents)
            except Exception as error:
                if file.failure is None and not isinstance(error, RecordingError):
                    raise
                yield from [_storage_error(uri, file.failure or error)] * remaining
                return
            yield content
            remaining -= 1


def no_longer_there() -> RecordingError:
    """The file was replaced after it had been listed; the next run lists it again."""
    return RecordingError(Status.NOT_FOUND, "no longer in the file, which has changed meanwhile")


def _storage_error(uri: str, error: Exception) -> RecordingError:
    failure = recording_error(uri, error)
    if not isinstance(failure, RecordingError):
        raise failure
    return failure
