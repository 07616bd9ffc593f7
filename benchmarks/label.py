"""Measures files → labels on CPUs: the card's script, a plain Ray job, our classifier, our job."""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pandas as pd
import soundfile

from benchmarks.measuring import (
    ROOT,
    Watch,
    full_checkpoint,
    lengths_of,
    machine,
    real_recordings_folder,
    run_reports,
    waveforms,
    write_result,
)
from ser_core.settings import Precision

PRECISIONS: tuple[Precision, ...] = ("fp32", "auto")
READABLE = {".wav", ".flac", ".ogg", ".opus", ".mp3"}  # also by the card's script without FFmpeg
_START_TIMEOUT = 600.0  # s; ends the wait for a process that failed before the common start


@dataclass(frozen=True)
class Measured:
    """One measurement of one implementation.

    Attributes:
        recordings: how many were labelled.
        seconds: how long it took; for a job, from the start of the command to its end.
        files_per_second: the ratio of the two.
        peak_mib: peak memory of all processes together; shared pages count once.
        cores: average number of busy cores by process name, for a command.
        report: devices and times from the run's report, for our job.
    """

    recordings: int
    seconds: float
    files_per_second: float
    peak_mib: float | None
    cores: dict[str, float] | None = None
    report: dict[str, Any] | None = None


# ---- in separate processes -----------------------------------------------------------------------


def card_scores(start: Barrier, checkpoint: str, paths: list[str]) -> tuple[float, np.ndarray]:
    """Runs the card's script on one file after another; returns its seconds and scores."""
    from ser_core.models.card import Card

    card = Card(checkpoint)
    card.scores(paths[0])  # warm-up: librosa imports and compiles on its first call
    start.wait()
    started = time.perf_counter()
    scores = np.stack([card.scores(path) for path in paths])
    return time.perf_counter() - started, scores


def classifier_scores(
    start: Barrier, checkpoint: str, paths: list[str], precision: Precision
) -> tuple[float, np.ndarray]:
    """Runs the classifier of one actor on decoded waveforms; returns its seconds and scores."""
    from ser_core.audio.decode import decode
    from ser_core.models.checkpoint import load_checkpoint
    from ser_core.models.classifier import Classifier
    from ser_core.storage.reading import open_file

    decoded = []
    for path in paths:
        with open_file(path, None) as handle:
            decoded.append(decode(handle).waveform)
    classifier = Classifier(load_checkpoint(checkpoint), precision, num_threads=1)
    classifier.scores(decoded[:2])  # warm-up
    start.wait()
    started = time.perf_counter()
    scores = classifier.scores(decoded)
    return time.perf_counter() - started, scores


def measure_function(
    function: Callable[..., tuple[float, np.ndarray]],
    processes: int,
    checkpoint: str,
    paths: list[str],
    *arguments: Any,
) -> tuple[Measured, np.ndarray]:
    """Runs a function in new processes, so that no measurement shares memory or caches.

    Each process gets an equal share of the paths; the scores are in the order of the shares.
    """
    with get_context("spawn").Manager() as manager:
        start = manager.Barrier(processes, timeout=_START_TIMEOUT)
        pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))
        with pool, Watch(os.getpid()) as watch:
            shares = [paths[first::processes] for first in range(processes)]
            futures = [
                pool.submit(function, start, checkpoint, share, *arguments) for share in shares
            ]
            results = [future.result() for future in futures]
    seconds = max(seconds for seconds, _ in results)
    scores = np.concatenate([scores for _, scores in results])
    return Measured(len(paths), seconds, len(paths) / seconds, watch.peak_of_children_mib), scores


# ---- as commands ---------------------------------------------------------------------------------


