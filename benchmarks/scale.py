"""Measures what a corpus costs as it grows: listing, labelling, resuming, the driver's memory.

The network is a small one, so that what is seen is the job around it.
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

from benchmarks.measuring import ROOT, Watch, machine, waveforms, write_result
from ser_core.labeling.label_store import ROWS_PER_PART, LabelStore
from ser_core.models.checkpoint import Checkpoint, load_checkpoint
from ser_core.sources.forms import open_source
from ser_core.sources.interface import PAGE_ROWS

_RECORDINGS = 64  # different ones; the others are links to them
_A_FOLDER = 1000


def make_corpus(folder: Path, count: int) -> None:
    """So many short recordings, a thousand a folder, each a link to one of a few."""
    first = folder / "0000"
    first.mkdir(parents=True)
    for index, waveform in enumerate(waveforms(np.linspace(0.2, 0.4, _RECORDINGS))):
        soundfile.write(first / f"{index:07}.wav", waveform, 16_000, subtype="PCM_16")
    for index in range(_RECORDINGS, count):
        into = folder / f"{index // _A_FOLDER:04}"
        if index % _A_FOLDER == 0:
            into.mkdir()
        os.link(first / f"{index % _RECORDINGS:07}.wav", into / f"{index:07}.wav")


def pretend_labelled(corpus: Path, output: Path, checkpoint: Checkpoint) -> None:
    """Writes the rows that a finished run would have left."""
    store = LabelStore(str(output), checkpoint.labels, pa.schema([]))
    pages = open_source(str(corpus)).pages()
    while few := list(itertools.islice(pages, ROWS_PER_PART // PAGE_ROWS)):
        recordings = [recording for page in few for recording in page.recordings]
        same = {
            "duration": 0.3, "sampling_rate": 16_000, "label": "sad", "score": 0.5,
            "status": "ok", "model": checkpoint.name, "model_digest": checkpoint.digest,
            "precision": "fp32", "labeled_at": datetime.now(UTC),
        }  # fmt: skip
        columns = {
            name: pa.repeat(pa.scalar(value), len(recordings)) for name, value in same.items()
        }
        for name in ("path", "uri", "file_id"):
            columns[name] = pa.array([getattr(recording, name) for recording in recordings])
        store.write_part(pa.table(columns))


def run_job(corpus: Path, output: Path, checkpoint: str) -> dict[str, Any]:
    """The command from start to end: seconds, its driver's memory, its report if it labelled."""
    command = [sys.executable, "-m", "jobs.label", "--input", str(corpus)]
    command += ["--output", str(output), "--model", checkpoint, "--batch-size", "64"]
    before = set(output.glob("__runs/*.json"))
    started = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        with Watch(process.pid) as watch:
            code = process.wait()
        seconds = time.perf_counter() - started
        log.seek(0)
        if code:
            raise RuntimeError(log.read().decode())
    found: dict[str, Any] = {"seconds": seconds, "driver_peak_mib": watch.peak_of_one_mib}
    for path in set(output.glob("__runs/*.json")) - before:
        report = json.loads(path.read_text())
        if not report["recordings"]:
            continue
        labelling = report["elapsed_seconds"] - report["seconds_to_first_row"]
        found |= {
            "files_per_second_after_first_row": report["recordings"] / labelling,
            "stage_seconds": report["stage_seconds"],
        }
    return found


def measure(count: int, label: bool, checkpoint: str) -> dict[str, Any]:
    """One size: labelled for good if wanted, and run once more when all of it is done."""
    found: dict[str, Any] = {"recordings": count}
    with tempfile.TemporaryDirectory() as work:
        corpus, output = Path(work, "corpus"), Path(work, "out")
        make_corpus(corpus, count)
        if label:
            found["labelled"] = run_job(corpus, output, checkpoint)
        else:
            pretend_labelled(corpus, output, load_checkpoint(checkpoint))
        found["resumed"] = run_job(corpus, output, checkpoint)
    print(json.dumps(found), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--label", type=int, nargs="*", default=[10_000, 100_000, 1_000_000], metavar="COUNT"
    )
    parser.add_argument(
        "--resume", type=int, nargs="*", default=[2_000_000], metavar="COUNT",
        help="only resumed, after rows that a finished run would have left",
    )  # fmt: skip
    flags = parser.parse_args()
    before = machine()
    with tempfile.TemporaryDirectory() as work:
        checkpoint = str(Path(work, "small"))
        command = [sys.executable, "-m", "examples.make_checkpoint", checkpoint]
        subprocess.run(command, cwd=ROOT, check=True)
        sizes = [measure(count, True, checkpoint) for count in flags.label]
        sizes += [measure(count, False, checkpoint) for count in flags.resume]
    write_result("scale-cpu", {"machine": before, "sizes": sizes})


if __name__ == "__main__":
    main()
