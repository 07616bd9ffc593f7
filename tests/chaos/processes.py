"""Finds the processes that a job started, also after their parents have ended."""

import threading
import time
from collections.abc import Iterable, Sequence
from typing import Self

import psutil

_SCAN_SECONDS = 0.2


class Family:
    """All descendants of a process, collected while it runs.

    A process is a pid and its start time: a pid alone may be that of another process later. Those
    that hold the mark in their environment belong to the family even if their parents ended before
    they were seen.
    """

    def __init__(self, root: psutil.Process, mark: str) -> None:
        self._root = root
        self._mark = mark
        self._known: dict[tuple[int, float], psutil.Process] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def alive(self) -> list[psutil.Process]:
        """The descendants that run now, without zombies."""
        self._scan(with_marked=True)
        return [process for process in self._known.values() if _runs(process)]

    def named(self, word: str) -> list[psutil.Process]:
        """The descendants that run now and have a word in their command line."""
        return [process for process in self.alive() if word in command_line(process)]

    def decoders(self) -> list[psutil.Process]:
        """The child processes of fork servers: each decodes recordings."""
        servers = {process.pid for process in self.named("forkserver")}
        return [process for process in self.named("forkserver") if _parent(process) in servers]

    def classifiers(self) -> list[psutil.Process]:
        """The Ray workers that hold a model."""
        return [
            process
            for process in self.named("ray::")
            if "lassif" in command_line(process).replace("_", "")
        ]

    def left_after(self, seconds: float, without: Sequence[str] = ()) -> list[str]:
        """What still runs after so many seconds at the latest, one line each.

        Args:
            seconds: to wait at most.
            without: words in the command lines of processes that may run on.
        """
        deadline = time.monotonic() + seconds
        while (left := self._alive_without(without)) and time.monotonic() < deadline:
            time.sleep(_SCAN_SECONDS)
        return [
            f"{process.pid} {process.status()} {command_line(process)[:150]}" for process in left
        ]

    def _alive_without(self, words: Sequence[str]) -> list[psutil.Process]:
        return [p for p in self.alive() if not any(word in command_line(p) for word in words)]

    def kill(self) -> None:
        """Kills what is left, so that a failed test does not disturb the next one."""
        for process in self.alive():
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue

    def _watch(self) -> None:
        while not self._stopped.wait(_SCAN_SECONDS):
            self._scan(with_marked=False)

    def _scan(self, with_marked: bool) -> None:
        ours = {self._root.pid} | {p.pid for p in self._known.values() if _runs(p)}
        rest = {process.pid: process for process in psutil.process_iter()}
        while found := [p for p in rest.values() if p.pid not in ours and _parent(p) in ours]:
            ours.update(process.pid for process in found)
            self._add(found)
        if with_marked:
            self._add(p for p in rest.values() if p.pid not in ours and self._mark in _values(p))

    def _add(self, processes: Iterable[psutil.Process]) -> None:
        for process in processes:
            try:
                self._known.setdefault((process.pid, process.create_time()), process)
            except psutil.NoSuchProcess:
                continue


def command_line(process: psutil.Process) -> str:
    """The command line of a process, empty if it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _parent(process: psutil.Process) -> int | None:
    try:
        return process.ppid()
    except psutil.Error:
        return None


def _values(process: psutil.Process) -> list[str]:
    try:
        return list(process.environ().values())
    except (psutil.Error, OSError):
        return []
