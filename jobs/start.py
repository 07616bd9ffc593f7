"""Starts a command of this process, which ends in one line whenever it is interrupted."""

import os
import signal
import sys
from contextlib import suppress

# Removes the live line of a terminal, and shows the cursor, which rich hides.
_CLEAR_LINE = b"\r\x1b[2K\x1b[?25h"
STOPPED = "stopped; run the same command again to continue"


def start(job: str) -> int:
    """Runs ``python -m jobs.<job>`` and returns its exit code."""
    _stop_at_once_when_interrupted()
    from jobs.ser_batch import run_job  # takes long enough to be interrupted

    code = run_job(job, sys.argv[1:], prog=f"python -m jobs.{job.replace('-', '_')}")
    return _end(code)


def main() -> int:
    """Runs ``ser-batch`` and returns its exit code."""
    _stop_at_once_when_interrupted()
    from jobs import ser_batch

    return _end(ser_batch.main())


def _stop_at_once_when_interrupted() -> None:
    """For as long as nothing has begun: imports do not all pass a KeyboardInterrupt on."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)


def _stop(*_: object) -> None:
    with suppress(OSError):
        os.write(2, (_CLEAR_LINE if os.isatty(2) else b"") + f"{STOPPED}\n".encode())
    os._exit(1)


def _end(code: int) -> int:
    """The exit code; interrupting what Python does at exit would only print tracebacks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for stream in (sys.stdout, sys.stderr):
        if stream is None or stream.closed:
            continue
        try:
            stream.flush()
        except OSError:  # otherwise Python would try again and exit with 120
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return code
