"""Joins a Ray cluster, or starts Ray on this machine and ends it; it knows no job."""

import atexit
import ctypes
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil
import ray
from ray._private.node import Node
from ray.exceptions import RayError

from ser_core.errors import RunError, UsageError, one_line

_ANSWER_SECONDS = 5.0
_CLIENT_PORT = "10001"  # of ray:// addresses without one
# Ray collects data for its dashboard, which costs CPU time; Ray started here has no dashboard.
_NO_DASHBOARD_DATA = {
    "RAY_enable_metrics_collection": "0",
    "RAY_task_events_report_interval_ms": "0",
}
# Ray ends workers that are idle for a second where there are more of them than cores. Tasks that
# decode are a tenth of a core each, and each of their workers starts child processes, for a second.
_KEEP_WORKERS = {"RAY_idle_worker_killing_time_threshold_ms": "600000"}
# A task that Ray ends because memory runs out: by default, it is tried again for ever.
_OOM_RETRIES = {"RAY_task_oom_retries": "3"}
# What a run on one machine has no use for, and `ray.init` no switch: the autoscaler, the server of
# the dashboard, for which it waits even without a dashboard, and what brings the logs here.
_UNUSED_SERVICES = ("start_monitor", "start_api_server", "start_log_monitor")
_own: Any = None  # Ray's node, if `join` started it
_PR_SET_CHILD_SUBREAPER = 36  # of Linux' prctl
_EXIT_SECONDS = 5.0  # for processes to end by themselves when Ray shuts down


def check_address() -> None:
    """Checks that the cluster at ``RAY_ADDRESS`` answers; Ray itself would wait for minutes.

    Raises:
        UsageError: no connection could be made to that address.
    """
    if ray.is_initialized():
        return
    cluster = os.environ.get("RAY_ADDRESS", "")
    address = cluster.removeprefix("ray://")
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        if address == cluster:  # as "auto" is
            return
        host, port = address, _CLIENT_PORT
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_SECONDS).close()
    except (OSError, OverflowError, UnicodeError) as error:  # of the address, too
        reason = f"no Ray cluster answers there ({error}); unset it to use this machine"
        raise UsageError(f"RAY_ADDRESS {cluster}: {reason}") from None


def join(verbose: bool) -> bool:
    """Joins the cluster at ``RAY_ADDRESS``, or starts Ray on this machine.

    Args:
        verbose: show Ray's own log messages.

    Returns:
        Whether Ray was started here, for this process alone.

    Raises:
        UsageError: no cluster answers at that address.
        RunError: Ray does not start.
    """
    global _own  # noqa: PLW0603 (Ray is global, too)
    if ray.is_initialized():
        return _own is not None and _own is ray._private.worker._global_node
    check_address()
    cluster = os.environ.get("RAY_ADDRESS")
    cluster = None if cluster == "local" else cluster
    on_sigterm, before = signal.getsignal(signal.SIGTERM), set(psutil.Process().children())
    try:
        _start(cluster, verbose)
    except (KeyboardInterrupt, SystemExit):  # the second from Ray's own handler of SIGTERM
        _end(_started_since(before))
        raise KeyboardInterrupt from None
    except Exception as error:  # Ray raises whatever its start met
        _end(_started_since(before))
        where = f"the cluster at {cluster} cannot be joined" if cluster else "Ray does not start"
        raise RunError(f"{where} ({one_line(error)})") from error
    finally:
        signal.signal(signal.SIGTERM, on_sigterm)  # ray.init replaces the handler
    if not cluster:
        atexit.register(_end, _started_since(before))
        _own = ray._private.worker._global_node
    return not cluster


def failed(error: RayError) -> RunError:
    """What to raise when Ray itself fails."""
    last_line = str(error).strip().splitlines()[-1:]  # what was raised first
    reason = one_line(*last_line) if last_line else repr(error)
    return RunError(f"Ray stopped the run ({reason})")


def _start(cluster: str | None, verbose: bool) -> None:
    # Without "local", Ray would join a cluster that happens to run on this machine.
    options: dict[str, Any] = {"address": cluster or "local"}
    for variable, value in _OOM_RETRIES.items():
        os.environ.setdefault(variable, value)
    if not cluster:
        options["include_dashboard"] = False
        for variable, value in (_NO_DASHBOARD_DATA | _KEEP_WORKERS).items():
            os.environ.setdefault(variable, value)
    if verbose:
        ray.init(**options)
        return
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # Ray's C++ core logs to stderr
    # The core logs that it has read the variable above.
    unused = {} if cluster else dict.fromkeys(_UNUSED_SERVICES, nothing)
    with replaced(Node, **unused), _silenced_stderr():
        ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)


def _started_since(before: set[psutil.Process]) -> list[psutil.Process]:
    """The children of this process that are new."""
    return [child for child in psutil.Process().children() if child not in before]


def _end(services: Iterable[psutil.Process]) -> None:
    """Ends Ray on this machine, and what is left of it: a worker's exit handler may hang.

    Args:
        services: the processes that Ray started; all others are their children.
    """
    processes, before = list(services), set(psutil.Process().children())
    for service in services:
        with suppress(psutil.NoSuchProcess):
            processes += service.children(recursive=True)
    with _adopting_orphans():  # a service that has just started may still start others
        ray.shutdown()
        _, left = psutil.wait_procs(processes, _EXIT_SECONDS)
    left += set(_started_since(before)) - set(left)
    for process in left:
        process.kill()  # checks that it is still the same process
    psutil.wait_procs(left, _EXIT_SECONDS)


@contextmanager
def _adopting_orphans() -> Iterator[None]:
    """Makes processes whose parent ends within it children of this one, where the system can."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl:
        prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        if prctl:
            prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@contextmanager
def replaced(owner: Any, **replacements: Callable[..., Any]) -> Iterator[None]:
    """Replaces functions of a class or module of Ray within the block; those it lacks are left."""
    originals = {name: vars(owner)[name] for name in replacements if name in vars(owner)}
    for name in originals:
        setattr(owner, name, replacements[name])
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(owner, name, original)


def nothing(*_: object, **__: object) -> None:
    """Does nothing, in the place of what a run does not need."""


@contextmanager
def _silenced_stderr() -> Iterator[None]:
    original = os.dup(2)  # Ray's C++ core writes to the descriptor, not to sys.stderr
    with open(os.devnull, "wb") as devnull:
        os.dup2(devnull.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(original, 2)
        os.close(original)
