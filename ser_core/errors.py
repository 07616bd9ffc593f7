"""The exceptions that this project raises on purpose, and the statuses of a recording.

::

    SerError
    ├── UsageError          the command cannot run as written        exit code 2
    │   ├── CheckpointError
    │   ├── CorpusError
    │   └── OutputError
    ├── RecordingError      one recording cannot be labelled         a row
    ├── RunError            the run cannot continue                  exit code 1
    └── CheckError          done, but a requested check did not pass exit code 3
"""

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


def one_line(error: object) -> str:
    r"""An error's message in one line, or its type where it has none.

    >>> one_line(OSError("no\nspace")), one_line(OSError())
    ('no space', 'OSError()')
    """
    return " ".join(str(error).split()) or repr(error)


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


class CheckError(SerError):
    """The run is done, but a check that was asked for did not pass; rerunning changes nothing."""


class RecordingError(SerError):
    """One recording cannot be labelled; it becomes a row with this status and message."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status

    def __reduce__(self) -> tuple[type["RecordingError"], tuple[Status, str]]:
        return RecordingError, (self.status, str(self))
