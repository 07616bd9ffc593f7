"""A file's URI → a handle that is fetched only as far as it is read; it does not decode."""

import errno
import io
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple, cast

from ser_core.errors import RecordingError, SerError, Status, one_line
from ser_core.storage.filesystem import (
    CredentialsError,
    is_local,
    local_path,
    resolve,
    retry_transient,
)

# Below this, one request for the whole object is cheaper than the second request of a range read.
_WHOLE_BYTES = 1 << 20
_RANGE_BYTES = 256 << 10  # 8 s of 16-bit 16 kHz mono; decoders ask for far less at a time
_TABLE_RANGE_BYTES = 4 << 20  # what is slower than 70 kB/s does not arrive before the deadline
_CHECKED_BYTES = 256 << 20


@dataclass
class Stopwatch:
    """Seconds spent waiting for storage; local disks are read while decoding and not counted."""

    seconds: float = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time within it."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - started


@contextmanager
def open_file(
    uri: str, size: int | None = None, stopwatch: Stopwatch | None = None
) -> Iterator[BinaryIO]:
    """Opens a file for decoding; its content is fetched only as far as it is read.

    Args:
        uri: where it is.
        size: bytes, if known; saves a request on object stores.
        stopwatch: receives the time that storage took.

    Raises:
        RecordingError: missing, forbidden, not a regular file, or out of reach after retries. A
            failure to read takes precedence over what the decoder made of it.
    """
    stopwatch = stopwatch or Stopwatch()
    if is_local(uri):
        with stopwatch.waiting():
            handle = _open_local(local_path(uri))
        with handle:
            try:
                yield handle
            except Exception:
                _check_readable(uri, handle)
                raise
        return
    source = _Ranges(uri, size, stopwatch)
    try:
        yield source.open()
    except Exception:
        if source.failure:  # libsndfile swallows what its callbacks raise
            raise recording_error(uri, source.failure) from None
        raise
    if source.failure:
        raise recording_error(uri, source.failure)


def open_table(uri: str) -> BinaryIO:
    """Opens a file that is read to its end, as a manifest is; each request has a deadline.

    Raises:
        Exception: what the file system raises, of whatever type.
    """
    if is_local(uri):
        return open(local_path(uri), "rb")
    return _Ranges(uri, None, Stopwatch(), _TABLE_RANGE_BYTES).open()


def _open_local(path: str) -> BinaryIO:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for ever
            raise RecordingError(Status.DECODE_ERROR, "not a regular file")
        # Unbuffered: libsndfile reads the descriptor, whose position a buffer would hide.
        return cast(BinaryIO, open(path, "rb", buffering=0))
    except OSError as error:
        raise recording_error(path, error) from None


def _check_readable(uri: str, handle: BinaryIO) -> None:
    """Reads what a decoder failed at: a broken disk is not a bad recording.

    Raises:
        RecordingError: it cannot be read.
    """
    try:
        handle.seek(0)
        for _ in range(_CHECKED_BYTES // _TABLE_RANGE_BYTES):
            if not handle.read(_TABLE_RANGE_BYTES):
                return
    except OSError as error:
        raise recording_error(uri, error) from None


class _Window(NamedTuple):
    """Bytes that were fetched, and their position in the file."""

    start: int
    data: bytes

    def __contains__(self, position: object) -> bool:
        return isinstance(position, int) and 0 <= position - self.start < len(self.data)


class _Ranges(io.RawIOBase):
    """A remote file read by retried range requests.

    Attributes:
        failure: what the request that failed for good raised, if one did.
    """

    def __init__(
        self, uri: str, size: int | None, stopwatch: Stopwatch, range_bytes: int = _RANGE_BYTES
    ) -> None:
        self.uri = uri
        self.size = size or 0
        self.stopwatch = stopwatch
        self.position = 0
        self.failure: Exception | None = None
        self._size_is_known = size is not None
        self._range_bytes = range_bytes
        # The first window, to which decoders return after a look at the end, and the last one.
        self._windows: list[_Window] = []

    def open(self) -> BinaryIO:
        """The file as a handle; a small one is fetched whole.

        Raises:
            Exception: what the file system raises, of whatever type.
        """
        self.fs, self.name = self._request(resolve, self.uri)
        if not self._size_is_known:
            size: int | None = self._request(retry_transient(self.fs.size), self.name)
            if size is None:  # a web server need not tell
                return io.BytesIO(self._request(retry_transient(self.fs.cat_file), self.name))
            self.size = size
        if self.size <= _WHOLE_BYTES:
            return io.BytesIO(self._fetch(0, self.size))
        return io.BufferedReader(self)  # reads on until it has as many bytes as were asked for

    def _fetch(self, start: int, end: int) -> bytes:
        fetch = retry_transient(self.fs.cat_file)
        data: bytes = self._request(fetch, self.name, start=start, end=end)
        return data

    def _request(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self.failure:  # a decoder that fails may make others try
            raise self.failure
        try:
            with self.stopwatch.waiting():
                return call(*args, **kwargs)
        except Exception as error:
            self.failure = error
            raise

    def readinto(self, buffer: Any) -> int:
        if self.position >= self.size:  # S3 answers an empty range with an error
            return 0
        window = next((w for w in self._windows if self.position in w), None)
        if window is None:
            end = min(self.position + self._range_bytes, self.size)
            window = _Window(self.position, self._fetch(self.position, end))
            self._windows = [*self._windows[:1], window]
        offset = self.position - window.start
        data = window.data[offset : offset + len(buffer)]
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        position = offset + (0, self.position, self.size)[whence]
        if position < 0:  # as a local file does
            raise OSError(errno.EINVAL, f"negative position {position}")
        self.position = position
        return position

    def tell(self) -> int:
        return self.position

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def recording_error(uri: str, error: Exception) -> SerError:
    """What to raise when a recording cannot be read because of its storage."""
    if isinstance(error, SerError):
        return error
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        dangling = is_local(uri) and os.path.islink(local_path(uri))
        reason = "a symbolic link without a target" if dangling else "not found when opened"
        return RecordingError(Status.NOT_FOUND, reason)
    if isinstance(error, PermissionError) and not isinstance(error, CredentialsError):
        return RecordingError(Status.PERMISSION_DENIED, f"permission denied: {one_line(error)}")
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return RecordingError(Status.NOT_FOUND, "the file name is too long")
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return RecordingError(Status.NOT_FOUND, "a symbolic link to itself")
    reason = f"cannot be read: {type(error).__name__}: {one_line(error)}"
    return RecordingError(Status.UNAVAILABLE, reason)
