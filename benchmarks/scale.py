"""Measures how the time of labelling and resuming, and the driver's memory, grow with a corpus.

The network is so small that it hardly counts: what is measured is the job around it.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import soundfile

from benchmarks.measuring import ROOT, Watch, machine, run_reports, waveforms, write_result
from ser_core.labeling.label_store import ROWS_PER_PART, LabelStore
from ser_core.models.checkpoint import Checkpoint, load_checkpoint
from ser_core.sources.forms import open_source
from ser_core.sources.interface import PAGE_ROWS

_DISTINCT_RECORDINGS = 64  # the others are hard links to them
_RECORDINGS_PER_FOLDER = 1000


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


def write_finished_output(corpus: Path, output: Path, checkpoint: Checkpoint) -> None:
    """Writes the rows that a finished run would have written, without labelling."""
    store = LabelStore(str(output), checkpoint.labels, pa.schema([]))
    pages = open_source([str(corpus)]).pages()
    while pages_of_part := list(itertools.islice(pages, ROWS_PER_PART // PAGE_ROWS)):
        recordings = [recording for page in pages_of_part for recording in page.recordings]
        constants = {
            "duration": 0.3, "sampling_rate": 16_000, "label": "sad", "score": 0.5,
            "status": "ok", "model": checkpoint.name, "model_digest": checkpoint.digest,
            "precision": "fp32", "labeled_at": datetime.now(UTC),
        }  # fmt: skip
        columns = {
            name: pa.repeat(pa.scalar(value), len(recordings)) for name, value in constants.items()
        }
        for name in ("path", "uri", "file_id"):
            columns[name] = pa.array([getattr(recording, name) for recording in recordings])
        store.write_part(pa.table(columns))


def run_job(corpus: Path, output: Path, checkpoint: str) -> dict[str, Any]:
    """Runs the command and returns its duration, its driver's memory, and its speed if it labelled.

    Raises:
        RuntimeError: the job failed; the message is its output.
    """
    command = [sys.executable, "-m", "jobs.label", "--input", str(corpus)]
    command += ["--output", str(output), "--model", checkpoint, "--batch-size", "64"]
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
    result: dict[str, Any] = {"seconds": seconds, "driver_peak_mib": watch.peak_of_parent_mib}
    for path in run_reports(output) - earlier_reports:
        report = json.loads(path.read_text())
        if not report["recordings"]:
            continue
        labelling_seconds = report["elapsed_seconds"] - report["seconds_to_first_row"]
        result |= {
            "files_per_second_after_first_row": report["recordings"] / labelling_seconds,
            "stage_seconds": report["stage_seconds"],
        }
    return result


def measure(count: int, label: bool, checkpoint: str) -> dict[str, Any]:
    """Measures one corpus size: the labelling run if ``label`` is set, then a rerun."""
    result: dict[str, Any] = {"recordings": count}
    with tempfile.TemporaryDirectory() as work:
        corpus, output = Path(work, "corpus"), Path(work, "out")
        make_corpus(corpus, count)
        if label:
            result["labelled"] = run_job(corpus, output, checkpoint)
        else:
            write_finished_output(corpus, output, load_checkpoint(checkpoint))
        result["resumed"] = run_job(corpus, output, checkpoint)
    print(json.dumps(result), flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--label", type=int, nargs="*", default=[10_000, 100_000, 1_000_000], metavar="COUNT",
        help="corpus sizes to label and then resume",
    )  # fmt: skip
    parser.add_argument(
        "--resume", type=int, nargs="*", default=[2_000_000], metavar="COUNT",
        help="corpus sizes to resume only; the rows of a finished run are made up",
    )  # fmt: skip
    flags = parser.parse_args()
    machine_before = machine()
    with tempfile.TemporaryDirectory() as work:
        checkpoint = str(Path(work, "small"))
        command = [sys.executable, "-m", "examples.make_checkpoint", checkpoint]
        subprocess.run(command, cwd=ROOT, check=True)
        sizes = [measure(count, True, checkpoint) for count in flags.label]
        sizes += [measure(count, False, checkpoint) for count in flags.resume]
    write_result("scale-cpu", {"machine": machine_before, "sizes": sizes})


if __name__ == "__main__":
    main()
