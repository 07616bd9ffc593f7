"""What obstore raises → built-in exceptions, with a reason of one line."""

import errno
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from obstore import exceptions

from ser_core.errors import one_line
from ser_core.storage.filesystem import CredentialsError

# Of S3, where the credentials are invalid whatever they are used for, for example after an hour.
_INVALID_CREDENTIALS = frozenset(
    {"ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "RequestTimeTooSkewed"}
    | {"SignatureDoesNotMatch", "TokenRefreshRequired"}
)
_KINDS: dict[int, type[Exception]] = {
    401: CredentialsError,
    403: PermissionError,
    404: FileNotFoundError,
    412: FileExistsError,
    501: NotImplementedError,
}
# Where obstore asks for credentials; elsewhere than in the cloud nobody answers.
_CREDENTIAL_HOSTS = ("metadata.google.internal", "169.254.169.254", "login.microsoftonline.com")
_TRANSIENT_CLIENT_ERRORS = frozenset({408, 425, 429})

# obstore states status, code and cause in its message only: a sentence and, after it, the Rust
# error as Rust prints it for debugging.
_NO_NAME = "Could not parse path"  # the ValueError of a name that it cannot take
_DEBUG = "\n\nDebug source"
_STATUS = re.compile(r"status code: (\d{3})\b *([^:\n<]*)")
_ATTEMPT = re.compile(r"^.*Error performing \w+ (\S+) in \S+ - ", re.DOTALL)
_CAUSE = re.compile(r'(?:message|error): "([^"]+)"')
_TIMEOUT = re.compile(r"\b(?:Timeout|TimedOut|Elapsed)\b")


class UnnamableError(OSError):
    """The store may have an object of that name, but obstore cannot ask for it, as for ``a//b``."""


@contextmanager
def translated_errors(path: str, credentials: Callable[[], str]) -> Iterator[None]:
    """Raises what obstore raises as built-in exceptions.

    Args:
        path: bucket and key, for messages.
        credentials: which ones are used, for messages.

    Raises:
        FileNotFoundError: no such object or bucket.
        FileExistsError: an object that was to be created is there.
        CredentialsError: the credentials are refused, whatever is asked for.
        PermissionError: they are not enough for this request.
        UnnamableError: obstore cannot name the object.
        OSError: anything else; `is_transient` tells what a retry can help.
    """
    try:
        yield
    except ValueError as error:
        if not str(error).startswith(_NO_NAME):
            raise
        raise UnnamableError(errno.EINVAL, f"{path}: {one_line(error)}") from None
    except (exceptions.BaseError, FileNotFoundError) as error:
        raise _of_obstore(error, path, credentials) from None


def _of_obstore(error: Exception, path: str, credentials: Callable[[], str]) -> Exception:
    sentence, _, debug = str(error).partition(_DEBUG)
    if isinstance(error, exceptions.InvalidPathError):
        return UnnamableError(errno.EINVAL, f"{path}: {one_line(sentence)}")
    if isinstance(error, exceptions.NotSupportedError):
        return NotImplementedError(one_line(sentence))
    if answer := _STATUS.search(sentence):
        code, message = _tag("Code", sentence), _tag("Message", sentence)
        reason = (
            ": ".join(part for part in (code, message) if part)
            or f"{answer[1]} {answer[2]}".strip()
        )
        return answer_error(int(answer[1]), code, one_line(reason), path, credentials)
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(one_line(sentence))
    if _TIMEOUT.search(debug):
        return TimeoutError(f"{path}: the connection timed out")
    causes = _CAUSE.findall(debug)[-1:]
    reason = ": ".join([one_line(_ATTEMPT.sub(r"\1: ", sentence)), *causes])
    about_credentials = any(host in sentence for host in _CREDENTIAL_HOSTS)
    return ConnectionError(_signed(reason, credentials) if about_credentials else reason)


def answer_error(
    status: int, code: str, reason: str, path: str, credentials: Callable[[], str]
) -> Exception:
    """What a store's answer means, whichever client received it."""
    if code in _INVALID_CREDENTIALS:
        status = 401
    if kind := _KINDS.get(status):
        about_credentials = issubclass(kind, PermissionError)
        return kind(_signed(reason, credentials) if about_credentials else f"{path}: {reason}")
    if 300 <= status < 500 and status not in _TRANSIENT_CLIENT_ERRORS:
        return OSError(errno.EINVAL, _signed(reason, credentials))
    return OSError(errno.EBUSY, reason)


def _signed(reason: str, credentials: Callable[[], str]) -> str:
    return f"{reason} (credentials: {credentials()})"


def _tag(name: str, text: str) -> str:
    found = re.search(rf"<{name}>(.*?)</{name}>", text, re.DOTALL)
    return found[1] if found else ""
