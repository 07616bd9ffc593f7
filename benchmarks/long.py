"""Measures the memory of all processes while one long recording is labelled by segment.

The network is small, so that hours pass in a minute: what a long recording takes beyond that is
what decoding, Ray and the driver take.
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
import pyarrow.parquet as pq
import soundfile

from benchmarks.measuring import (
    ROOT,
    Watch,
    full_checkpoint,
    machine,
    run_reports,
    waveforms,
    write_result,
)

RATE = 16_000


def write_recording(path: Path, hours: float) -> None:
    """Synthetic voices one after another, as FLAC."""
    minute = np.concatenate(waveforms(np.full(20, 3.0)))
    with soundfile.SoundFile(path, "w", RATE, 1) as file:
        for _ in range(round(hours * 60)):
            file.write(minute)


def measure(recording: Path, output: Path, checkpoint: str) -> dict[str, Any]:
    """Labels a recording by segment, and counts the rows."""
    command = [sys.executable, "-m", "jobs.label", "--input", str(recording)]
    command += ["--output", str(output), "--model", checkpoint, "--rows", "segment"]
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT)
    with Watch(process.pid) as watch:
        code = process.wait()
    if code:
        raise RuntimeError(f"the job ended with {code}")
    (report,) = (json.loads(path.read_text()) for path in run_reports(output))
    rows = pq.read_table(output, columns=["start", "end", "status"])
    return {
        "seconds": time.monotonic() - started,
        "rows": len(rows),
        "last_end": max(rows["end"].to_pylist()),
        "by_status": report["by_status"],
        "peak_mib_of_all_processes": watch.peak_mib,
        "peak_mib_of_driver": watch.peak_of_parent_mib,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, nargs="+", default=[0.02, 1, 10])
    parser.add_argument("--full", action="store_true", help="the full-size network")
    flags = parser.parse_args()
    before, results = machine(), {}
    with tempfile.TemporaryDirectory() as work:
        checkpoint = str(ROOT / "examples" / "checkpoint")
        if flags.full:
            checkpoint = full_checkpoint(Path(work, "checkpoint"))
        for hours in flags.hours:
            recording = Path(work, f"{hours:g}.flac")
            write_recording(recording, hours)
            results[f"{hours:g}"] = measure(recording, Path(work, f"{hours:g}"), checkpoint)
            print(hours, results[f"{hours:g}"], flush=True)
    network = "full-size" if flags.full else "examples/checkpoint"
    name = "long-cpu-full" if flags.full else "long-cpu"
    write_result(name, {"machine": before, "network": network, "by_hours": results})


if __name__ == "__main__":
    main()