def measure_command(
    arguments: list[str], paths: list[str], folder: Path, **environment: str
) -> Measured:
    """Runs a module as a command, from start to end.

    Raises:
        RuntimeError: the command failed; the message is its output.
    """
    log = folder / "log"
    started = time.perf_counter()
    with open(log, "wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=ROOT, env=os.environ | environment, stdout=file, stderr=file,
        )  # fmt: skip
        with Watch(process.pid) as watch:
            code = process.wait()
    seconds = time.perf_counter() - started
    if code:
        raise RuntimeError(log.read_text())
    cores = {name: busy / watch.seconds for name, busy in watch.cpu_seconds.items()}
    return Measured(len(paths), seconds, len(paths) / seconds, watch.peak_mib, cores)


def measure_ray_audio(checkpoint: str, paths: list[str]) -> Measured:
    """Runs the plain Ray Data job."""
    with tempfile.TemporaryDirectory() as folder:
        list_of_paths, output = Path(folder, "paths.txt"), Path(folder, "out")
        list_of_paths.write_text("\n".join(paths))
        arguments = ["benchmarks.ray_audio", str(list_of_paths), str(output), checkpoint]
        return measure_command(arguments, paths, Path(folder))


def measure_job(
    checkpoint: str, paths: list[str], precision: Precision, cores: int
) -> tuple[Measured, pd.DataFrame]:
    """Runs our job on a manifest of the files; returns its rows in the order of the paths.

    Raises:
        RuntimeError: the job failed, or some recordings have no label.
    """
    with tempfile.TemporaryDirectory() as folder:
        manifest, output = Path(folder, "in.csv"), Path(folder, "out")
        with open(manifest, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["path"], *([path] for path in paths)])
        arguments = ["jobs.label", "--input", str(manifest), "--output", str(output)]
        arguments += ["--model", checkpoint, "--precision", precision]
        # Limits the cores that Ray sees; Ray's autoscaler uses this variable for the same purpose.
        resources = json.dumps({"CPU": cores})
        measured = measure_command(arguments, paths, Path(folder), RAY_OVERRIDE_RESOURCES=resources)
        (report_path,) = run_reports(output)
        report = json.loads(report_path.read_text())
        rows = pd.read_parquet(output).set_index("path").loc[paths]
    if report["by_status"] != {"ok": len(paths)}:
        raise RuntimeError(f"not every recording was labelled: {report['by_status']}")
    keys = ("by_device", "stage_seconds", "elapsed_seconds", "seconds_to_first_row")
    return replace(measured, report={key: report[key] for key in keys}), rows


# ---- recordings ----------------------------------------------------------------------------------


def real_recordings() -> list[str]:
    """The real recordings that every implementation can read, sorted; empty if there are none."""
    root = real_recordings_folder()
    files = root.rglob("*") if root else ()
    return sorted(str(path) for path in files if path.suffix.lower() in READABLE)


