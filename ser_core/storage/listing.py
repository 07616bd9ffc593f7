"""A folder or prefix → its files, page by page; it does not open them."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any, NamedTuple

import fsspec

from ser_core.storage.filesystem import (
    absolute,
    is_local,
    is_transient,
    local_path,
    printable,
    resolve,
    retry_transient,
)


class Entry(NamedTuple):
    """A file as its storage describes it."""

    path: str  # absolute path or URI
    size: int | None  # bytes; None if the file could not be seen
    version: str  # etag, or modification time


LAST_CHARACTER = "\U0010ffff"  # sorts behind whatever a key has at its place


class Part(NamedTuple):
    """A prefix of an object store without some that lie in it.

    Attributes:
        prefix: absolute URI.
        without: names of its sub-prefixes that are left out.
    """

    prefix: str
    without: tuple[str, ...] = ()


def list_files(
    folder: str,
    wanted: Callable[[str], bool],
    hidden: bool = False,
    unseen: list[str] | None = None,
) -> Iterator[Entry]:
    """Lists every file at or below a folder or prefix, page by page and in no particular order.

    Symbolic links are followed; one without a target is an entry of unknown size, so that it still
    gets a row. A folder that several paths lead to is listed once: below its real path, if that is
    part of the listing, or else below the first of the links to it. Transient failures are retried
    page by page.

    Args:
        folder: absolute path or URI.
        wanted: which paths to keep.
        hidden: whether to list files and folders whose names begin with ``.`` or ``_``.
        unseen: receives the places that may hold wanted files and could not be looked into: links
            without a target, and folders that vanished while they were listed.

    Raises:
        FileNotFoundError: there is no such folder.
        Exception: what the file system raises, of whatever type.
    """
    unseen = [] if unseen is None else unseen
    if is_local(folder):
        return _scan(local_path(folder), _Scan(wanted, hidden, unseen))
    entries = _list_remote(absolute(folder), hidden, unseen)
    return (entry for entry in entries if wanted(entry.path))


def list_part(part: Part, wanted: Callable[[str], bool], hidden: bool = False) -> Iterator[Entry]:
    """Lists what is in a part of a prefix, which may be nothing; see `list_files`."""
    fs, root = resolve(part.prefix)
    for page in _pages_without(fs, root, frozenset(part.without)):
        entries = _entries(fs, root, page, hidden)
        yield from (entry for entry in entries if wanted(entry.path))


def is_hidden(name: str) -> bool:
    """Whether a file or folder is skipped because of its name."""
    return name.startswith((".", "_"))


_LEADS_NOWHERE = (errno.ELOOP, errno.ENAMETOOLONG)  # a link that no storage can repair


@dataclass
class _Scan:
    """What is known while a local folder is listed."""

    wanted: Callable[[str], bool]
    hidden: bool
    unseen: list[str]
    visited: set[tuple[int, int]] = field(default_factory=set)  # folders, by device and inode
    links: list[str] = field(default_factory=list)  # to folders, a heap


def _scan(root: str, scan: _Scan) -> Iterator[Entry]:
    """Lists real folders first, so that no order of the disk decides which path a file has."""
    yield from _scan_folder(root, scan)
    while scan.links:
        yield from _scan_if_there(heappop(scan.links), scan)


def _scan_if_there(folder: str, scan: _Scan) -> Iterator[Entry]:
    try:
        yield from _scan_folder(folder, scan)
    except (FileNotFoundError, NotADirectoryError):  # removed, or out of reach
        scan.unseen.append(printable(folder))


def _scan_folder(folder: str, scan: _Scan) -> Iterator[Entry]:
    here = os.stat(folder)
    if (here.st_dev, here.st_ino) in scan.visited:
        return
    scan.visited.add((here.st_dev, here.st_ino))
    with os.scandir(folder) as items:
        for item in items:
            if is_hidden(item.name) and not scan.hidden:
                continue
            wanted = scan.wanted(printable(item.path))
            is_folder = _is_folder(item, wanted)
            if is_folder and item.is_symlink():
                heappush(scan.links, item.path)
            elif is_folder:
                yield from _scan_if_there(item.path, scan)
            elif wanted:
                yield _stat_local(item.path)
            elif is_folder is None:
                scan.unseen.append(printable(item.path))


def _is_folder(item: os.DirEntry[str], wanted: bool) -> bool | None:
    """Whether it is a folder or a link to one; None if it is a link without a target."""
    if not item.is_symlink():
        return item.is_dir()
    try:
        return stat.S_ISDIR(item.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if wanted or error.errno in _LEADS_NOWHERE:  # opening a wanted file will say why
            return False
        raise


def _list_remote(folder: str, hidden: bool, unseen: list[str]) -> Iterator[Entry]:
    fs, root = resolve(folder)
    pages = object_pages(fs, root) if has_pages(fs) else _walk_pages(fs, root, unseen)
    found = False
    for page in pages:
        found = found or bool(page)
        yield from _entries(fs, root, page, hidden)
    if not found:
        retry_transient(fs.info)(root)  # raises FileNotFoundError where there is nothing


def _entries(
    fs: fsspec.AbstractFileSystem, root: str, page: list[dict[str, Any]], hidden: bool
) -> Iterator[Entry]:
    for info in page:
        below = info["name"].removeprefix(root).split("/")
        if hidden or not any(map(is_hidden, below)):
            yield Entry(fs.unstrip_protocol(info["name"]), info["size"], _version(info))


def _pages_without(fs: Any, root: str, without: frozenset[str]) -> Iterator[list[dict[str, Any]]]:
    """Pages of objects; behind the first one in a sub-prefix that is left out, it goes on."""
    listing = fs.pages(root)
    next_page = retry_transient(listing.next_page)
    while (page := next_page()) is not None:
        names = [info["name"].removeprefix(f"{root}/").partition("/") for info in page]
        out = [bool(slash) and name in without for name, slash, _ in names]
        if out and out[-1]:
            key = f"{root}/{names[-1][0]}".partition("/")[2]
            listing.after, listing.chunks = f"{key}/{LAST_CHARACTER}", None
        yield [info for info, left_out in zip(page, out, strict=True) if not left_out]


def _walk_pages(
    fs: fsspec.AbstractFileSystem, root: str, unseen: list[str]
) -> Iterator[list[dict[str, Any]]]:
    """A page for each folder; fsspec's own walk leaves out a folder that it fails to list."""
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            infos = retry_transient(fs.ls)(folder, detail=True)
        except FileNotFoundError:
            if folder == root:
                raise
            unseen.append(fs.unstrip_protocol(folder))  # removed meanwhile, or out of reach
            continue
        infos = [info for info in infos if info["name"].rstrip("/") != folder.rstrip("/")]
        folders += [info["name"] for info in infos if info["type"] == "directory"]
        yield [info for info in infos if info["type"] == "file"]


