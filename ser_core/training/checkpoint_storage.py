"""The output folder as Ray Train's storage: files appear whole, and passing failures are retried.

Ray Train gives up on a run as soon as its list of checkpoints cannot be written.
"""

import contextlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from tempfile import NamedTemporaryFile
from typing import Any

import fsspec
import pyarrow
import pyarrow.fs

from ser_core.storage.filesystem import is_local, retry_transient
from ser_core.storage.folder import Folder, storage_errors

# Of one file. A server that is restarted is back by then, and a gigabyte is uploaded.
_RETRY_SECONDS = 600.0


def checkpoint_storage(folder: Folder) -> tuple[pyarrow.fs.FileSystem, str]:
    """File system and path of a folder, as Ray Train takes them."""
    if is_local(folder.uri):
        return pyarrow.fs.PyFileSystem(_LocalFiles(folder.fs)), folder.root
    # Several processes write here: a listing that one of them remembers is soon out of date.
    options = {**folder.fs.storage_options, "use_listings_cache": False}
    fs = type(folder.fs)(*folder.fs.storage_args, **options)
    return pyarrow.fs.PyFileSystem(_RemoteFiles(_Retrying(fs))), folder.root


def read_file(filesystem: pyarrow.fs.FileSystem, path: str) -> bytes:
    """The content of a file of a checkpoint.

    Raises:
        RunError: it could not be read.
    """
    with (
        storage_errors("a checkpoint could not be read"),
        filesystem.open_input_stream(path) as stream,
    ):
        content: bytes = stream.read()
    return content


def write_file(filesystem: pyarrow.fs.FileSystem, path: str, content: bytes) -> None:
    """Writes a file that appears whole or not at all; replaces one of that name.

    Raises:
        RunError: it could not be written.
    """
    folder, _, name = path.rpartition("/")
    with storage_errors(f"--output {folder}: {name} could not be written"):
        filesystem.create_dir(folder)
        with filesystem.open_output_stream(path) as stream:
            stream.write(content)


class _LocalFiles(pyarrow.fs.FSSpecHandler):  # type: ignore[misc]
    """A local file system whose files appear whole or not at all, as objects in a bucket do.

    Ray Train rewrites its list of checkpoints in place. A process that is killed meanwhile would
    leave half a list, from which no later run could continue.
    """

    def open_output_stream(self, path: str, metadata: Mapping[str, str]) -> pyarrow.NativeFile:  # noqa: ARG002
        return pyarrow.PythonFile(_LocalFile(path), mode="w")


class _LocalFile(io.BufferedWriter):
    """A file that gets its name once it is closed and everything has been written."""

    def __init__(self, path: str) -> None:
        self._path, self._temporary, self._complete = path, f"{path}.tmp", True
        super().__init__(io.FileIO(self._temporary, "wb"))

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            self._complete = False
            raise

    def close(self) -> None:
        if self.closed:
            return
        try:
            super().close()  # raises if the rest of the buffer cannot be written
        except OSError:
            self._complete = False
            raise
        finally:
            if self._complete:
                os.replace(self._temporary, self._path)
            else:  # on a full disk, it would be in the way of what comes next
                with contextlib.suppress(OSError):
                    os.remove(self._temporary)


class _RemoteFiles(pyarrow.fs.FSSpecHandler):  # type: ignore[misc]
    """A remote file system whose files are written in one call, which can be retried."""

    def open_output_stream(self, path: str, metadata: Mapping[str, str]) -> pyarrow.NativeFile:  # noqa: ARG002
        return pyarrow.PythonFile(_Upload(self.fs, path), mode="w")

    def open_input_stream(self, path: str) -> pyarrow.NativeFile:
        # The base class asks `isfile` first, which says no where storage does not answer.
        return pyarrow.PythonFile(io.BytesIO(self.fs.cat_file(path)), mode="r")

    open_input_file = open_input_stream


class _Upload:
    """A file that is collected on this machine and uploaded when it is closed."""

    def __init__(self, fs: "_Retrying", path: str) -> None:
        self._fs, self._path, self._complete = fs, path, True
        self._file = NamedTemporaryFile()  # noqa: SIM115 (closed with this one)
        self.closed = False

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except OSError:
            self._complete = False
            raise

    def flush(self) -> None:
        """Nothing is uploaded before the file is closed."""

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        with self._file:
            self._file.flush()
            if self._complete:
                self._fs.put_file(self._file.name, self._path)


@dataclass(frozen=True)
class _Retrying:
    """A file system whose calls are retried for minutes while they fail in passing."""

    fs: fsspec.AbstractFileSystem

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what pickle looks for before there is a file system
            raise AttributeError(name)
        value = getattr(self.fs, name)
        return retry_transient(value, _RETRY_SECONDS) if callable(value) else value
