"""What every benchmark needs: the machine in words, a watch, recordings, a result file."""

import itertools
import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = Path(os.environ.get("SER_TEST_DATA", ROOT.parent / "shared" / "data"))
_RESULTS = ROOT / "benchmarks" / "results"
_PACKAGES = ("torch", "transformers", "ray", "librosa", "soundfile", "soxr", "numpy", "pyarrow")
# Between two looks at a process's memory; one takes 12 ms of a core. What it starts, a dozen
# processes for a Ray job, is looked at less often, and ever less, so that it does not slow them.
_SAMPLING_SECONDS = 1.0
_LOOKS_AT_CHILDREN = 5  # every so many looks, at first
# CASIA's lengths: 0.96 to 4.93 s, median 1.69 s, mean 1.90 s.
_CASIA_SECONDS = (0.96, 1.69, 4.93)
_CASIA_SPREAD = 0.43  # of the logarithm; makes the mean 1.9 s


def casia_lengths(count: int, seed: int = 34) -> np.ndarray:
    """Lengths in seconds as CASIA's are spread, shape ``(count,)``.

    >>> round(float(casia_lengths(1200).mean()), 1)
    1.9
    """
    shortest, median, longest = _CASIA_SECONDS
    spread = np.random.default_rng(seed).normal(0, _CASIA_SPREAD, count)
    lengths: np.ndarray = np.clip(median * np.exp(spread), shortest, longest)
    return lengths


def lengths_of(kind: str, count: int) -> np.ndarray:
    """Lengths in seconds: all ``"3"`` of them, or ``"casia"``'s mix."""
    return casia_lengths(count) if kind == "casia" else np.full(count, float(kind))


def waveforms(lengths: Sequence[float] | np.ndarray) -> list[np.ndarray]:
    """Voiced noise at 16 kHz, float32; what is said costs no more or less than what is not."""
    random = np.random.default_rng(0)
    made = []
    for seconds in lengths:
        time = np.arange(round(seconds * 16_000)) / 16_000
        voice = np.sin(2 * np.pi * random.uniform(90, 250) * time) * np.sin(9 * time)
        made.append((0.3 * voice + 0.02 * random.standard_normal(len(time))).astype(np.float32))
    return made


def full_checkpoint(folder: Path) -> str:
    """A checkpoint of the published size with random weights, made there."""
    command = [sys.executable, "-m", "examples.make_checkpoint", str(folder), "--full"]
    subprocess.run(command, cwd=ROOT, check=True)
    return str(folder)


def machine() -> dict[str, Any]:
    """What numbers depend on; nothing that says whose machine it is."""
    import torch

    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
        "load_average_before": os.getloadavg()[0],
        "python": platform.python_version(),
        **{name: found for name in _PACKAGES if (found := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def write_result(name: str, result: dict[str, Any]) -> None:
    """Keeps a result with its machine and time as ``benchmarks/results/<name>.json``."""
    measured_at = datetime.now(UTC).isoformat(timespec="seconds")
    _RESULTS.mkdir(exist_ok=True)
    path = _RESULTS / f"{name}.json"
    path.write_text(json.dumps({"measured_at": measured_at, **result}, indent=2) + "\n")
    print(f"{path.relative_to(ROOT)} written", file=sys.stderr)


def read_result(name: str) -> dict[str, Any]:
    """What `write_result` kept."""
    result: dict[str, Any] = json.loads((_RESULTS / f"{name}.json").read_text())
    return result


class Watch:
    """Watches a process and all that it starts: their memory and CPU time; Linux only.

    Attributes:
        peak_mib: the most memory at once, shared pages shared out.
        peak_of_one_mib: the most of the first process alone.
        peak_of_children_mib: the most at once of what it starts.
        cpu_seconds: at the last look at all of them, by their names; the first is ``itself``.
        seconds: from the start to that look.
    """

    def __init__(self, pid: int) -> None:
        self.peak_mib: float | None = None
        self.peak_of_one_mib: float | None = None
        self.peak_of_children_mib: float | None = None
        self.cpu_seconds: dict[str, float] = {}
        self.seconds = 0.0
        self._pid = pid
        self._started = time.monotonic()
        self._stopped = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._watch.join()

    def _look(self) -> None:
        if not Path("/proc/self/smaps_rollup").exists():
            return
        at_children = 0
        for look in itertools.count():
            one = _pss_kib(self._pid) / 1024
            self.peak_of_one_mib = max(self.peak_of_one_mib or 0.0, one)
            if look == at_children:
                at_children += max(_LOOKS_AT_CHILDREN, look // 10)
                self._look_at_children(one)
            if self._stopped.wait(_SAMPLING_SECONDS):
                return

    def _look_at_children(self, one: float) -> None:
        family = _with_children(self._pid)
        children = sum(map(_pss_kib, family.keys() - {self._pid})) / 1024
        self.peak_mib = max(self.peak_mib or 0.0, one + children)
        self.peak_of_children_mib = max(self.peak_of_children_mib or 0.0, children)
        spent: defaultdict[str, float] = defaultdict(float)
        for pid, process in family.items():
            spent["itself" if pid == self._pid else process.name] += process.cpu_seconds
        if sum(spent.values()) > sum(self.cpu_seconds.values()):  # else some have ended
            self.cpu_seconds, self.seconds = dict(spent), time.monotonic() - self._started


class _Process(NamedTuple):
    name: str
    parent: int
    cpu_seconds: float


def _with_children(pid: int) -> dict[int, _Process]:
    processes = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, rest = stat.read_text().split("(", 1)[1].rsplit(")", 1)
        except OSError:  # it has ended
            continue
        fields = rest.split()  # from the third on: proc_pid_stat(5)
        ticks = int(fields[11]) + int(fields[12])
        spent = ticks / os.sysconf("SC_CLK_TCK")
        processes[int(stat.parent.name)] = _Process(name, int(fields[1]), spent)
    family, size = {pid} & processes.keys(), 0
    while len(family) > size:
        size = len(family)
        family |= {child for child, process in processes.items() if process.parent in family}
    return {member: processes[member] for member in family}


def _pss_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
