"""Why a run must stop: errors as values in a table, since Ray Data drops exceptions."""

import traceback

import pyarrow as pa

from ser_core.console import say
from ser_core.errors import RunError, SerError, UsageError, exit_code
from ser_core.schema import STOP


def reason_of(error: SerError) -> str:
    """Why a run stops at an error: its exit code, then its message."""
    return f"{exit_code(error)} {error}"


def bug(error: Exception) -> str:
    """Why a run stops at a bug: the exit code and one line, then the traceback."""
    details = "".join(traceback.format_exception(error)).strip()
    last_line = details.splitlines()[-1].strip()
    message = f"a bug, not a bad recording, stopped the run ({last_line})\n{details}"
    return reason_of(RunError(message))


def reason_to_stop(block: pa.Table) -> str | None:
    """Why the driver has to stop the run, if a stage said so, as `reason_of` has it."""
    if STOP.name not in block.column_names:  # as in a plan
        return None
    reasons = block[STOP.name].drop_null()
    return str(reasons[0]) if len(reasons) else None


def raise_reason_to_stop(block: pa.Table) -> None:
    """Ends the run if a stage said so, in the driver.

    Raises:
        UsageError: why, where running again would change nothing.
        RunError: why, otherwise; the traceback of a bug is shown before.
    """
    if reason := reason_to_stop(block):
        code, _, message = reason.partition(" ")
        summary, _, details = message.partition("\n")
        if details:
            say(details)
        raise UsageError(summary) if int(code) == exit_code(UsageError()) else RunError(summary)