def recordings(kind: str, count: int, folder: Path) -> list[str]:
    """Makes files of one length or of CASIA's mix, or takes an even sample of real ones."""
    if kind == "real":
        available = real_recordings()
        count = min(count, len(available))
        return [available[index * len(available) // count] for index in range(count)]
    folder.mkdir()
    paths = []
    for index, waveform in enumerate(waveforms(lengths_of(kind, count))):
        paths.append(str(folder / f"{index:05}.wav"))
        soundfile.write(paths[-1], waveform, 16_000, subtype="PCM_16")
    return paths


def repeated(paths: list[str], count: int, folder: Path) -> list[str]:
    """Extends the paths to ``count`` with links to them, made in ``folder``."""
    folder.mkdir()
    links = []
    for index in range(count - len(paths)):
        target = Path(paths[index % len(paths)])
        link = folder / f"{index:06}{target.suffix}"
        link.symlink_to(target)
        links.append(str(link))
    return paths + links


# ---- all implementations -------------------------------------------------------------------------


def measure(
    checkpoint: str, paths: list[str], sample: list[str], job_seconds: float, cores: int
) -> dict[str, Any]:
    """Measures every implementation on recordings of one kind, and how close its scores are.

    Args:
        checkpoint: folder of the checkpoint.
        paths: recordings for the classifier; the job gets them repeatedly.
        sample: a subset of ``paths`` for the two slow implementations.
        job_seconds: the job gets as many recordings as the classifier labels in this time.
        cores: number of classifiers.
    """
    sides: dict[str, Measured] = {}
    sides["card"], expected = measure_function(card_scores, 1, checkpoint, sample)
    sides["plain Ray job"] = measure_ray_audio(checkpoint, sample)
    agreement = {}
    for precision in PRECISIONS:
        name = f"classifier {precision}"
        sides[name], _ = measure_function(classifier_scores, cores, checkpoint, paths, precision)
        with tempfile.TemporaryDirectory() as folder:
            count = round(sides[name].files_per_second * job_seconds)
            job_paths = repeated(paths, count, Path(folder, "links"))
            sides[f"job {precision}"], rows = measure_job(checkpoint, job_paths, precision, cores)
        scores = rows.loc[sample].filter(like="score_").to_numpy()
        agreement[precision] = {
            "recordings": len(sample),
            "largest_score_difference": float(np.abs(scores - expected).max()),
            "equal_labels": float((scores.argmax(axis=1) == expected.argmax(axis=1)).mean()),
        }
    # The card's rate varies more than ours, so the better of two measurements counts.
    second, _ = measure_function(card_scores, 1, checkpoint, sample)
    sides["card"] = max(sides["card"], second, key=lambda measured: measured.files_per_second)
    return {
        "sides": {name: asdict(measured) for name, measured in sides.items()},
        "ratios": ratios(sides),
        "agreement_with_the_card": agreement,
    }


def ratios(sides: dict[str, Measured]) -> dict[str, float]:
    """The rate of each implementation relative to the card, and of the job to the classifier."""
    rates = {name: measured.files_per_second for name, measured in sides.items()}
    print({name: round(rate, 2) for name, rate in rates.items()}, flush=True)
    relative = {f"{name} / card": rate / rates["card"] for name, rate in rates.items()}
    for precision in PRECISIONS:
        ratio = rates[f"job {precision}"] / rates[f"classifier {precision}"]
        relative[f"job / classifier, {precision}"] = ratio
    return relative


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--kinds", nargs="+", metavar="KIND=SECONDS",
        default=["casia=600", "real=60", "1=60", "2=60", "3=60", "6=60", "60=60"],
        help="kinds of recordings (casia, real, or a length in seconds), each with the seconds "
        "that its job should take",
    )  # fmt: skip
    parser.add_argument("--some", type=int, default=200, help="recordings of each kind")
    parser.add_argument(
        "--few", type=int, default=16,
        help="recordings of them for the card and the plain Ray job",
    )  # fmt: skip
    all_cores = os.cpu_count() or 1
    parser.add_argument(
        "--cores", type=int, default=all_cores,
        help="cores for classifiers; the others are left for Ray's own processes",
    )  # fmt: skip
    flags = parser.parse_args()
    name = "label-cpu" if flags.cores == all_cores else f"label-cpu-{flags.cores}-of-{all_cores}"
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # for all implementations
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    os.environ.pop("RAY_ADDRESS", None)
    requested = dict(argument.split("=") for argument in flags.kinds)
    if "real" in requested and not real_recordings():
        print("real: skipped, SER_TEST_DATA names no folder with recordings", file=sys.stderr)
        del requested["real"]
    result: dict[str, Any] = {
        "machine": machine(),
        "cores": flags.cores,
        "model": "95 M parameters, random weights",
        "some": flags.some,
        "few": flags.few,
        "kinds": {},
    }
    with tempfile.TemporaryDirectory() as work:
        checkpoint = full_checkpoint(Path(work, "checkpoint"))
        for kind, seconds in requested.items():
            paths = recordings(kind, flags.some, Path(work, kind))
            sample = paths[:: -(-len(paths) // flags.few)]
            print(kind, end=" ", flush=True)
            measured = measure(checkpoint, paths, sample, float(seconds), flags.cores)
            result["kinds"][kind] = measured
            write_result(name, result)


if __name__ == "__main__":
    main()
