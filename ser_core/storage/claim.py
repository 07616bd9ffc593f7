"""One run at a time in a folder: a run claims it, and keeps the claim fresh until it ends."""

import json
import os
import secrets
import socket
import threading
import time
from typing import Any, Self

from ser_core.console import say
from ser_core.errors import OutputError, RunError
from ser_core.storage.folder import Folder

_FRESH_SECONDS = 15.0  # between two signs of life
_STALE_SECONDS = 60.0  # without one, the run that holds the claim is taken for dead


class Claim:
    """A file that says which run holds a folder.

    Whether the holder is alive is told by its file changing while we watch, never by comparing the
    clocks of two machines; on the same machine, by its process.

    ::

        with Claim(folder, "__runs/claim.json") as claim:
            ...
            claim.check()
    """

    def __init__(
        self,
        folder: Folder,
        name: str,
        fresh_seconds: float = _FRESH_SECONDS,
        stale_seconds: float = _STALE_SECONDS,
    ) -> None:
        self._folder = folder
        self._name = name
        self._fresh_seconds = fresh_seconds
        self._stale_seconds = stale_seconds
        self._token = secrets.token_hex(8)
        self._signs = 0
        self._lost: str | None = None
        self._ended = threading.Event()
        self._keeper = threading.Thread(target=self._keep_fresh, daemon=True)

    def __enter__(self) -> Self:
        """Claims the folder.

        Raises:
            OutputError: another run holds it and is alive.
            RunError: the claim could not be written.
        """
        while not self._folder.create(self._name, self._content()):
            self._take_over_if_stale()
        self._keeper.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._keeper.join()
        holder = self._holder()
        if holder and holder["token"] == self._token:
            self._folder.remove(self._name)

    def check(self) -> None:
        """Checks that the folder is still ours.

        Raises:
            RunError: another run took it over, as this one gave no sign of life for a minute.
        """
        if self._lost:
            raise RunError(self._lost)

    def _content(self) -> bytes:
        claim = {
            "token": self._token,
            "host": socket.gethostname(),
            "machine": _machine(),
            "pid": os.getpid(),
            "process_started": _process_start(os.getpid()),
            "signs_of_life": self._signs,
        }
        return json.dumps(claim, indent=2).encode()

    def _holder(self) -> dict[str, Any] | None:
        try:
            content = json.loads(self._folder.read(self._name))
        except FileNotFoundError:
            return None
        except ValueError:  # half of a file, where the store does not write whole ones
            return {"token": "", "host": "unknown", "machine": None, "pid": 0}
        return dict(content)

    def _take_over_if_stale(self) -> None:
        holder = self._holder()
        if holder is None:
            return  # it has just been released
        if not _died_on_this_machine(holder):
            where = f"process {holder['pid']} on {holder['host']}"
            say(f"{self._folder.uri} is claimed by a run ({where}); waiting for a sign of life")
            deadline = time.monotonic() + self._stale_seconds
            while time.monotonic() < deadline:
                if self._ended.wait(min(self._fresh_seconds, self._stale_seconds) / 4):
                    return
                if self._holder() != holder:
                    self._refuse_if_alive(where)
                    return
        if self._holder() == holder:
            self._folder.remove(self._name)

    def _refuse_if_alive(self, where: str) -> None:
        if self._holder() is not None:
            reason = f"another run is writing there ({where}); wait for it or choose another folder"
            raise OutputError(f"--output {self._folder.uri}: {reason}")

    def _keep_fresh(self) -> None:
        while not self._ended.wait(self._fresh_seconds):
            try:
                holder = self._holder()
                if holder and holder["token"] != self._token:
                    self._lost = f"--output {self._folder.uri}: another run took the folder over"
                    return
                self._signs += 1
                self._folder.write(self._name, self._content())
            except Exception as error:  # the store is away; the next sign may get through
                say(f"the claim on {self._folder.uri} could not be renewed ({error})")


def _died_on_this_machine(holder: dict[str, Any]) -> bool:
    """Whether the process that holds a claim ran here and is gone."""
    machine = _machine()
    if machine is None or holder["machine"] != machine:
        return False
    return bool(_process_start(holder["pid"]) != holder["process_started"])


def _machine() -> str | None:
    """Identifies this boot of this machine and the container on it; None where Linux is not."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _process_start(pid: int) -> str | None:
    """When a process started, in the system's own unit; None if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[19].decode()
    except OSError:
        return None
