"""Measures files → labels on this machine's CPUs: the card's script, a plain Ray job, our job."""

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
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pandas as pd
import soundfile

from benchmarks.measuring import (
    ROOT,
    SHARED_DATA,
    Watch,
    full_checkpoint,
    lengths_of,
    machine,
    waveforms,
    write_result,
)
from ser_core.settings import Precision

PRECISIONS: tuple[Precision, ...] = ("fp32", "auto")
READABLE = {".wav", ".flac", ".ogg", ".opus", ".mp3"}  # by the card's script too, without FFmpeg
_PCM16 = {"subtype": "PCM_16"}
_PATIENCE = 600.0  # s: of a process whose neighbour failed before both could start


@dataclass(frozen=True)
class Measured:
    """One side, once.

    Attributes:
        recordings: how many it labelled.
        seconds: how long that took; of the two jobs from the command's start to its end.
        files_per_second: their ratio.
        peak_mib: the most memory at once, of all its processes, shared pages shared out.
        cores: of a command, how many each of its processes kept busy, by name.
        report: of our job, what its run's JSON says of its stages.
    """

    recordings: int
    seconds: float
    files_per_second: float
    peak_mib: float | None
    cores: dict[str, float] | None = None
    report: dict[str, Any] | None = None


# ---- in processes of their own -------------------------------------------------------------------


def card_scores(start: Barrier, checkpoint: str, paths: list[str]) -> tuple[float, np.ndarray]:
    """Seconds that the card's script takes for the files one after another, and its scores."""
    from benchmarks.card import Card

    card = Card(checkpoint)
    card.scores(paths[0])  # librosa imports and compiles on its first call
    start.wait()
    started = time.perf_counter()
    scores = np.stack([card.scores(path) for path in paths])
    return time.perf_counter() - started, scores


def classifier_scores(
    start: Barrier, checkpoint: str, paths: list[str], precision: Precision
) -> tuple[float, np.ndarray]:
    """Seconds that one of the job's actors, on its core, takes for decoded waveforms."""
    from ser_core.audio.decode import decode
    from ser_core.models.checkpoint import load_checkpoint
    from ser_core.models.classifier import Classifier
    from ser_core.storage.reading import open_file

    heard = []
    for path in paths:
        with open_file(path, None) as handle:
            heard.append(decode(handle).waveform)
    classifier = Classifier(load_checkpoint(checkpoint), precision, num_threads=1)
    classifier.scores(heard[:2])
    start.wait()
    started = time.perf_counter()
    scores = classifier.scores(heard)
    return time.perf_counter() - started, scores


def measure_alone(
    work: Callable[..., tuple[float, np.ndarray]],
    processes: int,
    checkpoint: str,
    paths: list[str],
    *more: Any,
) -> tuple[Measured, np.ndarray]:
    """Runs work in processes of its own, so that no side finds another's memory or caches.

    Each gets its share of the paths; the scores come in the order of the shares.
    """
    with get_context("spawn").Manager() as manager:
        start = manager.Barrier(processes, timeout=_PATIENCE)
        pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))
        with pool, Watch(os.getpid()) as watch:
            shares = [paths[first::processes] for first in range(processes)]
            running = [pool.submit(work, start, checkpoint, share, *more) for share in shares]
            done = [one.result() for one in running]
    seconds = max(taken for taken, _ in done)
    scores = np.concatenate([of_one for _, of_one in done])
    return Measured(len(paths), seconds, len(paths) / seconds, watch.peak_of_children_mib), scores


# ---- as commands ---------------------------------------------------------------------------------


def measure_command(
    arguments: list[str], paths: list[str], folder: Path, **environment: str
) -> Measured:
    """A module run from its start to its end."""
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
    cores = {name: spent / watch.seconds for name, spent in watch.cpu_seconds.items()}
    return Measured(len(paths), seconds, len(paths) / seconds, watch.peak_mib, cores)


def measure_ray_audio(checkpoint: str, paths: list[str]) -> Measured:
    """The plain Ray Data job."""
    with tempfile.TemporaryDirectory() as folder:
        names, output = Path(folder, "paths.txt"), Path(folder, "out")
        names.write_text("\n".join(paths))
        arguments = ["benchmarks.ray_audio", str(names), str(output), checkpoint]
        return measure_command(arguments, paths, Path(folder))


def measure_job(
    checkpoint: str, paths: list[str], precision: Precision, cores: int
) -> tuple[Measured, pd.DataFrame]:
    """Our job on the files as a manifest, and its rows in the order of the paths."""
    with tempfile.TemporaryDirectory() as folder:
        manifest, output = Path(folder, "in.csv"), Path(folder, "out")
        with open(manifest, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["path"], *([path] for path in paths)])
        arguments = ["jobs.label", "--input", str(manifest), "--output", str(output)]
        arguments += ["--model", checkpoint, "--precision", precision]
        resources = json.dumps({"CPU": cores})  # by what Ray's own autoscaler uses
        measured = measure_command(arguments, paths, Path(folder), RAY_OVERRIDE_RESOURCES=resources)
        report = json.loads(next((output / "_runs").glob("*.json")).read_text())
        rows = pd.read_parquet(output).set_index("path").loc[paths]
    if report["by_status"] != {"ok": len(paths)}:
        raise RuntimeError(f"not every recording was labelled: {report['by_status']}")
    kept = ("by_device", "stage_seconds", "elapsed_seconds", "seconds_to_first_row")
    return Measured(**asdict(measured) | {"report": {key: report[key] for key in kept}}), rows


