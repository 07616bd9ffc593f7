"""A URI → the file system that holds it and the path there; requests have one deadline."""

import concurrent.futures
import contextlib
import errno
import inspect
import os
import posixpath
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import fsspec
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from ser_core.errors import SerError, UsageError, hint, one_line, without_uri_credentials

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

    >>> is_absolute("/a.wav"), is_absolute("s3://b/a.wav"), is_absolute("a/b://c.wav")
    (True, True, False)
    """
    protocol, separator, _ = uri.partition("://")
    return uri.startswith("/") or (bool(separator) and "/" not in protocol)


def printable(path: str) -> str:
    r"""A file name as text: bytes that are not UTF-8, as in GBK names, become ``\udcXX``.

    >>> print(printable("a" + bytes([0xD6]).decode("utf-8", "surrogateescape")))
    a\udcd6
    """
    return path if path.isascii() else path.encode("utf-8", "backslashreplace").decode()


def local_path(uri: str) -> str:
    """The absolute path of a local URI; reverses ``printable``.

    Raises:
        UsageError: it contains a NUL character, which no path may.
    """
    if "\0" in uri:
        raise UsageError(f"{uri!r}: a path cannot contain a NUL character")
    path = os.path.abspath(uri.removeprefix("file://").removeprefix("local://"))
    if path.startswith("//"):  # which POSIX leaves alone
        path = path[1:]
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
        UsageError: no installed package supports the protocol, or the URI contains a password.
        Exception: a file system that connects at once, as of SFTP, cannot be reached.

    >>> resolve("memory://corpus/a::b.wav")[1]
    '/corpus/a::b.wav'
    """
    if is_local(uri):
        return _LOCAL, local_path(uri)
    refuse_credentials(uri)
    protocol, _, rest = uri.partition("://")
    top, slash, below = rest.partition("/")
    # Only the bucket goes through fsspec's parser, which would take "::" in a key for a chain of
    # file systems.
    fs, root = _file_system(f"{protocol}://{top}")
    return fs, f"{root.rstrip('/')}{slash}{below}".rstrip("/")


def refuse_credentials(uri: str) -> None:
    """Refuses a URI that contains a password or a signature.

    URIs are the identity of recordings and stand in the output, in reports and in messages, where a
    secret must not. A signed URL would also be another recording every time it is signed.

    Raises:
        UsageError: the remedy, without the secret.
    """
    if "@" not in uri and "?" not in uri:
        return
    shown, protocol = without_uri_credentials(uri), uri.partition("://")[0]
    if "://***@" in shown:
        remedy = f"set FSSPEC_{protocol.upper()}_PASSWORD, or use a file in ~/.config/fsspec"
        raise UsageError(f"{shown}: a password in a URI would be written to the output; {remedy}")
    if protocol in ("http", "https") and shown != uri:
        remedy = "name the object by the URI of its store, as in s3://bucket/key"
        raise UsageError(f"{shown}: a signed URL would be written to the output; {remedy}")


_LOCAL = LocalFileSystem()


def _file_system(root: str) -> tuple[fsspec.AbstractFileSystem, str]:
    protocol = root.partition("://")[0]
    try:
        fs, path = url_to_fs(root, **_options(protocol))
    except (ImportError, TypeError, ValueError) as error:
        remedy = _remedy(protocol, error)
    except OSError as error:
        if protocol != "hdfs":
            raise
        remedy = f"install Hadoop's client, and set JAVA_HOME, HADOOP_HOME and CLASSPATH: {error}"
    else:
        if "s3" in protocols(fs):
            fs.retries = 1  # of s3fs itself
        return fs, path
    reason = f"no installed package supports {protocol}:// ({one_line(remedy)})"
    raise UsageError(f"{root}: {reason}") from None


def _remedy(protocol: str, error: Exception) -> str:
    if extra := _EXTRAS.get(protocol):
        return f"pip install 'ser-batch[{extra}]'"
    known = fsspec.available_protocols()
    return str(error) if protocol in known else hint(protocol.lower(), known, str(error))


def _options(protocol: str) -> dict[str, Any]:
    """What a file system is created with, unless the user has configured it otherwise."""
    if _ALIASES.get(protocol, protocol) != "s3" or "AWS_MAX_ATTEMPTS" in os.environ:
        return {}
    # Botocore's own retries, which with their pauses would reach the deadline before the reason of
    # the failure is known.
    configured: dict[str, Any] = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
    return {"config_kwargs": {"retries": {"total_max_attempts": 1}} | configured}


def protocols(fs: fsspec.AbstractFileSystem) -> tuple[str, ...]:
    """The names of a file system's protocol, as in ``("s3", "s3a")``."""
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


# ---- requests ------------------------------------------------------------------------------------

REQUEST_SECONDS = 60.0  # for all attempts of one request

