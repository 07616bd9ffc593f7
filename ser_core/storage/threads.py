"""Calls that may hang: each waits in a thread, whose caller waits for so long and no longer."""

import functools
import os
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

_Outcome = SimpleQueue[tuple[Any, BaseException | None]]
_Calls = SimpleQueue[tuple[Callable[[], Any], _Outcome]]


def call_in_thread(call: Callable[[], Any], seconds: float) -> Any:
    """What a call returns, or raises, in another thread; signals are handled meanwhile.

    Raises:
        TimeoutError: it has not returned. Nothing ends it; its thread is left behind.
    """
    outcome: _Outcome = SimpleQueue()
    idle = _idle_threads(os.getpid())
    try:
        thread = idle.get_nowait()
    except Empty:
        thread = SimpleQueue()
        threading.Thread(target=_serve, args=(thread, idle), daemon=True).start()
    thread.put((call, outcome))
    try:
        result, error = outcome.get(timeout=seconds)
    except Empty:
        raise TimeoutError from None
    if error is not None:
        raise error
    return result


@functools.cache
def _idle_threads(pid: int) -> SimpleQueue[_Calls]:
    """The threads of this process that wait for a call: to start one costs as much as a GET."""
    del pid
    return SimpleQueue()


def _serve(calls: _Calls, idle: SimpleQueue[_Calls]) -> None:
    """Makes calls, one at a time, for ever."""
    while True:
        call, outcome = calls.get()
        result: Any = None
        error: BaseException | None = None
        try:
            result = call()
        except BaseException as raised:
            error = raised
        idle.put(calls)  # before the caller wakes up, so that its next call finds this thread
        outcome.put((result, error))
        del call, outcome, result, error  # or they would live until the next call
