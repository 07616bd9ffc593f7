"""The exceptions that this project raises on purpose, and the statuses of a recording.

::

    SerError
    ├── UsageError          the command cannot run as written        exit code 2
    │   ├── CheckpointError
    │   ├── CorpusError
    │   └── OutputError
    ├── RecordingError      one recording cannot be labelled         a row
    ├── RunError            the run cannot continue                  exit code 1
    ├── DeviceError         a classifier's device failed             its process restarts
    └── CheckError          done, but a requested check did not pass exit code 3
"""

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum

_MOST_NAMED = 5  # in a message


class Status(StrEnum):
    """What became of a recording: the ``status`` column, one word per kind."""

    OK = "ok"
    # Final: caused by the content; retrying helps only after the file changes.
    EMPTY = "empty"
    DECODE_ERROR = "decode_error"
    TRUNCATED = "truncated"
    NO_SPEECH = "no_speech"
    NOT_FINITE = "not_finite"
    CRASHED = "crashed"
    TIMEOUT = "timeout"
    TOO_LARGE = "too_large"
    # Transient: the content could not be read; every run retries.
    NOT_FOUND = "not_found"
    PERMISSION_DENIED = "permission_denied"
    UNAVAILABLE = "unavailable"

    @property
    def final(self) -> bool:
        """Whether a row of this status is valid until its file changes.

        >>> Status.EMPTY.final, Status.UNAVAILABLE.final
        (True, False)
        """
        return self in FINAL


_TRANSIENT = frozenset({Status.NOT_FOUND, Status.PERMISSION_DENIED, Status.UNAVAILABLE})
FINAL = frozenset(Status) - _TRANSIENT


# A password may contain spaces and slashes, unless what follows the colon can be a port or the end
# of the URI. On the web, a user's name alone may be a token.
_PASSWORD = re.compile(
    r"(?<=://)[^/\s@:]*:[^/\s]*@"
    r"|(?<=://)(?!arn:)[^/\s@:[]*:(?!\d*(?:[/?#:,;.)'\"\s]|$))[^@'\"\n]*@(?:[^/\s]*@)?"
    r"|(?<=http://|ttps://)[^/?#\s]+@",
    re.IGNORECASE,
)
_SIGNATURE = re.compile(
    r"(?<=[?&])(X-Amz-\w+|X-Goog-\w+|AWSAccessKeyId|Key-Pair-Id|Policy|signature|sig"
    r"|(?:access_?)?token|api[_-]?key|password|secret)=[^&\s'\")]*[^&\s'\"),.:;]",
    re.IGNORECASE,
)
_SECRET_VARIABLE = re.compile(r"(PASSWORD|SECRET|SECRET_ACCESS_KEY|TOKEN|ACCOUNT_KEY)$")
_MIN_SECRET = 8  # characters; what is shorter may be a word of the message


def without_uri_credentials(text: str) -> str:
    """A text without the passwords and signatures of the URIs in it.

    >>> without_uri_credentials("ftp://me:secret@host/a.wav, https://host/b.wav?sig=abc")
    'ftp://***@host/a.wav, https://host/b.wav?sig=***'
    """
    return _SIGNATURE.sub(r"\1=***", _PASSWORD.sub("***@", text))


def without_credentials(text: str) -> str:
    """A text without the secrets of the URIs in it, and without those of the environment."""
    for secret in _environment_secrets():
        text = text.replace(secret, "***")
    return without_uri_credentials(text)


def _environment_secrets() -> list[str]:
    """Values of the environment that no message may contain, the longest first."""
    secrets = set()
    for name, value in os.environ.items():
        if name.startswith("AWS_ENDPOINT_URL"):  # which may lack its protocol
            user = value.rpartition("@")[0].rpartition("://")[2]
            secrets.add(user.partition(":")[2] or user)
        elif _SECRET_VARIABLE.search(name):
            secrets.add(value)
    return sorted((s for s in secrets if len(s) >= _MIN_SECRET), key=len, reverse=True)


def one_line(error: object) -> str:
    r"""An error's message in one line and without credentials, or its type where it has none.

    >>> one_line(OSError("no\nspace")), one_line(OSError())
    ('no space', 'OSError()')
    """
    return without_credentials(" ".join(str(error).split()) or repr(error))


def first_few(names: Sequence[str], most: int = _MOST_NAMED) -> str:
    """The first names of a list and the number of the others, for a message.

    >>> first_few(["a", "b", "c", "d", "e", "f", "g"])
    'a, b, c, d, e and 2 more'
    """
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def hint(name: str, names: Iterable[str], otherwise: str) -> str:
    """Suggests the closest of the names, or says something else where none is close.

    >>> hint("precison", ["precision", "input"], "--help lists them")
    'did you mean precision?'
    """
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"did you mean {close[0]}?" if close else otherwise


class SerError(Exception):
    """Base of every error that this project raises on purpose."""


class UsageError(SerError):
    """The command cannot run as written; a one-line message that says how to fix it."""


class CheckpointError(UsageError):
    """The checkpoint cannot be found or does not match its config."""


class CorpusError(UsageError):
    """The input cannot be listed, or the manifest or corpus cannot be used."""


class OutputError(UsageError):
    """The output folder cannot be used by this run."""


class RunError(SerError):
    """The run cannot continue; the same command resumes it."""


@contextmanager
def names_flag(flag: str) -> Iterator[None]:
    """Names the flag in the messages of what a command and Python code both call.

    >>> with names_flag("--model"):
    ...     raise CheckpointError("nowhere: no such folder")
    Traceback (most recent call last):
    ser_core.errors.CheckpointError: --model nowhere: no such folder
    """
    try:
        yield
    except (UsageError, RunError) as error:
        raise type(error)(f"{flag} {error}") from None


class DeviceError(SerError):
    """The device of a classifier failed; its process has to end, and may work when restarted."""


class CheckError(SerError):
    """The run is done, but a check that was asked for did not pass; rerunning changes nothing."""


class RecordingError(SerError):
    """One recording cannot be labelled; it becomes a row with this status and message."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status

    def __reduce__(self) -> tuple[type["RecordingError"], tuple[Status, str]]:
        return RecordingError, (self.status, str(self))


def exit_code(error: BaseException | None) -> int:
    """The exit code of a command that ended with this error, or without one.

    0: done. 1: not finished; the same command continues. 2: the command cannot run as written. 3:
    done, but a check that was asked for did not pass; running it again changes nothing.

    >>> exit_code(None), exit_code(RunError()), exit_code(CorpusError()), exit_code(CheckError())
    (0, 1, 2, 3)
    """
    if error is None:
        return 0
    if isinstance(error, CheckError):
        return 3
    return 2 if isinstance(error, UsageError) else 1
