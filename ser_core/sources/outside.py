"""What a manifest may name: files in its folder, and absolute paths on its own storage."""

import functools
import os
from urllib.parse import unquote

from ser_core.errors import CorpusError
from ser_core.storage.filesystem import (
    absolute,
    is_absolute,
    is_local,
    local_path,
    refuse_credentials,
)

_SERVER_PROTOCOLS = frozenset({"http", "https", "ftp", "sftp", "ssh", "smb", "hdfs", "webhdfs"})


def refuse_paths_outside(uri: str, names: list[str], uris: list[str], allowed: bool) -> None:
    """Refuses relative paths that leave a manifest's folder, and URIs of other storage.

    Args:
        uri: of the manifest.
        names: paths as it gives them.
        uris: their absolute URIs.
        allowed: whether they may lead outside; URIs with secrets are refused even so.

    Raises:
        UsageError: one of them is refused.
    """
    manifest = absolute(uri)
    inside, storage = _as_requested(manifest.rsplit("/", 1)[0]) + "/", _storage(manifest)
    for name, location in zip(names, uris, strict=True):
        if "://" in name:
            refuse_credentials(name)
        if allowed or not (is_absolute(name) or ".." in name or "%" in name):
            continue
        if _storage(location) != storage:
            raise _outside(uri, name, "is on other storage")
        if not is_absolute(name) and not _as_requested(location).startswith(inside):
            raise _outside(uri, name, "is outside its folder")


def refuse_links_outside(uri: str, names: list[str], uris: list[str]) -> None:
    """Refuses relative paths that symbolic links lead out of a manifest's folder.

    Args:
        uri: of the manifest.
        names: paths as it gives them.
        uris: their absolute URIs.

    Raises:
        CorpusError: one of them is refused.
    """
    if not is_local(uri):
        return
    real_folder = functools.lru_cache(maxsize=10_000)(os.path.realpath)
    inside = real_folder(os.path.dirname(local_path(uri))).rstrip("/") + "/"
    for name, location in zip(names, uris, strict=True):
        if is_absolute(name):
            continue
        folder, _, base = local_path(location).rpartition("/")
        real = f"{real_folder(folder)}/{base}"
        if os.path.islink(real):
            real = os.path.realpath(real)
        if not real.startswith(inside):
            raise _outside(uri, name, f"is a link to {real}")


def _outside(uri: str, name: str, why: str) -> CorpusError:
    remedy = "add --allow-outside if that is meant"
    return CorpusError(f"--input {uri}: the manifest names {name}, which {why}; {remedy}")


def _storage(uri: str) -> tuple[str, str]:
    """Protocol and server of a URI; the buckets of an object store are one storage."""
    if is_local(uri):
        return "", ""
    protocol, _, rest = uri.partition("://")
    server = rest.partition("/")[0].rpartition("@")[2].lower()
    return protocol, server if protocol in _SERVER_PROTOCOLS else ""


def _as_requested(uri: str) -> str:
    """What a web server takes a URI for: ``%2e%2e`` is ``..`` to it."""
    return absolute(unquote(uri)) if uri.startswith(("http://", "https://")) else uri
