"""A job's output folder: files appear whole or not at all; it does not know what they mean."""

import contextlib
import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager

from ser_core.errors import OutputError, RunError, SerError, one_line
from ser_core.storage.filesystem import (
    absolute,
    call_once,
    is_local,
    is_transient,
    resolve,
    retry_transient,
)
from ser_core.storage.listing import has_pages, object_pages
from ser_core.storage.protocols import protocols

# A PUT is atomic there, so that an object appears whole without a rename.
_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "memory"})

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}\.tmp", re.DOTALL)  # as `Folder._temporary` names them
_PROBE_BYTES = 1 << 20  # a few bytes may still fit on a disk that is full
_OTHER_WRITER_SECONDS = 1.0  # in which another writer that saw no file has written its own


@contextlib.contextmanager
def storage_errors(problem: str) -> Iterator[None]:
    """Raises what storage raises as RunError, which tells it from a bug."""
    try:
        yield
    except SerError:
        raise
    except Exception as error:  # file systems share no base class for what they raise
        raise RunError(f"{problem} ({one_line(error)})") from error


def unreachable(subject: str, error: Exception) -> RunError:
    """What to raise where storage does not answer; the subject is a flag and its URI."""
    reason = f"cannot be reached ({one_line(error)}); the same command tries again"
    return RunError(f"{subject}: {reason}")


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Raises RunError as OutputError where storage refused: the same command would fail again."""
    try:
        yield
    except RunError as error:
        if error.__cause__ and not is_transient(error.__cause__):
            raise OutputError(str(error)) from error
        raise


class Folder:
    """A folder or prefix with small files.

    Attributes:
        uri: absolute.
        fs: its file system.
        root: its path there.
    """

    def __init__(self, uri: str) -> None:
        """Writes nothing.

        Raises:
            UsageError: the URI cannot be used, or its storage refuses us.
            RunError: its storage cannot be reached.
        """
        self.uri = absolute(uri)
        with refusals(), storage_errors(f"{self.uri}: cannot be reached"):
            self.fs, self.root = resolve(self.uri)

    def why_unusable(self) -> str | None:
        """Why files cannot be written here, as far as can be told without writing.

        Raises:
            RunError: its storage cannot be reached.
        """
        if is_local(self.uri):
            nearest = self.root
            while not os.path.lexists(nearest):
                nearest = os.path.dirname(nearest)
            if not os.path.isdir(nearest):
                return f"{nearest} is not a folder"
            return None if os.access(nearest, os.W_OK) else f"{nearest} is not writable"
        try:
            self.names()
            if has_pages(self.fs):
                # HeadBucket would need rights that may be granted for a prefix only.
                next(object_pages(self.fs, self.root), None)
        except FileNotFoundError as error:
            return f"there is no such bucket ({one_line(error)})"
        except Exception as error:  # remote file systems share no base class for what they raise
            if not is_transient(error):
                return one_line(error)
            raise unreachable(f"--output {self.uri}", error) from error
        return None

    def probe(self) -> None:
        """Writes a file and removes it: what storage allows and has room for is known only then.

        Raises:
            OutputError: writing is refused.
            RunError: it failed otherwise: the disk is full, or the storage cannot be reached.
        """
        name = f".probe.{uuid.uuid4().hex}.tmp"  # removed with temporary files, if we are killed
        with refusals():
            try:
                self.write(name, os.urandom(_PROBE_BYTES))
            finally:
                self.remove(name)

    def names(self, subfolder: str = "") -> list[str]:
        """The names of the files directly in it, none if it does not exist yet."""
        path = self.path(subfolder) if subfolder else self.root
        self.fs.invalidate_cache(path)
        try:
            infos = retry_transient(self.fs.ls)(path, detail=True)
        except FileNotFoundError:
            return []
        return sorted(i["name"].rsplit("/", 1)[-1] for i in infos if i["type"] == "file")

    def path(self, name: str) -> str:
        """A file's path on its file system."""
        return f"{self.root}/{name}"

    def exists(self, name: str) -> bool:
        """Whether there is a file or subfolder of that name."""
        self.fs.invalidate_cache(self.path(name))
        try:  # and not fsspec's `exists`, which takes every failure for a no
            retry_transient(self.fs.info)(self.path(name))
        except FileNotFoundError:
            return False
        return True

    def read(self, name: str) -> bytes:
        """A file's content.

        Raises:
            FileNotFoundError: there is no such file.
        """
        data: bytes = retry_transient(self.fs.cat_file)(self.path(name))
        return data

    def write(self, name: str, data: bytes) -> None:
        """Writes a file so that it appears whole or not at all; replaces one of that name.

        Raises:
            RunError: it could not be written.
        """
        with self._writing(name):
            self._put(name, data)

    def create(self, name: str, data: bytes) -> bool:
        """Writes a small file unless one of that name exists, which only one of two writers can.

        Where a store cannot do that in one request, the one whose data is there afterwards did.

        Returns:
            Whether it was written.

        Raises:
            OutputError: writing is refused.
            RunError: it could not be written.
        """
        with refusals(), self._writing(name):
            try:
                self._put_new(name, data)
            except Exception:  # stores report a failed condition in many ways
                if self.exists(name):
                    return False
                self._put(name, data)
                time.sleep(_OTHER_WRITER_SECONDS)
                return self.read(name) == data
        return True

    def remove(self, name: str) -> None:
        """Removes a file; one that is already gone is fine.

        Raises:
            RunError: it could not be removed.
        """
        with storage_errors(f"--output {self.uri}: {name} could not be removed"):
            try:
                retry_transient(self.fs.rm_file)(self.path(name))
            except FileNotFoundError:
                return

    def remove_empty(self, subfolder: str) -> None:
        """Removes a subfolder if nothing is in it; object stores have none."""
        with contextlib.suppress(OSError):
            call_once(self.fs.rmdir)(self.path(subfolder))

    def remove_temporary_files(self, subfolder: str = "") -> None:
        """Removes what killed writers left half-written, directly in it or in a subfolder.

        Raises:
            RunError: it could not be removed.
        """
        with storage_errors(f"--output {self.uri}: temporary files could not be removed"):
            names = self.names(subfolder)
        for name in names:
            if _TEMPORARY.fullmatch(name):
                self.remove(f"{subfolder}/{name}" if subfolder else name)

    def _put(self, name: str, data: bytes) -> None:
        if self._is_object_store():
            retry_transient(self.fs.pipe_file)(self.path(name), data)
        elif is_local(self.uri):
            os.replace(self._temporary(name, data), self.path(name))
        else:  # as a whole: whether a rename that failed was carried out is not known
            retry_transient(self._put_by_renaming)(name, data)

    def _put_by_renaming(self, name: str, data: bytes) -> None:
        self.fs.mv(self._temporary(name, data), self.path(name))

    def _put_new(self, name: str, data: bytes) -> None:
        if not is_local(self.uri):
            if not self._is_object_store():
                folder = os.path.dirname(self.path(name))
                retry_transient(self.fs.makedirs)(folder, exist_ok=True)
            call_once(self.fs.pipe_file)(self.path(name), data, mode="create")
            return
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), "xb") as file:
            try:
                file.write(data)
                file.flush()
            except OSError:  # an empty file would count as another writer's
                os.remove(file.name)
                raise

    def _temporary(self, name: str, data: bytes) -> str:
        folder, _, base = self.path(name).rpartition("/")
        self.fs.makedirs(folder, exist_ok=True)
        # Hidden, and not named like a part: no reader of the folder takes it for one.
        temporary = f"{folder}/.{base}.{uuid.uuid4().hex}.tmp"
        try:
            self.fs.pipe_file(temporary, data)
            if is_local(self.uri):
                _to_disk(temporary)
        except BaseException:  # a full disk has no room for half a file
            with contextlib.suppress(Exception):
                self.fs.rm_file(temporary)
            raise
        return temporary

    def _is_object_store(self) -> bool:
        return bool(_OBJECT_STORES & set(protocols(self.fs)))

    def _writing(self, name: str) -> AbstractContextManager[None]:
        return storage_errors(f"--output {self.uri}: {name} could not be written")


def output_folder(uri: str) -> Folder:
    """The folder that ``--output`` names; nothing is written yet.

    Raises:
        UsageError: it cannot be used.
        RunError: its storage cannot be reached.
    """
    folder = Folder(uri)
    if problem := folder.why_unusable():
        raise OutputError(f"--output {uri}: {problem}")
    return folder


def _to_disk(path: str) -> None:
    """Waits until a file's content is on disk, so that no power cut leaves a name without it."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
