"""A job's output folder: files appear whole or not at all; it does not know what they mean."""

import os
import uuid

from ser_core.errors import RunError
from ser_core.storage.filesystem import absolute, is_local, protocols, resolve, retry_transient
from ser_core.storage.listing import s3_pages

# A PUT is atomic there, so that an object appears whole without a rename.
_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "memory"})


class Folder:
    """A job's output: small files, each written whole or not at all."""

    def __init__(self, uri: str) -> None:
        self.uri = absolute(uri)
        self.fs, self.root = resolve(self.uri)

    def why_unusable(self) -> str | None:
        """What keeps files from being written here, as far as can be told without writing."""
        if is_local(self.uri):
            nearest = self.root
            while not os.path.lexists(nearest):
                nearest = os.path.dirname(nearest)
            if not os.path.isdir(nearest):
                return f"{nearest} is not a folder"
            return None if os.access(nearest, os.W_OK) else f"{nearest} may not be written to"
        try:
            self.names()
            if "s3" in protocols(self.fs):
                # A look at the bucket itself would take rights that may end at a prefix.
                next(s3_pages(self.fs, self.root))
        except FileNotFoundError as error:
            return f"there is no such bucket ({error})"
        except Exception as error:  # remote file systems share no base for what they raise
            return str(error) or repr(error)
        return None

    def names(self, subfolder: str = "") -> list[str]:
        """The names of the files directly in it, none if it does not exist yet."""
        path = f"{self.root}/{subfolder}" if subfolder else self.root
        self.fs.invalidate_cache(path)
        try:
            infos = self.fs.ls(path, detail=True)
        except FileNotFoundError:
            return []
        return sorted(i["name"].rsplit("/", 1)[-1] for i in infos if i["type"] == "file")

    def read(self, name: str) -> bytes:
        """A file's content."""
        data: bytes = self.fs.cat_file(f"{self.root}/{name}")
        return data

    def write(self, name: str, data: bytes) -> None:
        """Writes a file so that it appears whole or not at all; one of that name is replaced.

        Raises:
            RunError: it could not be written.
        """
        try:
            self._put(f"{self.root}/{name}", data)
        except Exception as error:  # remote file systems share no base for what they raise
            words = " ".join(str(error).split()) or repr(error)
            where = f"--output {self.uri}: {name}"
            raise RunError(f"{where} could not be written ({words})") from error

    def _put(self, target: str, data: bytes) -> None:
        if _OBJECT_STORES & set(protocols(self.fs)):
            retry_transient(self.fs.pipe_file)(target, data)
            return
        folder, _, base = target.rpartition("/")
        self.fs.makedirs(folder, exist_ok=True)
        # Hidden, and not named like a part: no reader of the folder takes it for one.
        temporary = f"{folder}/.{base}.{uuid.uuid4().hex}.tmp"
        self.fs.pipe_file(temporary, data)
        if is_local(self.uri):
            os.replace(temporary, target)
        else:
            self.fs.mv(temporary, target)

    def remove(self, name: str) -> None:
        """Removes a file; one that is gone already is fine."""
        try:
            self.fs.rm_file(f"{self.root}/{name}")
        except FileNotFoundError:
            return

    def remove_leftovers(self) -> None:
        """Removes what a killed writer left half-written."""
        for subfolder in ("", "_runs"):
            for name in self.names(subfolder):
                if name.startswith(".") and name.endswith(".tmp"):
                    self.remove(f"{subfolder}/{name}".lstrip("/"))
