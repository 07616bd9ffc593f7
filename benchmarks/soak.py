"""Measures whether memory, file handles and speed stay the same while a job runs for long.

The network is so small that decoding, Ray and writing set the pace: as many recordings as possible.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import pyarrow.parquet as pq

from benchmarks.measuring import ROOT, machine, small_checkpoint, write_result
from benchmarks.scale import make_corpus

_SAMPLING_SECONDS = 5.0
_PART_SECONDS = 5.0  # how well the number of labelled recordings is known
_STOP_SECONDS = 120.0
_MIB = 1 << 20


class Sample(NamedTuple):
    """All processes of one kind at one moment."""

    seconds: float
    processes: int
    rss_mib: float
    uss_mib: float
    file_handles: int
    cpu_seconds: float


def kind_of(command_line: str) -> str:
    """What a process of the job is for, by its command line.

    >>> kind_of("ray::MapWorker(MapBatches(ClassifierActor)).submit")
    'classifiers'
    """
    if "forkserver" in command_line:
        return "decoders"  # a few fork servers among them
    if command_line.startswith("ray::"):
        return "classifiers" if "lassif" in command_line else "other Ray workers"
    return "Ray itself"


class Watch:
    """Samples the processes of a job and the number of rows that it has written."""

    def __init__(self, pid: int, output: Path) -> None:
        self.samples: defaultdict[str, list[Sample]] = defaultdict(list)
        self.rows: list[tuple[float, int]] = []
        self.stolen: list[tuple[float, float]] = []  # by other guests of the host, s of a core
        self._driver = psutil.Process(pid)
        self._output = output
        self._rows_of_part: dict[str, int] = {}
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the first rows were written; 0 before that."""
        return time.monotonic() - self._started if self.rows else 0.0

    def sample(self) -> None:
        """Takes one sample of everything, once there are rows."""
        rows = self._count_rows()
        if not rows:
            self._started = time.monotonic()
            return
        self.rows.append((self.seconds, rows))
        self.stolen.append((self.seconds, psutil.cpu_times().steal))
        groups: defaultdict[str, list[psutil.Process]] = defaultdict(list)
        groups["driver"].append(self._driver)
        for process in self._driver.children(recursive=True):
            try:
                groups[kind_of(" ".join(process.cmdline()))].append(process)
            except psutil.Error:  # it has just ended
                continue
        for kind, processes in groups.items():
            self.samples[kind].append(_sample(self.seconds, processes))

    def _count_rows(self) -> int:
        for path in self._output.glob("part-*.parquet"):
            if path.name not in self._rows_of_part:
                self._rows_of_part[path.name] = pq.read_metadata(path).num_rows
        return sum(self._rows_of_part.values())


def _sample(seconds: float, processes: Sequence[psutil.Process]) -> Sample:
    counted, rss, uss, handles, cpu = 0, 0, 0, 0, 0.0
    for process in processes:
        try:
            memory, open_files = process.memory_full_info(), process.num_fds()
            times = process.cpu_times()
        except psutil.Error:
            continue
        counted, rss, uss = counted + 1, rss + memory.rss, uss + memory.uss
        handles += open_files
        cpu += times.user + times.system
    return Sample(seconds, counted, rss / _MIB, uss / _MIB, handles, cpu)


def slope_per_hour(seconds: Sequence[float], values: Sequence[float]) -> float:
    """The slope of the least-squares line through the values, per hour.

    >>> round(slope_per_hour([0, 36, 72], [1.0, 2.0, 3.0]), 6)
    100.0
    """
    return float(np.polyfit(seconds, values, 1)[0] * 3600)


def trend(samples: Sequence[Sample]) -> dict[str, Any]:
    """What became of one kind of process after the warm-up."""
    seconds = [sample.seconds for sample in samples]
    result: dict[str, Any] = {"processes": max(sample.processes for sample in samples)}
    for name in ("rss_mib", "uss_mib", "file_handles"):
        values = [getattr(sample, name) for sample in samples]
        fifth = max(1, len(values) // 5)
        result[name] = {
            "first_fifth": round(float(np.mean(values[:fifth])), 1),
            "last_fifth": round(float(np.mean(values[-fifth:])), 1),
            "slope_per_hour": round(slope_per_hour(seconds, values), 1),
        }
    result["cores"] = rates([(sample.seconds, sample.cpu_seconds) for sample in samples])
    return result


def rates(totals: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """How much a total grew per second in each fifth, and the relative change to the last one.

    >>> rates([(0, 0), (10, 100), (20, 180)])
    {'of_fifths': [10.0, 10.0, 9.0, 8.0, 8.0], 'change': -0.2}
    """
    seconds, counts = np.transpose(totals)
    ends = np.linspace(seconds[0], seconds[-1], 6)
    per_fifth = np.diff(np.interp(ends, seconds, counts)) / np.diff(ends)
    change = per_fifth[-1] / per_fifth[0] - 1 if per_fifth[0] else None
    return {
        "of_fifths": [round(float(rate), 3) for rate in per_fifth],
        "change": None if change is None else round(float(change), 4),
    }


def soak(minutes: float, warm_up: float, recordings: int, work: Path) -> dict[str, Any]:
    """Runs the job for so many minutes after its first rows, and stops it.

    Raises:
        RuntimeError: it ended before; the message is its output.
    """
    checkpoint = small_checkpoint(work / "small")
    corpus, output = str(work / "corpus"), str(work / "labels")
    make_corpus(Path(corpus), recordings)
    command = [sys.executable, "-m", "jobs.label", "--input", corpus, "--output", output]
    command += ["--model", checkpoint, "--batch-size", "64", "--part-seconds", str(_PART_SECONDS)]
    with (work / "log").open("w+b") as log:
        job = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        watch = Watch(job.pid, Path(output))
        while watch.seconds < minutes * 60:
            time.sleep(_SAMPLING_SECONDS)
            if job.poll() is not None:
                log.seek(0)
                raise RuntimeError(f"the job has ended:\n{log.read().decode()[-2000:]}")
            watch.sample()
        job.terminate()
        job.wait(_STOP_SECONDS)
    return summary(watch, warm_up)


def summary(watch: Watch, warm_up: float) -> dict[str, Any]:
    """The result, without the warm-up.

    Args:
        watch: what was sampled.
        warm_up: minutes after the first rows.
    """
    after = {
        kind: [sample for sample in samples if sample.seconds >= warm_up * 60]
        for kind, samples in watch.samples.items()
    }
    return {
        "seconds": round(watch.seconds),
        "warm_up_seconds": round(warm_up * 60),
        "recordings": watch.rows[-1][1],
        "recordings_per_second": rates([row for row in watch.rows if row[0] >= warm_up * 60]),
        "cores_stolen": rates([total for total in watch.stolen if total[0] >= warm_up * 60]),
        "processes": {kind: trend(samples) for kind, samples in after.items() if len(samples) > 1},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--warm-up", type=float, default=3.0, help="minutes that do not count")
    parser.add_argument(
        "--recordings", type=int, default=3_000_000, help="more than fit into the minutes"
    )
    parser.add_argument("--name", default="soak-cpu", help="of the result")
    flags = parser.parse_args()
    machine_before = machine()
    with tempfile.TemporaryDirectory() as work:
        result = soak(flags.minutes, flags.warm_up, flags.recordings, Path(work))
    write_result(flags.name, {"machine": machine_before, **result})


if __name__ == "__main__":
    main()