# ---- recordings ----------------------------------------------------------------------------------


def recordings(kind: str, count: int, folder: Path) -> list[str]:
    """Files of one length or of CASIA's mix, made here; or an even sample of real ones."""
    if kind == "real":
        files = (path for path in SHARED_DATA.rglob("*") if path.suffix.lower() in READABLE)
        found = sorted(map(str, files))
        count = min(count, len(found))
        return [found[index * len(found) // count] for index in range(count)]
    folder.mkdir()
    paths = []
    for index, waveform in enumerate(waveforms(lengths_of(kind, count))):
        paths.append(str(folder / f"{index:05}.wav"))
        soundfile.write(paths[-1], waveform, 16_000, **_PCM16)
    return paths


def repeated(paths: list[str], count: int, folder: Path) -> list[str]:
    """The paths, and links to them made in a folder until there are so many."""
    folder.mkdir()
    links = []
    for index in range(count - len(paths)):
        target = Path(paths[index % len(paths)])
        link = folder / f"{index:06}{target.suffix}"
        link.symlink_to(target)
        links.append(str(link))
    return paths + links


# ---- all sides -----------------------------------------------------------------------------------


def measure(
    checkpoint: str, some: list[str], few: list[str], job_seconds: float, cores: int
) -> dict[str, Any]:
    """Every side on recordings of one kind, and how far our scores are from the card's.

    Args:
        checkpoint: its folder.
        some: recordings for the classifier; a job gets them again and again.
        few: some of these, for the slow sides.
        job_seconds: the classifier's time for what a job gets.
        cores: for how many classifiers.
    """
    found: dict[str, Any] = {}
    found["card"], expected = measure_alone(card_scores, 1, checkpoint, few)
    found["plain Ray job"] = measure_ray_audio(checkpoint, few)
    agreement = {}
    for precision in PRECISIONS:
        name = f"classifier {precision}"
        found[name], _ = measure_alone(classifier_scores, cores, checkpoint, some, precision)
        with tempfile.TemporaryDirectory() as folder:
            count = round(found[name].files_per_second * job_seconds)
            paths = repeated(some, count, Path(folder, "links"))
            found[f"job {precision}"], rows = measure_job(checkpoint, paths, precision, cores)
        got = rows.loc[few].filter(like="score_").to_numpy()
        agreement[precision] = {
            "recordings": len(few),
            "largest_score_difference": float(np.abs(got - expected).max()),
            "equal_labels": float((got.argmax(axis=1) == expected.argmax(axis=1)).mean()),
        }
    again, _ = measure_alone(card_scores, 1, checkpoint, few)  # its rate varies more than ours
    found["card"] = max(found["card"], again, key=lambda one: one.files_per_second)
    rates = {name: one.files_per_second for name, one in found.items()}
    print({name: round(rate, 2) for name, rate in rates.items()}, flush=True)
    ratios = {f"{name} / card": rate / rates["card"] for name, rate in rates.items()}
    for precision in PRECISIONS:
        ratio = rates[f"job {precision}"] / rates[f"classifier {precision}"]
        ratios[f"job / classifier, {precision}"] = ratio
    sides = {name: asdict(one) for name, one in found.items()}
    return {"sides": sides, "ratios": ratios, "agreement_with_the_card": agreement}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--kinds", nargs="+", metavar="KIND=SECONDS",
        default=["casia=600", "real=60", "1=60", "2=60", "3=60", "6=60", "60=60"],
        help="casia's mix, real ones or a length in seconds, and the job's time for them",
    )  # fmt: skip
    parser.add_argument("--some", type=int, default=240, help="recordings of a kind")
    parser.add_argument("--few", type=int, default=24, help="of them, for the two slow sides")
    all_cores = os.cpu_count() or 1
    parser.add_argument(
        "--cores", type=int, default=all_cores,
        help="for classifiers; Ray's own processes may have the rest",
    )  # fmt: skip
    flags = parser.parse_args()
    name = "label-cpu" if flags.cores == all_cores else f"label-cpu-{flags.cores}-of-{all_cores}"
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # of all sides alike
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    os.environ.pop("RAY_ADDRESS", None)
    before, kinds, model = machine(), {}, "95 M parameters, random weights"
    with tempfile.TemporaryDirectory() as work:
        checkpoint = full_checkpoint(Path(work, "checkpoint"))
        for kind, seconds in (asked.split("=") for asked in flags.kinds):
            some = recordings(kind, flags.some, Path(work, kind))
            few = some[:: -(-len(some) // flags.few)]
            print(kind, end=" ", flush=True)
            kinds[kind] = measure(checkpoint, some, few, float(seconds), flags.cores)
            found = {"machine": before, "cores": flags.cores, "model": model, "kinds": kinds}
            write_result(name, found)


if __name__ == "__main__":
    main()
