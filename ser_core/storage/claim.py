"""One run at a time in a folder: a run claims it and keeps the claim fresh until it ends."""

import json
import logging
import os
import secrets
import socket
import threading
import time
from typing import Any, Self

from ser_core.console import say
from ser_core.errors import OutputError, RunError, one_line
from ser_core.storage.filesystem import REQUEST_SECONDS
from ser_core.storage.folder import Folder, storage_errors

_HEARTBEAT_SECONDS = 15.0
_STALE_SECONDS = 60.0  # without a heartbeat, a holder is considered dead
_SETTLE_SECONDS = 1.0  # after taking a claim over, in case another run does the same
_RELEASE_SECONDS = 2 * REQUEST_SECONDS  # local storage that hangs has no deadline of its own


class Claim:
    """A file that says which run holds a folder.

    A holder is alive while its claim file keeps changing or, on this machine, while its process
    exists. Clocks of two machines are never compared.

    ::

        with Claim(folder, "__runs/claim.json") as claim:
            ...
            claim.check()
    """

    def __init__(
        self,
        folder: Folder,
        name: str,
        heartbeat_seconds: float = _HEARTBEAT_SECONDS,
        stale_seconds: float = _STALE_SECONDS,
    ) -> None:
        self._folder = folder
        self._name = name
        self._heartbeat_seconds = heartbeat_seconds
        self._stale_seconds = stale_seconds
        self._token = secrets.token_hex(8)
        self._beats = 0
        self._lost = False
        self._ended = threading.Event()
        self._heartbeat = threading.Thread(target=self._hold, daemon=True)

    def __enter__(self) -> Self:
        """Claims the folder.

        Raises:
            OutputError: another run holds it and is alive, or writing is refused.
            RunError: the claim could not be written.
        """
        taken_over = False
        while not self._create():
            taken_over = self._take_over_if_stale()
        if taken_over:
            time.sleep(min(_SETTLE_SECONDS, self._stale_seconds))
            if not self._is_ours():
                self._refuse("another run has just started there")
        self._heartbeat.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._heartbeat.join(_RELEASE_SECONDS)
        if self._heartbeat.is_alive():
            self._say_unreleased(f"no answer within {_RELEASE_SECONDS:g} s")

    def check(self) -> None:
        """Checks that the folder is still ours.

        Raises:
            RunError: another run took it over, as this one had no heartbeat for too long, or may do
                so now.
        """
        if self._lost:
            reason = "another run took the folder over, or may do so: the claim is not renewed"
            raise RunError(f"--output {self._folder.uri}: {reason}")

    def _create(self) -> bool:
        """Writes the claim unless there is one; whether the one that is there now is ours."""
        created = self._folder.create(self._name, self._content())
        return created or self._is_ours()  # a repeated request meets what its first try wrote

    def _content(self) -> bytes:
        claim = {
            "token": self._token,
            "host": socket.gethostname(),
            "machine": _machine(),
            "pid": os.getpid(),
            "process_started": _process_start(os.getpid()),
            "beats": self._beats,
        }
        return json.dumps(claim, indent=2).encode()

    def _holder(self) -> dict[str, Any] | None:
        with storage_errors(f"--output {self._folder.uri}: {self._name} could not be read"):
            try:
                holder = json.loads(self._folder.read(self._name))
            except FileNotFoundError:
                return None
            except (ValueError, RecursionError):  # a partial write, where writes are not atomic
                return {}
            return holder if isinstance(holder, dict) else {}

    def _is_ours(self) -> bool:
        return (self._holder() or {}).get("token") == self._token

    def _take_over_if_stale(self) -> bool:
        """Removes a claim whose holder is dead; whether it did, or the claim is gone anyway."""
        holder = self._holder()
        if holder is None:
            return False
        if not _died_on_this_machine(holder):
            process = _describe(holder)
            say(f"{self._folder.uri} is claimed by a run ({process}); checking that it is alive")
            deadline = time.monotonic() + self._stale_seconds
            while time.monotonic() < deadline:
                time.sleep(min(self._heartbeat_seconds, self._stale_seconds) / 4)
                now = self._holder()
                if now is None:
                    return False
                if now != holder:
                    self._refuse(f"another run is writing there ({process})")
        if self._holder() == holder:
            self._folder.remove(self._name)
        return True

    def _refuse(self, reason: str) -> None:
        remedy = "wait for it or choose another folder"
        raise OutputError(f"--output {self._folder.uri}: {reason}; {remedy}")

    def _hold(self) -> None:
        """Keeps the claim fresh and releases it: all that may hang, in a thread of its own."""
        try:
            self._keep_fresh()
        finally:  # nothing else renews the claim, whatever has ended this
            self._lost = not self._ended.is_set()
        try:
            if not self._lost and self._is_ours():
                self._folder.remove(self._name)
        except Exception as error:
            self._say_unreleased(one_line(error))

    def _say_unreleased(self, reason: str) -> None:
        """The run has ended, well or not; its claim will go stale."""
        say(f"the claim on {self._folder.uri} could not be released ({reason})", logging.WARNING)

    def _keep_fresh(self) -> None:
        failing = False
        while not self._ended.wait(self._heartbeat_seconds):
            try:
                if not self._is_ours():
                    return
                self._beats += 1
                self._folder.write(self._name, self._content())
                failing = False
            except Exception as error:  # storage may fail now and answer next time
                if not failing:
                    reason = f"the claim could not be renewed ({one_line(error)})"
                    say(f"{reason}; trying again", logging.WARNING)
                failing = True


def _describe(holder: dict[str, Any]) -> str:
    if "pid" not in holder:
        return "an unreadable claim"
    return f"process {holder['pid']} on {holder.get('host')}"


def _died_on_this_machine(holder: dict[str, Any]) -> bool:
    """Whether the process that holds a claim ran here and is gone."""
    machine, pid = _machine(), holder.get("pid")
    if machine is None or holder.get("machine") != machine or not isinstance(pid, int):
        return False
    return _process_start(pid) != holder.get("process_started")


def _machine() -> str | None:
    """Identifies this boot of this machine and the container; None on systems other than Linux."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _process_start(pid: int) -> str | None:
    """When a process started, in clock ticks since boot; None if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[19].decode()
    except OSError:
        return None
