"""Runs a function in a child process that may crash, hang or exhaust its memory; it knows no audio.

The child serves call after call and is replaced when it dies. It comes from a fork server, so that
a new one starts in milliseconds.
"""

import fcntl
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
import traceback
import types
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from enum import StrEnum
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

import psutil
import tenacity

from ser_core.errors import SerError

_CONTEXT = multiprocessing.get_context("forkserver")
_CRASH_SECONDS = 60.0  # a crash closes the pipe before the process ends, and may write a core dump
_KILLED_SECONDS = 5.0  # in which the kernel clears a killed process away
_TICK_SECONDS = 1.0
_UNKNOWN_EXIT_CODE = 255  # the fork server is gone, which alone would know it
_GIB = 1 << 30
_starting = threading.Lock()


class Limits(NamedTuple):
    """What one call may use.

    Attributes:
        seconds: of wall time, without pauses.
        pause_seconds: of one pause.
        memory: bytes of address space, beyond what the child has before its first call.
    """

    seconds: float
    pause_seconds: float
    memory: int


class ChildError(Exception):
    """The call did not return."""


class ChildTimeoutError(ChildError):
    """The function took too long."""


class PauseTimeoutError(ChildError):
    """A pause took too long, or the call waits for a disk that does not answer."""


class ChildCrashedError(ChildError):
    """The child process died.

    Attributes:
        killed: whether another process killed it, as the kernel does when memory runs out.
    """

    def __init__(self, exit_code: int | None) -> None:
        self.killed = exit_code in (None, _UNKNOWN_EXIT_CODE, -signal.SIGKILL)
        cause = f"exit code {exit_code}"
        if exit_code is not None and exit_code < 0:
            cause = signal.Signals(-exit_code).name
        super().__init__(cause)


class ChildMemoryError(ChildError):
    """The function needed more memory than it may use."""


class _Message(StrEnum):
    PAUSED = "paused"
    RESUMED = "resumed"
    SENT = "sent"
    RETURNED = "returned"
    RAISED = "raised"
    EXHAUSTED = "exhausted"


class Caller:
    """The process that called a function, as the function in the child sees it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Waits for others: the time within it is not counted."""
        self._connection.send((_Message.PAUSED, None))
        try:
            yield
        finally:
            self._connection.send((_Message.RESUMED, None))

    def send(self, value: Any) -> None:
        """Passes a value on before the function returns; waits while the caller takes no more."""
        self._connection.send((_Message.SENT, value))


class IsolatedFunction:
    """A function whose calls run in a child process, one at a time."""

    def __init__(
        self, function: Callable[[Any, Caller], Any], limits: Limits, preload: Sequence[str] = ()
    ) -> None:
        """Starts nothing yet.

        Args:
            function: called with an argument and its caller.
            limits: of each call.
            preload: modules that the fork server imports; the first user in a process decides.
        """
        self._function = function
        self._limits = limits
        self._preload = list(preload)
        self._process: multiprocessing.process.BaseProcess | None = None
        self._connection: Connection | None = None
        self._alive: Connection | None = None  # closed when this process ends, however it does

    def __call__(self, argument: Any) -> Any:
        """The function's result; raises what `stream` does."""
        return deque(self.stream(argument), maxlen=1).pop()

    def stream(self, argument: Any) -> Iterator[Any]:
        """What the function sends, and then what it returns.

        The child is ended if the values are not taken to the end.

        Raises:
            SerError: what the function raised of that kind.
            RuntimeError: with the traceback of any other exception.
            ChildError: the child crashed or had to be killed.
        """
        try:
            if self._process is None:
                self._start()
            self._connection.send(argument)  # type: ignore[union-attr]
            for kind, value in self._answers():
                if kind is not _Message.SENT:
                    break
                yield value
        except (EOFError, ConnectionError):
            raise ChildCrashedError(self._end(_CRASH_SECONDS)) from None
        except BaseException:
            self._end()
            raise
        if kind is _Message.RETURNED:
            yield value
            return
        if kind is _Message.EXHAUSTED:
            raise ChildMemoryError(f"{self._limits.memory / _GIB:g} GiB")
        raise value if isinstance(value, SerError) else RuntimeError(value)

    def close(self) -> None:
        """Ends the child process."""
        self._end()

    def _answers(self) -> Iterator[tuple[_Message, Any]]:
        """The function's messages; the clock runs while they are waited for, except in pauses."""
        left, paused = self._limits.seconds, False
        while True:
            patience = self._limits.pause_seconds if paused else left
            waited = self._wait(patience)
            if waited is None:
                reason = f"{patience if paused else self._limits.seconds:g} s"
                waits = paused or self._waits_for_disk()
                raise (PauseTimeoutError if waits else ChildTimeoutError)(reason)
            if not paused:
                left -= waited
            kind, value = self._connection.recv()  # type: ignore[union-attr]
            if kind in (_Message.PAUSED, _Message.RESUMED):
                paused = kind is _Message.PAUSED
            else:
                yield kind, value

    def _wait(self, seconds: float) -> float | None:
        """How long a message took to come, s; None if it did not.

        A tick counts for no more than it should last: clocks go on while a machine is paused.
        """
        waited = 0.0
        while waited < seconds:
            tick = min(_TICK_SECONDS, seconds - waited)
            started = time.monotonic()
            arrived = wait([self._connection], tick)  # type: ignore[list-item]
            waited += min(tick, time.monotonic() - started)
            if arrived:
                return waited
        return None

    def _waits_for_disk(self) -> bool:
        """Whether the child is in a read that cannot be interrupted, as of a dead network disk."""
        with suppress(psutil.Error):
            status = psutil.Process(self._process.pid).status()  # type: ignore[union-attr]
            return bool(status == psutil.STATUS_DISK_SLEEP)
        return False

    def _start(self) -> None:
        with _starting, _for_fork_server() as environment:
            _CONTEXT.set_forkserver_preload(self._preload)
            self._connection, theirs = _CONTEXT.Pipe()
            parent_lives, self._alive = _CONTEXT.Pipe(duplex=False)
            arguments = (theirs, parent_lives, self._function, self._limits.memory, environment)
            process = _CONTEXT.Process(target=_serve, args=arguments, daemon=True)
            for attempt in _while_fork_server_dies():
                with attempt:
                    process.start()
            self._process = process
            theirs.close()
            parent_lives.close()

    def _end(self, patience: float = 0.0) -> int | None:
        """Kills the child unless it ends by itself, and returns its exit code."""
        process, self._process = self._process, None
        if process is None:
            return None
        process.join(patience)
        self._connection.close()  # type: ignore[union-attr]
        self._alive.close()  # type: ignore[union-attr]
        process.kill()
        process.join(_KILLED_SECONDS)  # one that waits for a dead disk cannot be killed
        return process.exitcode


