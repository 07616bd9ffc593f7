"""Shared by the benchmarks: machine details, memory and CPU usage, waveforms, result files."""

import argparse
import io
import itertools
import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
_RESULTS = ROOT / "benchmarks" / "results"
_PACKAGES = (
    "ser-batch",
    "torch",
    "transformers",
    "openvino",
    "onnxruntime",
    "ray",
    "librosa",
    "soundfile",
    "soxr",
    "numpy",
    "pyarrow",
)
# Instructions that decide which kernels are used and how fast they are.
_CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "amx_bf16")
# Reading the memory of one process takes 12 ms of a core. Child processes, about a dozen for a Ray
# job, are sampled less often, at growing intervals, so that sampling does not slow them down.
_SAMPLING_SECONDS = 1.0
_SAMPLES_PER_CHILD_SAMPLE = 5  # at first
_CASIA_SECONDS = (0.96, 1.69, 4.93)  # shortest, median, longest
_CASIA_SIGMA = 0.43  # of the logarithm; gives CASIA's mean of 1.9 s


def real_recordings_folder() -> Path | None:
    """The folder that the environment variable ``SER_TEST_DATA`` names (see CONTRIBUTING.md)."""
    folder = os.environ.get("SER_TEST_DATA")
    return Path(folder) if folder else None


def add_emodb_flag(parser: argparse.ArgumentParser) -> None:
    """Adds ``--data``, the folder of EMO-DB, required where ``SER_TEST_DATA`` is not set."""
    folder = real_recordings_folder()
    parser.add_argument(
        "--data", type=Path, default=folder and folder / "emodb", required=folder is None,
        help="folder of EMO-DB; by default $SER_TEST_DATA/emodb",
    )  # fmt: skip


def casia_lengths(count: int, seed: int = 34) -> np.ndarray:
    """Lengths in seconds, distributed like CASIA's, shape ``(count,)``.

    >>> round(float(casia_lengths(100_000).mean()), 1)
    1.9
    """
    shortest, median, longest = _CASIA_SECONDS
    logarithms = np.random.default_rng(seed).normal(0, _CASIA_SIGMA, count)
    lengths: np.ndarray = np.clip(median * np.exp(logarithms), shortest, longest)
    return lengths


def lengths_of(kind: str, count: int) -> np.ndarray:
    """Lengths in seconds, shape ``(count,)``: CASIA's mix for ``"casia"``, all 3 s for ``"3"``."""
    return casia_lengths(count) if kind == "casia" else np.full(count, float(kind))


def waveforms(lengths: Sequence[float] | np.ndarray) -> list[np.ndarray]:
    """Synthetic voices at 16 kHz, float32; the content does not affect the speed."""
    random = np.random.default_rng(0)
    result = []
    for seconds in lengths:
        time = np.arange(round(seconds * 16_000)) / 16_000
        voice = np.sin(2 * np.pi * random.uniform(90, 250) * time) * np.sin(9 * time)
        noise = random.standard_normal(len(time))
        result.append((0.3 * voice + 0.02 * noise).astype(np.float32))
    return result


def wav(waveform: np.ndarray) -> bytes:
    """A WAV file of 16 bits at 16 kHz."""
    import soundfile

    content = io.BytesIO()
    soundfile.write(content, waveform, 16_000, format="WAV", subtype="PCM_16")
    return content.getvalue()


def small_checkpoint(folder: Path) -> str:
    """Makes a checkpoint in a folder whose network hardly counts."""
    return _checkpoint(folder)


def full_checkpoint(folder: Path) -> str:
    """Makes a checkpoint of the published size with random weights in a folder."""
    return _checkpoint(folder, "--full")


def _checkpoint(folder: Path, *flags: str) -> str:
    command = [sys.executable, "-m", "examples.make_checkpoint", str(folder), *flags]
    subprocess.run(command, cwd=ROOT, check=True)
    return str(folder)


def machine() -> dict[str, Any]:
    """The hardware and versions that results depend on, without anything that names the owner."""
    import torch

    cpuinfo = Path("/proc/cpuinfo")
    cpu = cpu_details(cpuinfo.read_text() if cpuinfo.exists() else "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": platform.processor(),
        **cpu,  # on Linux
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
        "load_average_before": os.getloadavg()[0],
        "python": platform.python_version(),
        **{name: installed for name in _PACKAGES if (installed := _version(name))},
    }


