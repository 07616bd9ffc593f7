"""Measures where the seconds from Enter to the first row go, and those until the prompt is back."""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import (
    ROOT,
    Watch,
    full_checkpoint,
    lengths_of,
    machine,
    run_reports,
    wav,
    waveforms,
    write_result,
)

_FILES = 40
_DEMO = ("examples/corpus.csv", "examples/checkpoint")
# What the command says when a step begins → the step's name in the result.
_STEPS = {
    "loading libraries": "python",
    "loading the checkpoint": "imports",
    "listing the input": "checkpoint",
    "starting Ray": "listing and planning",
    "classifiers: ": "starting Ray",
}
_REPORT_STARTS = "loading the checkpoint"  # its times count from here
_LAST_ROW = "removing replaced rows"


def run(root: Path, corpus: str, checkpoint: str, output: Path) -> dict[str, float]:
    """Runs the command once; returns the seconds of each step, which add up to ``prompt``.

    Args:
        root: of the checkout whose command is run.
        corpus: for ``--input``.
        checkpoint: for ``--model``.
        output: a folder that is removed first.

    Raises:
        RuntimeError: the command failed.
    """
    shutil.rmtree(output, ignore_errors=True)
    before = time.time()
    with _command(root, corpus, checkpoint, output) as process:
        lines = [(time.time() - before, line) for line in process.stderr or ()]
    ended = time.time() - before
    if process.returncode:
        raise RuntimeError("".join(line for _, line in lines))
    (report_path,) = run_reports(output)
    report = json.loads(report_path.read_text())
    begins = [*_STEPS, _LAST_ROW]
    at = {begin: next(seconds for seconds, line in lines if begin in line) for begin in begins}
    first_row = at[_REPORT_STARTS] + report["seconds_to_first_row"]
    *ends, last_row = at.values()
    return {
        **dict(zip(_STEPS.values(), np.diff([0.0, *ends]).tolist(), strict=True)),
        "classifiers and the first block": first_row - ends[-1],
        "other rows": last_row - first_row,
        "end": ended - last_row,
        "first row": first_row,
        "prompt": ended,
    }


def _command(root: Path, corpus: str, checkpoint: str, output: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "jobs.label", "--input", corpus]
    command += ["--output", str(output), "--model", checkpoint]
    environment = os.environ | {"PYTHONPATH": str(root)}
    return subprocess.Popen(
        command, cwd=root, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
        text=True,
    )  # fmt: skip


def cpu_seconds(corpus: str, checkpoint: str, output: Path) -> dict[str, float]:
    """CPU seconds of each kind of process; a run of its own, as sampling takes time itself."""
    shutil.rmtree(output, ignore_errors=True)
    with _command(ROOT, corpus, checkpoint, output) as process, Watch(process.pid) as watch:
        process.communicate()
    return dict(sorted(watch.cpu_seconds.items(), key=lambda item: -item[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--against", type=Path, help="another checkout, whose command is run too")
    flags = parser.parse_args()
    roots = {"now": ROOT} | ({"before": flags.against} if flags.against else {})
    before, measured = machine(), dict[str, Any]()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        corpus = work / "corpus"
        corpus.mkdir()
        for number, waveform in enumerate(waveforms(lengths_of("casia", _FILES))):
            (corpus / f"{number}.wav").write_bytes(wav(waveform))
        full = str(corpus), full_checkpoint(work / "full")
        demo = (str(ROOT / _DEMO[0]), str(ROOT / _DEMO[1]))
        for name, (source, checkpoint) in {"full size": full, "demo": demo}.items():
            runs: dict[str, list[dict[str, float]]] = {side: [] for side in roots}
            for _ in range(flags.repeats):
                for side, root in roots.items():
                    runs[side].append(run(root, source, checkpoint, work / "output"))
            measured[name] = {
                side: {step: statistics.median(r[step] for r in of_side) for step in of_side[0]}
                for side, of_side in runs.items()
            }
            measured[name]["cpu_seconds"] = cpu_seconds(source, checkpoint, work / "output")
            print(name, json.dumps(measured[name], indent=1))
    write_result(
        "start-cpu",
        {"machine": before, "files": _FILES, "repeats": flags.repeats, "seconds": measured},
    )


if __name__ == "__main__":
    main()
