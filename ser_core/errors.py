"""The exceptions this project raises on purpose; it knows nothing of what raised them.

::

    SerError
    ├── UsageError          the command cannot run as written        exit code 2
    │   ├── CheckpointError
    │   ├── CorpusError
    │   └── OutputError
    ├── RecordingError      one recording cannot be labelled         a row
    └── RunError            the run cannot go on                     exit code 1
"""

from enum import StrEnum


class Status(StrEnum):
    """What became of a recording: the ``status`` column, one word per kind."""

    OK = "ok"
    # The content decides: trying again helps only once the file has changed.
    EMPTY = "empty"
    DECODE_ERROR = "decode_error"
    TRUNCATED = "truncated"
    CRASHED = "crashed"
    # The way to the content decides: every run tries again.
    NOT_FOUND = "not_found"
    PERMISSION_DENIED = "permission_denied"
    UNAVAILABLE = "unavailable"

    @property
    def final(self) -> bool:
        """Whether a row of this status stands until its file changes.

        >>> Status.EMPTY.final, Status.UNAVAILABLE.final
        (True, False)
        """
        return self in FINAL


FINAL = frozenset({Status.OK, Status.EMPTY, Status.DECODE_ERROR, Status.TRUNCATED, Status.CRASHED})


class SerError(Exception):
    """Base of every error that this project raises on purpose."""


class UsageError(SerError):
    """The command cannot run as written; the message is one line that names the mend."""


class CheckpointError(UsageError):
    """The checkpoint cannot be found, or is not what it says it is."""


class CorpusError(UsageError):
    """The input cannot be listed, or is not a manifest that can be used."""


class OutputError(UsageError):
    """The output folder cannot take this run's rows."""


class RunError(SerError):
    """The run cannot go on; the same command continues it."""


class RecordingError(SerError):
    """One recording cannot be labelled; it becomes a row with this status and message."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status

    def __reduce__(self) -> tuple[type["RecordingError"], tuple[Status, str]]:
        return RecordingError, (self.status, str(self))