def _while_fork_server_dies() -> tenacity.Retrying:
    """One that was killed accepts connections until the kernel has cleared it away."""
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type((EOFError, ConnectionError)),
        wait=tenacity.wait_fixed(0.05),  # s
        stop=tenacity.stop_after_delay(_KILLED_SECONDS),
        reraise=True,
    )


@contextmanager
def _for_fork_server() -> Iterator[dict[str, str]]:
    """What a fork server has to find when it starts; yields the environment as it was before."""
    main, path = sys.modules["__main__"], os.environ.get("PYTHONPATH")
    environment = dict(os.environ)
    # A child imports the parent's `__main__`, which in a Ray worker loads all of Ray.
    sys.modules["__main__"] = types.ModuleType("__main__")
    # Up to Python 3.13, the server does not get the parent's `sys.path` for its preloads.
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    try:
        yield environment
    finally:
        sys.modules["__main__"] = main
        os.environ.pop("PYTHONPATH")
        if path is not None:
            os.environ["PYTHONPATH"] = path


# ---- in the child --------------------------------------------------------------------------------


def _serve(
    connection: Connection,
    parent_lives: Connection,
    function: Callable[[Any, Caller], Any],
    memory: int,
    environment: Mapping[str, str],
) -> None:
    if sys.platform == "linux":
        _die_with_parent(parent_lives)
        _limit_memory(memory)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    with open(os.devnull, "wb") as devnull:  # libraries complain of every damaged frame
        os.dup2(devnull.fileno(), 2)
    os.environ.clear()
    os.environ.update(environment)  # the fork server has those of its start

    caller = Caller(connection)
    while True:
        try:
            argument = connection.recv()
        except EOFError:  # the parent has ended
            return
        except MemoryError:
            connection.send((_Message.EXHAUSTED, None))
            return
        try:
            connection.send((_Message.RETURNED, function(argument, caller)))
        except SerError as error:
            connection.send((_Message.RAISED, error))
        except MemoryError:
            connection.send((_Message.EXHAUSTED, None))
        except Exception:
            connection.send((_Message.RAISED, traceback.format_exc()))


def _die_with_parent(parent_lives: Connection) -> None:
    """Lets the kernel end this process when the pipe closes, even if a library hangs.

    Its parent in the sense of ``PR_SET_PDEATHSIG`` is the fork server, which outlives ours.
    """
    pipe = parent_lives.fileno()
    fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(pipe, fcntl.F_SETFL, os.O_ASYNC)  # SIGIO, whose default is to terminate


def _limit_memory(memory: int) -> None:
    with open("/proc/self/statm", encoding="ascii") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = now + memory if most == resource.RLIM_INFINITY else min(now + memory, most)
    resource.setrlimit(resource.RLIMIT_AS, (limit, most))  # to raise the second takes root
