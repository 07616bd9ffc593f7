"""Buckets behind fsspec's interface, fetched by obstore; only connections are kept."""

import functools
import re
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import obstore
from fsspec import AbstractFileSystem
from fsspec.spec import AbstractBufferedFile
from obstore import exceptions
from obstore.store import from_url

from ser_core.errors import UsageError, one_line
from ser_core.storage.object_errors import UnnamableError, translated_errors

# Requests have deadlines, and are retried, in `retry_transient`; obstore's own timeouts only free
# what was abandoned there. An upload of a checkpoint may take longer.
CONNECT_SECONDS = 10
_REQUEST_SECONDS = 90
_UPLOAD_SECONDS = 900
_PART_BYTES = 8 << 20
_PARTS_AT_ONCE = 4
_BUCKETS = 64  # with open connections
_BUCKET = re.compile(r"[\w.@$-]+", re.ASCII)  # container@account of Azure, too
PAGE = 1000  # names; what S3 answers at most

# Of fsspec's file systems in general: they concern caches, of which there are none here.
_IGNORED = frozenset(
    "use_listings_cache listings_expiry_time max_paths default_block_size default_fill_cache "
    "default_cache_type cache_regions asynchronous skip_instance_cache".split()
)

Info = dict[str, Any]  # as fsspec describes a file


class ObjectStore(AbstractFileSystem):  # type: ignore[misc]
    """The buckets of one kind of store.

    Paths are ``bucket/key``. Attributes of the class:

        options: names of the options in fsspec's configuration → obstore's names.
        LISTS_FROM_A_KEY: whether the store itself begins a listing behind a key.
    """

    cachable = False  # by thread, as fsspec would; `resolve` has one for all
    options: ClassVar[dict[str, str]] = {}
    LISTS_FROM_A_KEY = True
    retry_config: ClassVar[Any] = {"max_retries": 0}

    def __init__(self, **options: Any) -> None:
        """Makes no request.

        Raises:
            UsageError: an option in fsspec's configuration is not supported.
        """
        super().__init__(**options)
        self._options = {k: v for k, v in options.items() if k not in _IGNORED and v is not None}
        if unknown := sorted(self._options.keys() - self.options.keys()):
            name, known = self.protocol[0], ", ".join(sorted(self.options))
            raise UsageError(
                f"{name}://: {', '.join(unknown)} in fsspec's configuration cannot be used; "
                f"supported: {known}"
            )
        self._connections = functools.lru_cache(_BUCKETS)(self._connect)
        self._connecting = threading.Lock()  # else every thread would make its own

    def connection(self, bucket: str, seconds: int = _REQUEST_SECONDS) -> Any:
        """The obstore store of a bucket; asks nothing of it.

        Args:
            bucket: the first part of a path.
            seconds: the client's own timeout of a request.

        Raises:
            FileNotFoundError: no bucket can have that name.
            UsageError: its configuration is incomplete or wrong.
        """
        if not _BUCKET.fullmatch(bucket):  # obstore would panic
            raise FileNotFoundError(f"{bucket!r} cannot name a bucket")
        try:
            with self._connecting:
                return self._connections(bucket, seconds)
        except (exceptions.BaseError, TypeError, ValueError) as error:
            reason = one_line(str(error).partition("\n\n")[0])
            raise UsageError(f"{self.protocol[0]}://{bucket}: {reason}") from None

    # ---- what a kind of store decides ------------------------------------------------------------

    def credentials_used(self) -> str:
        """Which credentials requests are made with, for messages; never a secret."""
        raise NotImplementedError

    def _connect(self, bucket: str, seconds: int) -> Any:
        return from_url(
            f"{self.protocol[0]}://{bucket}",
            config=self._config(),
            client_options=self._client_options(seconds),
            retry_config=self.retry_config,
        )

    def _config(self) -> Any:
        return {self.options[name]: value for name, value in self._options.items()}

    def _client_options(self, seconds: int) -> Any:
        connect = timedelta(seconds=CONNECT_SECONDS)
        return {"timeout": timedelta(seconds=seconds), "connect_timeout": connect}

    def page_of_odd_names(self, bucket: str, prefix: str, after: str) -> "OddPage | None":
        """A page of a listing with names that obstore cannot take; None if there is no other way.

        Args:
            bucket: the bucket.
            prefix: what keys are below, without a slash at its end.
            after: the key that it starts behind.
        """
        del bucket, prefix, after
        return None

    # ---- reading ---------------------------------------------------------------------------------

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **_: Any
    ) -> bytes:
        """An object's content from one position to another."""
        bucket, key = _split(path)
        if end is not None and end <= (start or 0):
            return b""
        with self.translated(path):
            return self._get(bucket, key, start or 0, end)

    def _get(self, bucket: str, key: str, start: int, end: int | None) -> bytes:
        store = self.connection(bucket)
        if end is not None:
            return obstore.get_range(store, _named(key), start=start, end=end).to_bytes()
        options: Any = {"range": {"offset": start}} if start else None
        return obstore.get(store, _named(key), options=options).bytes().to_bytes()

    def info(self, path: str, **_: Any) -> Info:
        """Describes an object, or a folder: whatever has something below it."""
        bucket, key = _split(path)
        if key:
            with suppress(FileNotFoundError), self.translated(path):
                return {**self._head(bucket, key), "name": path}
        if Listing(self, path).next_page() is None and key:
            raise FileNotFoundError(f"{path}: no such object, and nothing below it")
        return {"name": path.rstrip("/"), "size": 0, "type": "directory"}

    def _head(self, bucket: str, key: str) -> Info:
        return self.described(obstore.head(self.connection(bucket), _named(key)))

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """The objects and folders directly below a path."""
        bucket, prefix = _split(path)
        with self.translated(path):
            listed = obstore.list_with_delimiter(self.connection(bucket), prefix or None)
        infos = [{**self.described(o), "name": f"{bucket}/{o['path']}"}
                 for o in listed["objects"] if o["path"] != prefix]  # fmt: skip
        infos += [{"name": f"{bucket}/{p}", "size": 0, "type": "directory"}
                  for p in listed["common_prefixes"]]  # fmt: skip
        if not infos and (prefix and (info := self.info(path))["type"] == "file"):
            infos = [info]
        return infos if detail else sorted(info["name"] for info in infos)

    def pages(self, path: str) -> "Listing":
        """All objects below a path, in the order of their names."""
        return Listing(self, path)

    def described(self, found: Any) -> Info:
        """What obstore says of an object, as fsspec describes a file; without its name."""
        return {"size": found["size"], "ETag": found["e_tag"], "type": "file"}

    def _open(self, path: str, mode: str = "rb", **options: Any) -> AbstractBufferedFile:
        if mode != "rb":
            raise NotImplementedError("objects are written as a whole")
        return _Object(self, path, mode, **options)

    # ---- writing ---------------------------------------------------------------------------------

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        """Writes an object, or creates it where there is none: one of two writers does."""
        bucket, key = _split(path)
        with self.translated(path):
            if mode == "create":
                obstore.put(self.connection(bucket), _named(key), value, mode="create")
            else:
                self._put(self.connection(bucket), key, value)

    def put_file(self, lpath: str, rpath: str, **_: Any) -> None:
        """Uploads a file of this machine."""
        bucket, key = _split(rpath)
        with self.translated(rpath):
            self._put(self.connection(bucket, _UPLOAD_SECONDS), key, Path(lpath))

    def _put(self, store: Any, key: str, content: bytes | Path) -> None:
        parts = {"chunk_size": _PART_BYTES, "max_concurrency": _PARTS_AT_ONCE}
        obstore.put(store, _named(key), content, **parts)  # type: ignore[arg-type]

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        """Copies an object."""
        (bucket, key), (to_bucket, to_key) = _split(path1), _split(path2)
        if bucket != to_bucket:
            self.pipe_file(path2, self.cat_file(path1))
            return
        with self.translated(path1):
            obstore.copy(self.connection(bucket), _named(key), _named(to_key))

    def rm_file(self, path: str) -> None:
        """Removes an object; on S3, one that is gone is fine."""
        bucket, key = _split(path)
        with self.translated(path):
            obstore.delete(self.connection(bucket), _named(key))

    def translated(self, path: str) -> AbstractContextManager[None]:
        """Raises what obstore raises as built-in exceptions, for a request about a path."""
        return translated_errors(path, self.credentials_used)


