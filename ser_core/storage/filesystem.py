"""A URI → the file system that holds it and the path there; transient failures are retried."""

import os
import posixpath
import re
from collections.abc import Callable
from typing import Any

import fsspec
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from ser_core.errors import UsageError

_ESCAPED = re.compile(r"\\udc([89a-f][0-9a-f])")
_ALIASES = {"s3a": "s3", "gcs": "gs", "abfss": "abfs"}  # of one file, one URI
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}  # protocol → our extra


def is_local(uri: str) -> bool:
    """Whether a URI is a path on this machine.

    >>> is_local("/data/a::b.wav"), is_local("file:///data"), is_local("s3://bucket/data")
    (True, True, False)
    """
    protocol, separator, _ = uri.partition("://")
    return not separator or protocol in ("file", "local") or "/" in protocol


def is_absolute(uri: str) -> bool:
    """Whether a path or URI is independent of any folder.

    >>> is_absolute("/a.wav"), is_absolute("s3://b/a.wav"), is_absolute("a/b.wav")
    (True, True, False)
    """
    return "://" in uri or uri.startswith("/")


def printable(path: str) -> str:
    r"""A file name as text: bytes that are not UTF-8, as in GBK names, become ``\udcXX``.

    >>> print(printable("a" + bytes([0xD6]).decode("utf-8", "surrogateescape")))
    a\udcd6
    """
    return path if path.isascii() else path.encode("utf-8", "backslashreplace").decode()


def local_path(uri: str) -> str:
    """The absolute path of a local URI; reverses ``printable``."""
    path = os.path.abspath(uri.removeprefix("file://").removeprefix("local://"))
    return _ESCAPED.sub(lambda match: chr(0xDC00 + int(match[1], 16)), path)


def absolute(uri: str) -> str:
    """The one URI of a file: independent of the working directory, printable, no trailing slash.

    >>> absolute("s3a://bucket/calls/./monday/../1.wav")
    's3://bucket/calls/1.wav'
    """
    if is_local(uri):
        return printable(local_path(uri))
    protocol, _, path = uri.partition("://")
    if not {".", ".."}.isdisjoint(path.split("/")):
        path = posixpath.normpath(path)
    return f"{_ALIASES.get(protocol, protocol)}://{path.rstrip('/')}"


def join(folder: str, name: str) -> str:
    """The URI of a name below a folder; an absolute name is returned as it is.

    >>> join("s3://bucket/corpus/", "a b.wav"), join("/data", "/other/c.wav")
    ('s3://bucket/corpus/a b.wav', '/other/c.wav')
    """
    return name if is_absolute(name) else f"{folder.rstrip('/')}/{name}"


def resolve(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The fsspec file system that holds a URI, and the path there.

    Raises:
        UsageError: no installed package supports the protocol.

    >>> resolve("memory://corpus/a::b.wav")[1]
    '/corpus/a::b.wav'
    """
    if is_local(uri):
        return _LOCAL, local_path(uri)
    protocol, _, rest = uri.partition("://")
    top, slash, below = rest.partition("/")
    # Only the bucket goes through fsspec's parser, which would take "::" in a key for a chain of
    # file systems.
    fs, root = _file_system(f"{protocol}://{top}")
    return fs, f"{root.rstrip('/')}{slash}{below}".rstrip("/")


_LOCAL = LocalFileSystem()


def _file_system(root: str) -> tuple[fsspec.AbstractFileSystem, str]:
    protocol = root.partition("://")[0]
    try:
        fs, path = url_to_fs(root)
    except (ImportError, ValueError) as error:
        extra = _EXTRAS.get(protocol)
        remedy = f"pip install 'ser-batch[{extra}]'" if extra else str(error)
        reason = f"no installed package supports {protocol}:// ({remedy})"
        raise UsageError(f"{root}: {reason}") from None
    return fs, path


def protocols(fs: fsspec.AbstractFileSystem) -> tuple[str, ...]:
    """The names of a file system's protocol, as in ``("s3", "s3a")``."""
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


_PERMANENT = (
    FileExistsError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)


def retry_transient(call: Callable[..., Any]) -> Callable[..., Any]:
    """Retries transient failures of a call with exponential backoff."""
    import tenacity  # where only the classifier runs, tenacity need not be installed

    return tenacity.retry(
        retry=tenacity.retry_if_not_exception_type(_PERMANENT),
        wait=tenacity.wait_random_exponential(multiplier=0.5, max=8),  # s; s3fs has tried 5 times
        stop=tenacity.stop_after_attempt(4),
        reraise=True,
    )(call)
