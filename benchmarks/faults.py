"""Measures what recordings that crash their decoder cost the other recordings of a corpus."""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import soundfile

from benchmarks.measuring import ROOT, machine, small_checkpoint, waveforms, write_result
from benchmarks.scale import make_corpus

# On the PYTHONPATH of the jobs: it makes soundfile fail at certain sampling rates.
_SABOTAGE = ROOT / "tests" / "chaos" / "sabotage"
_CRASHING_RATE = 16_002  # Hz


def make_crash(corpus: Path, crashing: int) -> None:
    """Replaces so many recordings of a corpus, evenly spread, with ones that crash."""
    paths = sorted(corpus.rglob("*.wav"))
    for path in paths[:: len(paths) // crashing][:crashing] if crashing else []:
        path.unlink()  # a hard link to a recording that is still needed
        soundfile.write(path, waveforms([0.3])[0], _CRASHING_RATE, subtype="PCM_16")


def run_job(corpus: Path, output: Path, checkpoint: str) -> tuple[float, dict[str, int]]:
    """Runs the command; returns its duration in seconds, and the number of rows by status.

    Raises:
        RuntimeError: the job failed; the message is its output.
    """
    command = [sys.executable, "-m", "jobs.label", "--input", str(corpus)]
    command += ["--output", str(output), "--model", checkpoint]
    environment = os.environ | {"PYTHONPATH": str(_SABOTAGE)}
    started = time.perf_counter()
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(done.stderr)
    return seconds, dict(Counter(pd.read_parquet(output, columns=["status"])["status"]))


def measure(recordings: int, crashing: int, repeats: int, work: Path) -> dict[str, Any]:
    """Runs the job on a good corpus and on one with faults, in turns."""
    checkpoint = small_checkpoint(work / "small")
    seconds: dict[int, list[float]] = {0: [], crashing: []}
    for count in seconds:
        make_corpus(work / f"corpus-{count}", recordings)
        make_crash(work / f"corpus-{count}", count)
    for repeat in range(repeats):
        for count, durations in seconds.items():
            output = work / f"labels-{count}-{repeat}"
            duration, by_status = run_job(work / f"corpus-{count}", output, checkpoint)
            assert by_status.get("crashed", 0) == count, by_status
            durations.append(duration)
    good, bad = (statistics.median(durations) for durations in seconds.values())
    return {
        "recordings": recordings,
        "crashing": crashing,
        "seconds_without": [round(each, 2) for each in seconds[0]],
        "seconds_with": [round(each, 2) for each in seconds[crashing]],
        "more_time": round(bad / good - 1, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=int, default=1000)
    parser.add_argument("--crashing", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--name", default="faults-cpu", help="of the result")
    flags = parser.parse_args()
    machine_before = machine()
    with tempfile.TemporaryDirectory() as work:
        result = measure(flags.recordings, flags.crashing, flags.repeats, Path(work))
    write_result(flags.name, {"machine": machine_before, **result})


if __name__ == "__main__":
    main()