def has_pages(fs: fsspec.AbstractFileSystem) -> bool:
    """Whether a file system is one of ours, which lists a bucket page by page."""
    return hasattr(fs, "pages")


def object_pages(fs: Any, root: str) -> Iterator[list[dict[str, Any]]]:
    """Pages of objects below a path of an object store; each request has a deadline of its own."""
    next_page = retry_transient(fs.pages(root).next_page)
    while (page := next_page()) is not None:
        yield page


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
    """One file's size and version; unknown if it is missing or forbidden.

    Raises:
        Exception: the storage cannot be reached; of whatever type the file system raises.
    """
    if is_local(uri):
        return _stat_local(local_path(uri))._replace(path=uri)
    fs, path = resolve(uri)
    try:
        info = retry_transient(fs.info)(path)
    except Exception as error:
        if is_transient(error):
            raise
        return Entry(uri, None, "")  # opening the file will say why
    return Entry(uri, info["size"], _version(info))


def is_file(uri: str) -> bool:
    """Whether a URI names one file rather than a folder.

    Raises:
        Exception: the storage cannot tell; of whatever type the file system raises.
    """
    if is_local(uri):
        return os.path.isfile(local_path(uri))
    fs, path = resolve(uri)
    try:  # and not `isfile`, which takes every failure for a no
        return bool(retry_transient(fs.info)(path)["type"] == "file")
    except FileNotFoundError:
        return False
