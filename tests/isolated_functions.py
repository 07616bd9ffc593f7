"""What the tests of `ser_core.isolation` call in a child process, which has to import it."""

import ctypes
import os
import resource
import time

from ser_core.errors import RecordingError, Status


def call(job, caller):
    """Does what the job says, and returns the id of the process."""
    action, value = job
    if action == "raise":
        raise value
    if action == "crash":
        os.kill(os.getpid(), value)
    if action == "hang":
        ctypes.PyDLL(None).sleep(value)  # with Python's lock held
    if action == "allocate":
        return len(bytearray(value))
    if action == "pause":
        with caller.pause():
            time.sleep(value)
    if action == "environment":
        return os.environ.get(value)
    if action == "memory limit":
        return resource.getrlimit(resource.RLIMIT_AS)[1]
    if action == "refuse":
        raise RecordingError(Status.TRUNCATED, value)
    if action == "modules":
        import sys

        return [name for name in value if name in sys.modules]
    return os.getpid()
