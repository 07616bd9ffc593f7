"""A URI → the file system that holds it and the path there; requests have one deadline."""

import contextlib
import errno
import functools
import inspect
import os
import posixpath
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from ser_core.errors import SerError, UsageError, one_line, without_uri_credentials
from ser_core.storage.protocols import ALIASES, file_system
from ser_core.storage.threads import call_in_thread

_ESCAPED = re.compile(r"\\udc([89a-f][0-9a-f])")


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
    return f"{ALIASES.get(protocol, protocol)}://{path.rstrip('/')}"


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
    fs, root = file_system(f"{protocol}://{top}")
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


class CredentialsError(PermissionError):
    """Storage refuses whoever asks, rather than what is asked for."""


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed later, as far as the error tells.

    >>> [is_transient(kind()) for kind in (TimeoutError, FileNotFoundError, KeyboardInterrupt)]
    [True, False, False]
    """
    if not isinstance(error, Exception):  # Ctrl-C
        return False
    if isinstance(error, _PERMANENT):
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

    def call_with_retries(*args: Any, **kwargs: Any) -> Any:
        deadline = time.monotonic() + seconds
        answers: list[str] = []

        def attempt() -> Any:
            return _call_until(deadline, call, *args, **kwargs)

        with _timeout_explained(seconds, answers):
            try:
                return attempt()
            except Exception as error:
                return _retry(attempt, error, deadline, answers)

    return call_with_retries


def _retry(
    attempt: Callable[[], Any], failure: Exception, deadline: float, answers: list[str]
) -> Any:
    """Makes further attempts after one that failed, and notes what was answered to each.

    Raises:
        Exception: the failure, or that of the last attempt.
    """
    import tenacity  # where only the classifier runs, tenacity need not be installed

    failures = [failure]

    def next_attempt() -> Any:
        if failures:  # the first attempt has been made
            raise failures.pop()
        return attempt()

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_transient),
        wait=tenacity.wait_random_exponential(multiplier=0.5, max=8),  # s
        stop=tenacity.stop_before_delay(max(0.0, deadline - time.monotonic())),
        before_sleep=lambda state: answers.append(
            one_line(state.outcome and state.outcome.exception())
        ),
        reraise=True,
    )
    return retrying(next_attempt)


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
    return call_in_thread(functools.partial(call, *args, **kwargs), seconds)