_PERMANENT = (
    FileExistsError,
    FileNotFoundError,
    ImportError,
    IsADirectoryError,
    NotADirectoryError,
    NotImplementedError,
    PermissionError,
    SerError,
    TypeError,
    ValueError,
)
_PERMANENT_ERRNO = frozenset(
    {errno.EINVAL, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOSYS, errno.ENOTSUP, errno.ENOTEMPTY}
    | {errno.EROFS}
)
# Of HTTP: what cannot be done as it was asked; not a timeout, nor too many requests.
_PERMANENT_HTTP = frozenset({*range(400, 500), 501}) - {408, 425, 429}
# Of client libraries, which share no base class and need not be installed.
_PERMANENT_NAMES = frozenset(
    {"NoCredentialsError", "ParamValidationError", "PartialCredentialsError", "ProfileNotFound"}
)
# Of S3, where the credentials are invalid whatever they are used for, for example after an hour.
_INVALID_CREDENTIALS = frozenset(
    {"ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "RequestTimeTooSkewed"}
    | {"SignatureDoesNotMatch", "TokenRefreshRequired"}
)


def refuses_credentials(error: BaseException) -> bool:
    """Whether storage refuses whoever asks, rather than what is asked for."""
    response = getattr(error.__cause__, "response", None) or {}
    return response.get("Error", {}).get("Code") in _INVALID_CREDENTIALS


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed later, as far as the error tells.

    >>> [is_transient(kind()) for kind in (TimeoutError, FileNotFoundError, KeyboardInterrupt)]
    [True, False, False]
    """
    if not isinstance(error, Exception):  # Ctrl-C
        return False
    if isinstance(error, _PERMANENT) or type(error).__name__ in _PERMANENT_NAMES:
        return False
    if getattr(error, "status", None) in _PERMANENT_HTTP:  # of aiohttp
        return False
    return not (isinstance(error, OSError) and error.errno in _PERMANENT_ERRNO)


def retry_transient(
    call: Callable[..., Any], seconds: float = REQUEST_SECONDS
) -> Callable[..., Any]:
    """A file system's method that retries transient failures, within one deadline.

    The deadline holds whatever timeouts and retries the layers below have. One attempt may use all
    of it: slow is not dead.

    Args:
        call: the method.
        seconds: for all attempts together.

    Returns:
        The method; it raises what its last attempt raised, or TimeoutError.
    """
    import tenacity  # where only the classifier runs, tenacity need not be installed

    def call_with_retries(*args: Any, **kwargs: Any) -> Any:
        deadline = time.monotonic() + seconds
        answers: list[str] = []
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(is_transient),
            wait=tenacity.wait_random_exponential(multiplier=0.5, max=8),  # s
            stop=tenacity.stop_before_delay(seconds),
            before_sleep=lambda state: answers.append(
                one_line(state.outcome and state.outcome.exception())
            ),
            reraise=True,
        )
        with _timeout_explained(seconds, answers):
            return retrying(lambda: _call_until(deadline, call, *args, **kwargs))

    return call_with_retries


def call_once(call: Callable[..., Any], seconds: float = REQUEST_SECONDS) -> Callable[..., Any]:
    """A file system's method with a deadline and no retries: a second call would differ.

    Args:
        call: the method.
        seconds: how long it may take.

    Returns:
        The method; it raises what the call raised, or TimeoutError.
    """

    def call_with_deadline(*args: Any, **kwargs: Any) -> Any:
        with _timeout_explained(seconds):
            return _call_until(time.monotonic() + seconds, call, *args, **kwargs)

    return call_with_deadline


@contextlib.contextmanager
def _timeout_explained(seconds: float, answers: Sequence[str] = ()) -> Iterator[None]:
    """Gives a TimeoutError a message, with what the storage last answered in time."""
    try:
        yield
    except TimeoutError as error:
        reason = str(error) or f"no complete answer within {seconds:g} s"
        reason += f"; before that: {answers[-1]}" if answers else ""
        raise TimeoutError(reason) from error


def _call_until(deadline: float, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Calls a file system's method and gives up at the deadline.

    Raises:
        TimeoutError: it had not returned.
    """
    seconds = max(0.1, deadline - time.monotonic())
    if isinstance(getattr(call, "__self__", None), LocalFileSystem):
        return call(*args, **kwargs)
    if inspect.iscoroutinefunction(inspect.unwrap(call)):
        # The blocking form of a coroutine takes a timeout, and cancels the coroutine.
        return call(*args, timeout=seconds, **kwargs)
    returned: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def run() -> None:
        try:
            returned.set_result(call(*args, **kwargs))
        except BaseException as error:
            returned.set_exception(error)

    threading.Thread(target=run, daemon=True).start()  # nothing can end it if it hangs
    return returned.result(seconds)