def cpu_details(cpuinfo: str) -> dict[str, Any]:
    r"""The name, generation and relevant instructions of the first core in ``/proc/cpuinfo``.

    >>> cpu_details("model name\t: AMD EPYC\ncpu family\t: 26\nflags\t\t: fpu avx512f\n")
    {'cpu': 'AMD EPYC', 'cpu_family': 26, 'cpu_flags': ['avx512f']}
    """
    fields: dict[str, str] = {}
    for line in cpuinfo.partition("\n\n")[0].splitlines():
        name, _, value = line.partition(":")
        fields[name.strip()] = value.strip()
    details: dict[str, Any] = {}
    if "model name" in fields:
        details["cpu"] = fields["model name"]
    for key, field in {"cpu_family": "cpu family", "cpu_model": "model"}.items():
        if field in fields:
            details[key] = int(fields[field])
    if "flags" in fields:
        flags = fields["flags"].split()
        details["cpu_flags"] = [flag for flag in _CPU_FLAGS if flag in flags]
    return details


def cpu_of(result: dict[str, Any]) -> str:
    """The name of the CPU that a result was measured on, as documents spell it.

    >>> cpu_of({"machine": {"cpu": "Intel(R) Xeon(R) Processor"}})
    'Intel Xeon'
    """
    name: str = result["machine"]["cpu"]
    return name.replace("(R)", "").removesuffix(" Processor")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def write_result(name: str, result: dict[str, Any]) -> None:
    """Writes a result with the current time to ``benchmarks/results/<name>.json``."""
    measured_at = datetime.now(UTC).isoformat(timespec="seconds")
    _RESULTS.mkdir(exist_ok=True)
    path = _RESULTS / f"{name}.json"
    path.write_text(json.dumps({"measured_at": measured_at, **result}, indent=2) + "\n")
    print(f"{path.relative_to(ROOT)} written", file=sys.stderr)


def read_result(name: str) -> dict[str, Any]:
    """Reads a result that `write_result` wrote."""
    result: dict[str, Any] = json.loads((_RESULTS / f"{name}.json").read_text())
    return result


def markdown_table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """The lines of a table."""
    header = list(header)
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def run_reports(output: Path) -> set[Path]:
    """The reports of the runs that wrote an output folder of ``jobs.label``."""
    return set(output.glob("__runs/*.json")) - {output / "__runs" / "claim.json"}


class Watch:
    """Measures the memory and CPU time of a process and all its descendants; Linux only.

    Memory is the proportional set size: a page shared by n processes counts 1/n for each.

    Attributes:
        peak_mib: peak memory of all processes together.
        peak_of_parent_mib: peak memory of the process itself.
        peak_of_children_mib: peak memory of its descendants together.
        cpu_seconds: CPU time by process name, at the last sample of all; the parent is ``itself``.
        seconds: from the start to that sample.
    """

    def __init__(self, pid: int) -> None:
        self.peak_mib: float | None = None
        self.peak_of_parent_mib: float | None = None
        self.peak_of_children_mib: float | None = None
        self.cpu_seconds: dict[str, float] = {}
        self.seconds = 0.0
        self._pid = pid
        self._started = time.monotonic()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _sample(self) -> None:
        if not Path("/proc/self/smaps_rollup").exists():
            return
        next_of_children = 0
        for sample in itertools.count():
            parent = _pss_kib(self._pid) / 1024
            self.peak_of_parent_mib = max(self.peak_of_parent_mib or 0.0, parent)
            if sample == next_of_children:
                next_of_children += max(_SAMPLES_PER_CHILD_SAMPLE, sample // 10)
                self._sample_children(parent)
            if self._stopped.wait(_SAMPLING_SECONDS):
                return

    def _sample_children(self, parent_mib: float) -> None:
        processes = _with_descendants(self._pid)
        children_mib = sum(map(_pss_kib, processes.keys() - {self._pid})) / 1024
        self.peak_mib = max(self.peak_mib or 0.0, parent_mib + children_mib)
        self.peak_of_children_mib = max(self.peak_of_children_mib or 0.0, children_mib)
        cpu_seconds: defaultdict[str, float] = defaultdict(float)
        for pid, process in processes.items():
            cpu_seconds["itself" if pid == self._pid else process.name] += process.cpu_seconds
        # The sum falls when processes exit; then the previous sample is the better one.
        if sum(cpu_seconds.values()) > sum(self.cpu_seconds.values()):
            self.cpu_seconds, self.seconds = dict(cpu_seconds), time.monotonic() - self._started


class _Process(NamedTuple):
    name: str
    parent: int
    cpu_seconds: float


def _with_descendants(pid: int) -> dict[int, _Process]:
    processes = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, rest = stat.read_text().split("(", 1)[1].rsplit(")", 1)
        except OSError:  # the process has exited
            continue
        fields = rest.split()  # from the third field of proc_pid_stat(5) on
        cpu_seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        processes[int(stat.parent.name)] = _Process(name, int(fields[1]), cpu_seconds)
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
