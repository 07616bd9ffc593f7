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
import re
from collections.abc import Iterable
from enum import StrEnum


class Status(StrEnum):
    """What became of a recording: the ``status`` column, one word per kind."""

    OK = "ok"
    # Final: caused by the content; retrying helps only after the file changes.
    EMPTY = "empty"
    DECODE_ERROR = "decode_error"
    TRUNCATED = "truncated"
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


_PASSWORD = re.compile(r"(?<=://)[^/\s@:]*:[^/\s]*@")
_SIGNATURE = re.compile(
    r"(?<=[?&])(X-Amz-\w+|X-Goog-\w+|AWSAccessKeyId|signature|sig|token|access_token)=[^&\s'\")]+",
    re.IGNORECASE,
)


def without_credentials(text: str) -> str:
    """A text without the passwords and signatures of the URIs in it.

    >>> without_credentials("ftp://me:secret@host/a.wav, https://host/b.wav?sig=abc")
    'ftp://***@host/a.wav, https://host/b.wav?sig=***'
    """
    return _SIGNATURE.sub(r"\1=***", _PASSWORD.sub("***@", text))


def one_line(error: object) -> str:
    r"""An error's message in one line and without credentials, or its type where it has none.

    >>> one_line(OSError("no\nspace")), one_line(OSError())
    ('no space', 'OSError()')
    """
    return without_credentials(" ".join(str(error).split()) or repr(error))


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