class _Object(AbstractBufferedFile):  # type: ignore[misc]
    """An open object; fsspec keeps what it has fetched."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        content: bytes = self.fs.cat_file(self.path, start=start, end=end)
        return content


class OddPage(NamedTuple):
    """A page with names of any form.

    Attributes:
        objects: as fsspec describes files.
        last_key: where the next page begins.
        more: whether there is one.
    """

    objects: list[Info]
    last_key: str
    more: bool


class Listing:
    """A listing that continues behind the last name it has seen, also after a failed request.

    Attributes:
        after: the key behind which the next page begins.
        chunks: of the request that goes on, if there is one.
    """

    def __init__(self, fs: ObjectStore, path: str) -> None:
        self._fs, self._path = fs, path.rstrip("/")
        self._bucket, self._prefix = _split(self._path)
        self.after = ""
        self.chunks: Iterator[Any] | None = None
        self._ended = False

    def next_page(self) -> list[Info] | None:
        """The next objects, as fsspec describes files; None at the end.

        Raises:
            Exception: the request failed, and may be made again.
        """
        if self._ended:
            return None
        chunks, self.chunks = self.chunks, None  # a request that fails ends its stream
        try:
            with self._fs.translated(self._path):
                chunks = chunks or self._start()
                page = next(chunks, None)
        except UnnamableError:
            odd = self._fs.page_of_odd_names(self._bucket, self._prefix, self.after)
            if odd is None:
                raise
            self.after, self._ended = odd.last_key, not odd.more
            return odd.objects
        if page is None:
            self._ended = True
            return None
        self.chunks, self.after = chunks, page[-1]["path"]
        return [
            {**self._fs.described(found), "name": f"{self._bucket}/{found['path']}"}
            for found, following in zip(page, [*page[1:], None], strict=True)
            if found["size"] or not self._is_marker(found["path"], following)
        ]

    def _start(self) -> Iterator[Any]:
        store, after = self._fs.connection(self._bucket), self.after or None
        return iter(obstore.list(store, self._prefix or None, offset=after, chunk_size=PAGE))

    def _is_marker(self, key: str, following: Any) -> bool:
        """Whether it stands for a folder: obstore has taken the slash from its end."""
        below = following is not None and following["path"].startswith(f"{key}/")
        return below or key == self._prefix


def _split(path: str) -> tuple[str, str]:
    bucket, _, key = path.partition("/")
    return bucket, key


def _named(key: str) -> str:
    """The key, unless obstore would ask for another one.

    Raises:
        ValueError: it would drop a slash; as obstore raises for other names that it cannot take.
    """
    if key.startswith("/") or key.endswith("/"):
        raise ValueError(f"Could not parse path: {key!r} begins or ends with a slash")
    return key
