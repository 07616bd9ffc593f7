"""A URI → its bytes: list, open, write atomically; it does not know what the bytes mean."""

import os
import re
import uuid
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import fsspec
from fsspec.utils import get_protocol

from ser_core.errors import RunError, UsageError

# A PUT is all or nothing there, so that an object appears whole without a rename.
_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "memory"})
_ESCAPED = re.compile(r"\\udc([89a-f][0-9a-f])")
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}  # protocol → our extra


class Entry(NamedTuple):
    """A file as its storage describes it."""

    path: str
    size: int | None  # bytes; None if the file could not be seen
    version: str  # etag, or modification time


def is_local(uri: str) -> bool:
    """Whether a URI is a path of this machine.

    >>> is_local("/data/a#1.wav"), is_local("file:///data"), is_local("s3://bucket/data")
    (True, True, False)
    """
    return get_protocol(uri) in ("file", "local")


def printable(path: str) -> str:
    r"""A name as text: bytes that are not UTF-8, as in GBK names, become ``\udcXX``.

    >>> print(printable("a" + bytes([0xD6]).decode("utf-8", "surrogateescape")))
    a\udcd6
    """
    return path if path.isascii() else path.encode("utf-8", "backslashreplace").decode()


def local_path(uri: str) -> str:
    """The absolute path of a local URI; undoes what ``printable`` did to its name."""
    path = os.path.abspath(uri.removeprefix("file://").removeprefix("local://"))
    return _ESCAPED.sub(lambda match: chr(0xDC00 + int(match[1], 16)), path)


def absolute(uri: str) -> str:
    """The URI as it reads from any working directory, without a trailing slash."""
    return local_path(uri) if is_local(uri) else uri.rstrip("/")


def join(folder: str, name: str) -> str:
    """A name below a folder; an absolute name stands for itself.

    >>> join("s3://bucket/corpus/", "a b.wav"), join("/data", "/other/c.wav")
    ('s3://bucket/corpus/a b.wav', '/other/c.wav')
    """
    return name if "://" in name or name.startswith("/") else f"{folder.rstrip('/')}/{name}"


def filesystem(uri: str) -> fsspec.AbstractFileSystem:
    """The fsspec file system that holds a URI; fsspec caches the instances.

    Raises:
        UsageError: nothing installed speaks its protocol.
    """
    protocol = get_protocol(uri)
    try:
        return fsspec.filesystem(protocol)
    except (ImportError, ValueError) as error:
        extra = _EXTRAS.get(protocol)
        mend = f"pip install 'ser-batch[{extra}]'" if extra else str(error)
        raise UsageError(f"{uri}: nothing installed here reads {protocol}:// ({mend})") from None


def list_files(folder: str, wanted: Callable[[str], bool], hidden: bool = False) -> Iterator[Entry]:
    """Every file at or below a folder or prefix whose name is wanted, in no order, page by page.

    Names that begin with ``.`` or ``_`` are skipped, folders among them, unless ``hidden``. Links
    are followed; one that leads nowhere is an entry of unknown size, so that it still gets a row.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    if is_local(folder):
        entries = _scan(local_path(folder), hidden, seen=set())
    else:
        entries = _list_remote(absolute(folder), hidden)
    return (entry for entry in entries if wanted(entry.path))


def is_hidden(name: str) -> bool:
    """Whether a file's or folder's name marks it as not meant to be listed."""
    return name.startswith((".", "_"))


def _scan(folder: str, hidden: bool, seen: set[tuple[int, int]]) -> Iterator[Entry]:
    here = os.stat(folder)
    if (here.st_dev, here.st_ino) in seen:  # a link back up, or a second way in
        return
    seen.add((here.st_dev, here.st_ino))
    with os.scandir(folder) as items:
        for item in items:
            if is_hidden(item.name) and not hidden:
                continue
            if item.is_dir():
                yield from _scan(item.path, hidden, seen)
            else:
                yield _stat_local(item.path)


def _list_remote(folder: str, hidden: bool) -> Iterator[Entry]:
    fs = filesystem(folder)
    root = fs._strip_protocol(folder)
    pages = _s3_pages(fs, root) if "s3" in _protocols(fs) else _walk_pages(fs, root)
    found = False
    for page in pages:
        for info in page:
            found = True
            below = info["name"].removeprefix(root).split("/")
            if hidden or not any(map(is_hidden, below)):
                yield Entry(fs.unstrip_protocol(info["name"]), info["size"], _version(info))
    if not found and not fs.exists(root):
        raise FileNotFoundError(folder)


def _protocols(fs: fsspec.AbstractFileSystem) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def _walk_pages(fs: fsspec.AbstractFileSystem, root: str) -> Iterator[list[dict[str, Any]]]:
    for _, _, files in fs.walk(root, detail=True):
        yield [info for info in files.values() if info["type"] == "file"]


def _s3_pages(fs: Any, root: str) -> Iterator[list[dict[str, Any]]]:
    """A page of 1,000 objects at a time: s3fs itself would hold the whole listing in memory."""
    bucket, key, _ = fs.split_path(root)
    page: dict[str, Any] = {"NextContinuationToken": None}
    while "NextContinuationToken" in page:
        token = page["NextContinuationToken"]
        more = {"ContinuationToken": token} if token else {}
        prefix = f"{key}/" if key else ""
        page = fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, **more)
        contents = [item for item in page.get("Contents", []) if not item["Key"].endswith("/")]
        yield [{"name": f"{bucket}/{c['Key']}", "size": c["Size"], **c} for c in contents]


def _version(info: dict[str, Any]) -> str:
    for key in ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "updated"):
        if info.get(key):
            return str(info[key])
    return ""


def _stat_local(path: str) -> Entry:
    try:
        info = os.stat(path)
    except OSError:
        return Entry(printable(path), None, "")
    return Entry(printable(path), info.st_size, str(info.st_mtime_ns))


def stat_file(uri: str) -> Entry:
    """One file's size and version; unknown where it cannot be seen, for whatever reason."""
    if is_local(uri):
        return _stat_local(local_path(uri))._replace(path=uri)
    fs = filesystem(uri)
    try:
        info = fs.info(fs._strip_protocol(uri))
    except Exception:  # each file system raises its own; opening the file will say why
        return Entry(uri, None, "")
    return Entry(uri, info["size"], _version(info))


def is_file(uri: str) -> bool:
    """Whether a URI names one file rather than a folder."""
    if is_local(uri):
        return os.path.isfile(local_path(uri))
    return bool(filesystem(uri).isfile(uri))


_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)


def retry_passing(call: Callable[..., Any]) -> Callable[..., Any]:
    """The call, repeated with growing pauses while it fails in a way that may pass."""
    import tenacity  # where only the classifier runs, nothing is retried and it need not be there

    return tenacity.retry(
        retry=tenacity.retry_if_not_exception_type(_LASTING),
        wait=tenacity.wait_random_exponential(multiplier=0.5, max=8),  # s; s3fs has tried 5 times
        stop=tenacity.stop_after_attempt(4),
        reraise=True,
    )(call)


class Folder:
    """A job's output: small files, each written whole or not at all."""

    def __init__(self, uri: str) -> None:
        self.uri = absolute(uri)
        self.fs = filesystem(uri)
        self.root = local_path(uri) if is_local(uri) else self.fs._strip_protocol(self.uri)

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
            if "s3" in _protocols(self.fs):
                # A look at the bucket itself would take rights that may end at a prefix.
                next(_s3_pages(self.fs, self.root))
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
        if _OBJECT_STORES & set(_protocols(self.fs)):
            retry_passing(self.fs.pipe_file)(target, data)
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
