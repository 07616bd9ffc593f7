"""Measures how the time of labelling and resuming, and the driver's memory, grow with a corpus.

The network is so small that it hardly counts: what is measured is the job around it. Local folders
are labelled; a bucket of up to ten million recordings, which exists only as a rule, is planned.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import soundfile

from benchmarks.measuring import (
    ROOT,
    Watch,
    machine,
    run_reports,
    small_checkpoint,
    waveforms,
    write_result,
)
from benchmarks.synthetic_bucket import bucket_of, synthetic_buckets
from ser_core.labeling.label_store import LabelStore
from ser_core.labeling.parts import ROWS_PER_PART
from ser_core.models.checkpoint import Checkpoint, load_checkpoint
from ser_core.sources.forms import open_source
from ser_core.sources.recording import Recording

_DISTINCT_RECORDINGS = 64  # the others are hard links to them
_RECORDINGS_PER_FOLDER = 1000
_NEW = 1000  # recordings of a nightly run


def make_corpus(folder: Path, count: int) -> None:
    """Makes ``count`` short recordings, a thousand per folder, most of them hard links."""
    first = folder / "0000"
    first.mkdir(parents=True)
    for index, waveform in enumerate(waveforms(np.linspace(0.2, 0.4, _DISTINCT_RECORDINGS))):
        soundfile.write(first / f"{index:07}.wav", waveform, 16_000, subtype="PCM_16")
    for index in range(_DISTINCT_RECORDINGS, count):
        subfolder = folder / f"{index // _RECORDINGS_PER_FOLDER:04}"
        if index % _RECORDINGS_PER_FOLDER == 0:
            subfolder.mkdir()
        os.link(first / f"{index % _DISTINCT_RECORDINGS:07}.wav", subfolder / f"{index:07}.wav")


def write_finished_output(uri: str, output: Path, checkpoint: Checkpoint, new: int) -> None:
    """Writes the rows of a finished run without labelling, but for the last ``new`` recordings."""
    store = LabelStore(str(output), checkpoint.labels, pa.schema([]))
    constants = {
        "duration": 0.3, "sampling_rate": 16_000, "label": "sad", "score": 0.5,
        "status": "ok", "model": checkpoint.name, "model_digest": checkpoint.digest,
        "precision": "fp32", "labeled_at": datetime.now(UTC),
    }  # fmt: skip
    recordings = (each for page in open_source([uri]).pages() for each in page.recordings)
    held = deque[Recording]()  # the last ones, which get no row
    while part := list(itertools.islice(recordings, ROWS_PER_PART)):
        held += part
        part = [held.popleft() for _ in range(max(0, len(held) - new))]
        columns = {
            name: pa.repeat(pa.scalar(value), len(part)) for name, value in constants.items()
        }
        columns["path"] = columns["uri"] = pa.array([each.uri for each in part])
        columns["file_id"] = pa.array([each.file_id for each in part])
        store.write_part(pa.table(columns))


def label_command(uri: str, output: Path, checkpoint: str) -> list[str]:
    """The command that labels an input."""
    command = [sys.executable, "-m", "jobs.label", "--input", uri, "--output", str(output)]
    return [*command, "--model", checkpoint, "--precision", "fp32"]


def run_job(uri: str, output: Path, checkpoint: str, *flags: str) -> dict[str, Any]:
    """Runs the command and returns its duration, its memory, and its speed if it labelled.

    Raises:
        RuntimeError: the job failed; the message is its output.
    """
    command = [*label_command(uri, output, checkpoint), *flags]
    earlier_reports = run_reports(output)
    started = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        with Watch(process.pid) as watch:
            code = process.wait()
        seconds = time.perf_counter() - started
        log.seek(0)
        if code:
            raise RuntimeError(log.read().decode())
    result: dict[str, Any] = {
        "seconds": seconds,
        "driver_peak_mib": watch.peak_of_parent_mib,
        "peak_mib": watch.peak_mib,
    }
    for path in run_reports(output) - earlier_reports:
        report = json.loads(path.read_text())
        result |= {name: report[name] for name in ("listed", "recordings", "stage_seconds")}
        if report["recordings"]:
            labelling_seconds = report["elapsed_seconds"] - report["seconds_to_first_row"]
            result["files_per_second_after_first_row"] = report["recordings"] / labelling_seconds
    return result


def measure_folder(count: int, checkpoint: str) -> dict[str, Any]:
    """Labels a local folder, and again when nothing is to do."""
    with tempfile.TemporaryDirectory() as work:
        corpus, output = Path(work, "corpus"), Path(work, "out")
        make_corpus(corpus, count)
        labelled = run_job(str(corpus), output, checkpoint, "--batch-size", "64")
        resumed = run_job(str(corpus), output, checkpoint)
    return {"recordings": count, "labelled": labelled, "resumed": resumed}


def measure_bucket(count: int, checkpoint: str) -> dict[str, Any]:
    """Plans a bucket of which nothing, nearly all, and all is labelled."""
    uri = bucket_of(count)
    with tempfile.TemporaryDirectory() as work:
        planned = run_job(uri, Path(work, "none"), checkpoint, "--dry-run")
        output = Path(work, "out")
        write_finished_output(uri, output, load_checkpoint(checkpoint), _NEW)
        few_new = run_job(uri, output, checkpoint)
        resumed = run_job(uri, output, checkpoint)
    assert (few_new["recordings"], resumed["recordings"]) == (_NEW, 0)
    assert few_new["listed"] == resumed["listed"] == count
    return {"recordings": count, "planned": planned, "few_new": few_new, "resumed": resumed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--folder", type=int, nargs="*", default=[10_000, 100_000], metavar="COUNT",
        help="sizes of local folders to label",
    )  # fmt: skip
    parser.add_argument(
        "--bucket", type=int, nargs="*", metavar="COUNT",
        default=[10_000, 100_000, 1_000_000, 10_000_000],
        help="sizes of synthetic buckets to plan and to resume",
    )  # fmt: skip
    flags = parser.parse_args()
    result: dict[str, Any] = {"machine": machine(), "new_recordings": _NEW}
    with tempfile.TemporaryDirectory() as work, synthetic_buckets() as environment:
        os.environ |= environment
        checkpoint = small_checkpoint(Path(work, "small"))
        for name, measure in {"folder": measure_folder, "bucket": measure_bucket}.items():
            result[name] = []
            for count in getattr(flags, name):
                result[name].append(measure(count, checkpoint))
                print(json.dumps(result[name][-1]), flush=True)
    write_result("scale-cpu", result)


if __name__ == "__main__":
    main()
