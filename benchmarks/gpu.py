"""Measures everything on a GPU: the network, its batches and kernels, and the job from files.

Takes less than ten minutes on an H100; runs `benchmarks.classifier` and `benchmarks.batches`, too.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from benchmarks.measuring import (
    ROOT,
    full_checkpoint,
    lengths_of,
    machine,
    run_reports,
    waveforms,
    write_result,
)
from ser_core.models.checkpoint import load_checkpoint
from ser_core.models.classifier import Classifier

FORMATS = {"wav": 16_000, "flac": 48_000, "mp3": 44_100}  # and their sampling rates, Hz
DISTINCT = 500  # recordings of a corpus; the others are links to them
SECONDS = 6.0
_PASSES = 3  # that are profiled
_KERNELS = 25  # reported, the slowest first
_CLASSIFIER = "benchmarks.classifier --recordings 1024 --rounds 2"
_BATCHES = "benchmarks.batches --sizes 64 128 256 --steps 8 32"


def largest_product() -> float:
    """Operations/s of a large product in bf16, from random inputs."""
    size, rounds = 8192, 20
    left, right = torch.randn(2, size, size, device="cuda", dtype=torch.bfloat16)
    return 2 * size**3 / _seconds(lambda: left @ right, rounds)


def copied_bytes() -> float:
    """Bytes/s of a copy within the device's memory, read and written."""
    source = torch.randn(1 << 30, device="cuda", dtype=torch.bfloat16)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _seconds(lambda: target.copy_(source), 20)


def _seconds(function: Any, rounds: int) -> float:
    """The median duration of a function on the device."""
    seconds = []
    for _ in range(rounds):
        events = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start, end = events
        start.record()
        function()
        end.record()
        end.synchronize()
        seconds.append(start.elapsed_time(end) / 1000)
    return float(np.median(seconds))


def kernels(checkpoint: str, kind: str) -> dict[str, Any]:
    """The time on the device of one batch, by kernel."""
    classifier = Classifier(load_checkpoint(checkpoint), "auto")
    speeches = waveforms(lengths_of(kind, classifier.batch_size))
    classifier.scores(speeches)
    activities = [torch.profiler.ProfilerActivity.CUDA, torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(_PASSES):
            classifier.scores(speeches)
    rows = [row for row in profiler.key_averages() if row.device_type.name == "CUDA"]
    rows.sort(key=lambda row: -row.self_device_time_total)
    milliseconds = {row.key: row.self_device_time_total / 1000 / _PASSES for row in rows}
    return {
        "batch": f"{len(speeches)} × {kind} s",
        "milliseconds": sum(milliseconds.values()),
        "by_kernel": dict(list(milliseconds.items())[:_KERNELS]),
    }


def make_corpus(folder: Path, extension: str, recordings: int) -> None:
    """Recordings of full length; all but `DISTINCT` are links, so that they lie in the cache."""
    rate = FORMATS[extension]
    for number, speech in enumerate(waveforms(np.full(DISTINCT, SECONDS))):
        samples = np.interp(np.arange(int(SECONDS * rate)) / rate, *_timed(speech))
        path = folder / "0" / f"{number}.{extension}"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples.astype(np.float32), rate)
    for copy in range(1, recordings // DISTINCT):
        (folder / str(copy)).mkdir()
        for path in (folder / "0").iterdir():
            (folder / str(copy) / path.name).hardlink_to(path)


def _timed(speech: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(len(speech)) / 16_000, speech


def measure_job(corpus: Path, output: Path, checkpoint: str) -> dict[str, Any]:
    """Labels a corpus by the command that users type."""
    command = [sys.executable, "-m", "jobs.label", "--input", str(corpus), "--output", str(output)]
    started = time.monotonic()
    subprocess.run([*command, "--model", checkpoint], cwd=ROOT, check=True)
    report_file = next(iter(run_reports(output)))
    report = json.loads(report_file.read_text())
    labelling = report["elapsed_seconds"] - report["seconds_to_first_row"]
    return {
        "seconds": time.monotonic() - started,
        "files_per_second": report["recordings"] / report["elapsed_seconds"],
        "files_per_second_once_started": report["recordings"] / labelling,
        "share_computing_once_started": report["stage_seconds"]["compute"] / labelling,
        "report": {name: report[name] for name in ("recordings", "stage_seconds", "by_status")},
        "elapsed_seconds": report["elapsed_seconds"],
        "seconds_to_first_row": report["seconds_to_first_row"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=int, default=60_000, help="of each format")
    parser.add_argument("--only-job", action="store_true", help="not the other two benchmarks")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    flags = parser.parse_args()
    before = machine()
    for command in () if flags.only_job else (_CLASSIFIER, _BATCHES):
        subprocess.run([sys.executable, "-m", *command.split()], cwd=ROOT, check=True)
    jobs = {}
    with tempfile.TemporaryDirectory() as work:
        checkpoint = full_checkpoint(Path(work, "checkpoint"))
        network = {
            "operations_per_second_of_a_large_product": largest_product(),
            "bytes_per_second_of_a_copy": copied_bytes(),
            "kernels": {kind: kernels(checkpoint, kind) for kind in ("6", "casia")},
        }
        torch.cuda.empty_cache()
        for extension in flags.formats:
            corpus = Path(work, extension)
            make_corpus(corpus, extension, flags.recordings)
            jobs[extension] = measure_job(corpus, Path(work, f"labels-{extension}"), checkpoint)
            print(extension, jobs[extension], flush=True)
            write_result("gpu", {"machine": before, **network, "job": jobs})


if __name__ == "__main__":
    main()
