"""Joins a Ray cluster, or starts Ray on this machine; it does not know what runs there."""

import logging
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from ser_core.errors import UsageError

_ANSWER_SECONDS = 5.0
# What Ray gathers for its dashboard costs CPU time, and a Ray started here has no dashboard.
_FOR_THE_DASHBOARD = {
    "RAY_enable_metrics_collection": "0",
    "RAY_task_events_report_interval_ms": "0",
}


def check_address() -> None:
    """Checks that the cluster which ``RAY_ADDRESS`` names answers.

    Raises:
        UsageError: nobody listens at that address; Ray itself would wait for minutes.
    """
    cluster = os.environ.get("RAY_ADDRESS", "")
    host, _, port = cluster.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), _ANSWER_SECONDS).close()
    except OSError as error:
        reason = f"no Ray cluster answers there ({error}); unset it to use this machine"
        raise UsageError(f"RAY_ADDRESS {cluster}: {reason}") from None


def join(verbose: bool) -> None:
    """Joins the cluster that ``RAY_ADDRESS`` names, or starts Ray on this machine.

    Raises:
        UsageError: no cluster answers at that address.
    """
    if not ray.is_initialized():
        check_address()
        on_sigterm = signal.getsignal(signal.SIGTERM)
        _start(os.environ.get("RAY_ADDRESS"), verbose)
        signal.signal(signal.SIGTERM, on_sigterm)  # ray.init replaced it


def _start(cluster: str | None, verbose: bool) -> None:
    # "local": never join a cluster that happens to run on this machine.
    where: dict[str, Any] = {"address": cluster or "local"}
    if not cluster:
        where["include_dashboard"] = False
        for gathering, off in _FOR_THE_DASHBOARD.items():
            os.environ.setdefault(gathering, off)
    if verbose:
        ray.init(**where)
        return
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # of its C++ core, on stderr
    with _silenced_stderr():  # the core announces that it has read the variable above
        ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)


@contextmanager
def _silenced_stderr() -> Iterator[None]:
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
