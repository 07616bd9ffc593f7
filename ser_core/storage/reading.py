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

from ser_core.errors import RecordingError, Status
from ser_core.storage.filesystem import is_local, local_path, resolve, retry_transient

# Below this, one request for the whole object is cheaper than the second request of a range read.
_WHOLE_BYTES = 1 << 20
_RANGE_BYTES = 256 << 10  # 8 s of 16-bit 16 kHz mono; decoders ask for far less at a time


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
    if is_local(uri):
        with _open_local(local_path(uri)) as handle:
            yield handle
        return
    source = _Ranges(uri, size, stopwatch or Stopwatch())
    whole = source.size <= _WHOLE_BYTES
    try:
        yield io.BytesIO(source.fetch(0, source.size)) if whole else source.buffered()
    except Exception:
        if source.failure:  # libsndfile swallows what its callbacks raise
            raise source.failure from None
        raise
    if source.failure:
        raise source.failure


def _open_local(path: str) -> BinaryIO:
    with _as_recording_errors(path):
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for ever
            raise RecordingError(Status.DECODE_ERROR, "not a regular file")
        # Unbuffered: libsndfile reads the descriptor, whose position a buffer would hide.
        return cast(BinaryIO, open(path, "rb", buffering=0))


class _Window(NamedTuple):
    """Bytes that were fetched, and their position in the file."""

    start: int
    data: bytes

    def __contains__(self, position: object) -> bool:
        return isinstance(position, int) and 0 <= position - self.start < len(self.data)


class _Ranges(io.RawIOBase):
    """A remote file read by retried range requests.

    Attributes:
        failure: the request that failed for good, if one did.
    """

    def __init__(self, uri: str, size: int | None, stopwatch: Stopwatch) -> None:
        self.uri = uri
        self.stopwatch = stopwatch
        self.fs, self.name = resolve(uri)
        self.position = 0
        # The first window, to which decoders return after a look at the end, and the last one.
        self._windows: list[_Window] = []
        self.failure: RecordingError | None = None
        self.size: int = self._retried(self.fs.size, self.name) if size is None else size

    def buffered(self) -> BinaryIO:
        return io.BufferedReader(self)  # reads on until it has as many bytes as were asked for

    def fetch(self, start: int, end: int) -> bytes:
        data: bytes = self._retried(self.fs.cat_file, self.name, start=start, end=end)
        return data

    def _retried(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            with self.stopwatch.waiting(), _as_recording_errors(self.uri):
                return retry_transient(call)(*args, **kwargs)
        except RecordingError as error:
            self.failure = error
            raise

    def readinto(self, buffer: Any) -> int:
        if self.position >= self.size:  # S3 answers an empty range with an error
            return 0
        window = next((w for w in self._windows if self.position in w), None)
        if window is None:
            end = min(self.position + _RANGE_BYTES, self.size)
            window = _Window(self.position, self.fetch(self.position, end))
            self._windows = [*self._windows[:1], window]
        offset = self.position - window.start
        data = window.data[offset : offset + len(buffer)]
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.position = offset + (0, self.position, self.size)[whence]
        return self.position

    def tell(self) -> int:
        return self.position

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


@contextmanager
def _as_recording_errors(uri: str) -> Iterator[None]:
    try:
        yield
    except RecordingError:
        raise
    except (FileNotFoundError, NotADirectoryError):
        dangling = is_local(uri) and os.path.islink(local_path(uri))
        reason = "a symbolic link without a target" if dangling else "not found when opened"
        raise RecordingError(Status.NOT_FOUND, reason) from None
    except PermissionError as error:
        raise RecordingError(Status.PERMISSION_DENIED, f"permission denied: {error}") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise RecordingError(Status.NOT_FOUND, "the file name is too long") from None
        raise RecordingError(Status.UNAVAILABLE, f"cannot be read: {error!r}") from None
    except Exception as error:  # remote file systems share no base class for what they raise
        if is_local(uri):
            raise
        raise RecordingError(Status.UNAVAILABLE, f"cannot be read: {error!r}") from None
