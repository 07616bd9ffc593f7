"""A protocol → the file system that serves it: ours for object stores, fsspec's for the others."""

import functools
import importlib
import os

import fsspec
from fsspec.core import url_to_fs
from fsspec.registry import known_implementations

from ser_core.errors import UsageError, hint, one_line

ALIASES = {"s3a": "s3", "gcs": "gs", "abfss": "abfs"}  # of one file, one URI
# Protocol → our module, our class and our extra; all others are fsspec's.
_STORES = {
    "s3": ("s3", "S3", "s3"),
    "gs": ("google", "Google", "gcs"),
    "abfs": ("azure", "Azure", "azure"),
    "az": ("azure", "Azure", "azure"),
}


def file_system(root: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a bucket or host, and its path there.

    Raises:
        UsageError: no installed package supports the protocol.
        Exception: a file system that connects at once, as of SFTP, cannot be reached.
    """
    protocol, _, path = root.partition("://")
    protocol = ALIASES.get(protocol, protocol)
    try:
        if protocol in _STORES:
            return object_store(protocol, os.getpid()), path
        return url_to_fs(root)  # type: ignore[no-any-return]
    except (ImportError, TypeError, ValueError) as error:
        remedy = _remedy(protocol, error)
    except OSError as error:
        if protocol != "hdfs":
            raise
        remedy = f"install Hadoop's client, and set JAVA_HOME, HADOOP_HOME and CLASSPATH: {error}"
    reason = f"no installed package supports {protocol}:// ({one_line(remedy)})"
    raise UsageError(f"{root}: {reason}") from None


@functools.cache
def object_store(protocol: str, pid: int) -> fsspec.AbstractFileSystem:
    """The file system of a protocol in this process: connections do not survive a fork."""
    del pid
    module, name, _ = _STORES[protocol]
    return getattr(importlib.import_module(f"ser_core.storage.{module}"), name)()


def modules_of(uri: str) -> list[str]:
    """What a process would import at its first request for a URI, if that is known."""
    protocol = uri.partition("://")[0]
    protocol = ALIASES.get(protocol, protocol)
    if protocol in _STORES:
        return [f"ser_core.storage.{_STORES[protocol][0]}"]
    known = known_implementations.get(protocol)
    return [known["class"].rpartition(".")[0]] if known else []


def _remedy(protocol: str, error: Exception) -> str:
    if protocol in _STORES:
        return f"pip install 'ser-batch[{_STORES[protocol][2]}]'"
    known = fsspec.available_protocols()
    return str(error) if protocol in known else hint(protocol.lower(), known, str(error))


def protocols(fs: fsspec.AbstractFileSystem) -> tuple[str, ...]:
    """The names of a file system's protocol, as in ``("s3", "s3a")``."""
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
