"""A file as decoders see it: the same whether its bytes lie on a disk, in memory or in a bucket."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

_IN_MEMORY = 1 << 20  # bytes; up to this, reading all of a file costs less than many small reads
_BUFFER = 1 << 16  # bytes


def view(handle: BinaryIO, start: int = 0, size: int | None = None) -> BinaryIO:
    """A file, or a part of it; closing the view leaves the file open.

    Args:
        handle: seekable.
        start: the position that becomes 0.
        size: bytes, at most; None for all that follow.
    """
    raw = _Raw(handle, start, size)
    return _Memory(raw.read()) if raw.size <= _IN_MEMORY else io.BufferedReader(raw, _BUFFER)


@contextmanager
def reading_at_most(source: BinaryIO, num_bytes: int) -> Iterator[None]:
    """Lets a large view end after so many bytes more; what is in memory costs nothing to read."""
    raw = source.raw if isinstance(source, io.BufferedReader) else None
    if isinstance(raw, _Raw):
        raw.budget = num_bytes
    try:
        yield
    finally:
        if isinstance(raw, _Raw):
            raw.budget = None


def size_of(source: BinaryIO) -> int:
    """The size of a file in bytes; its position stays."""
    position = source.tell()
    size = source.seek(0, io.SEEK_END)
    source.seek(position)
    return size


class _Memory(io.BytesIO):
    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        position = self.tell()
        size = super().seek(0, io.SEEK_END) if whence == io.SEEK_END else 0
        return super().seek(_target(offset, whence, position, size))


class _Raw(io.RawIOBase):
    """Reads another file from some position on.

    Attributes:
        size: bytes.
        budget: bytes that can be read before the file seems to end; None for all.
    """

    def __init__(self, handle: BinaryIO, start: int, size: int | None) -> None:
        following = max(handle.seek(0, io.SEEK_END) - start, 0)
        self.size = following if size is None else min(size, following)
        self.budget: int | None = None
        self._handle = handle
        self._start = start
        self._position = 0

    def readinto(self, buffer: Any) -> int:
        data = self._fetched(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        """Reads the rest, in one go where the handle does so; the base class takes 8 KiB a time."""
        data = self._fetched(self.size)
        while more := self._fetched(self.size):
            data += more
        return data

    def _fetched(self, most: int) -> bytes:
        wanted = min(most, max(self.size - self._position, 0))
        wanted = wanted if self.budget is None else min(wanted, self.budget)
        self._handle.seek(self._start + self._position)
        data = self._handle.read(wanted)
        self._position += len(data)
        if self.budget is not None:
            self.budget -= len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._position = _target(offset, whence, self._position, self.size)
        return self._position

    def tell(self) -> int:
        return self._position

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def _target(offset: int, whence: int, position: int, size: int) -> int:
    """Where a seek leads: as with `lseek`, nowhere if there is no such position.

    An exception from a callback of libsndfile would be printed, and taken for position 0.
    """
    target = offset + (0, position, size)[whence]
    return target if 0 <= target < 1 << 63 else position
