"""Counts what a report calls drift: corpora made different on purpose, and samples of one corpus.

EMO-DB is labelled with the demo's checkpoint as it is, at a quarter of its level, at 8 kHz, and
with another checkpoint. A speaker is taken out, and the corpus is divided into halves at random.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
import soxr

from benchmarks.measuring import ROOT, add_emodb_flag, machine, small_checkpoint, write_result
from ser_core.labeling.current_rows import open_labels
from ser_core.reporting.drift import Comparison, compare
from ser_core.reporting.label_table import LabelTable, database, load

_DRAWS = 100
_SPEAKER = "03"
_GAIN = 0.25  # -12 dB
_LOW_RATE = 8_000
Change = Callable[[np.ndarray, int], tuple[np.ndarray, int]]


def quieter(samples: np.ndarray, rate: int) -> tuple[np.ndarray, int]:
    """A quarter of the level."""
    return _GAIN * samples, rate


def at_low_rate(samples: np.ndarray, rate: int) -> tuple[np.ndarray, int]:
    """At 8 kHz."""
    return soxr.resample(samples, rate, _LOW_RATE), _LOW_RATE


def unchanged(samples: np.ndarray, rate: int) -> tuple[np.ndarray, int]:
    """As it is."""
    return samples, rate


def write_corpus(source: Path, folder: Path, change: Change) -> Path:
    """Writes changed recordings, and a manifest with their speakers; returns the manifest."""
    folder.mkdir()
    paths = sorted(source.glob("*.wav"))
    for path in paths:
        samples, rate = change(*soundfile.read(path, dtype="float32"))
        soundfile.write(folder / path.name, samples, rate, subtype="PCM_16")
    manifest = folder / "corpus.csv"
    table = {"path": [p.name for p in paths], "speaker": [f"speaker {p.name[:2]}" for p in paths]}
    pd.DataFrame(table).to_csv(manifest, index=False)
    return manifest


def label(manifest: Path, output: Path, checkpoint: str) -> None:
    """Labels a corpus.

    Raises:
        CalledProcessError: the job failed.
    """
    command = [sys.executable, "-m", "jobs.label", "--input", str(manifest)]
    command += ["--output", str(output), "--model", checkpoint, "--precision", "fp32"]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def drifted(comparisons: list[Comparison]) -> dict[str, str]:
    """What drifted, and how much."""
    return {c.name: f"{c.verdict}, PSI {c.psi:.2f}" for c in comparisons if c.verdict != "none"}


def false_alarms(table: LabelTable) -> int:
    """How many of so many pairs of random halves of a corpus are said to have drifted."""
    alarms = 0
    for draw in range(_DRAWS):
        drawn = f"hash(path || ' {draw}') % 2"
        half, other = (table.where(f"{drawn} = {n}", f"half_{draw}_{n}") for n in (0, 1))
        alarms += bool(drifted(compare(half, other)))
    return alarms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_emodb_flag(parser)
    arguments = parser.parse_args()
    demo = str(ROOT / "examples" / "checkpoint")
    with tempfile.TemporaryDirectory() as temporary, database() as connection:
        folder = Path(temporary)
        other = small_checkpoint(folder / "other-checkpoint")
        variants: dict[str, tuple[Change, str]] = {
            "as_it_is": (unchanged, demo),
            "quarter_of_the_level": (quieter, demo),
            "8_khz": (at_low_rate, demo),
            "another_checkpoint": (unchanged, other),
        }
        tables = {}
        for name, (change, checkpoint) in variants.items():
            manifest = write_corpus(arguments.data, folder / name, change)
            label(manifest, folder / f"labels_{name}", checkpoint)
            labels = open_labels(str(folder / f"labels_{name}"))
            tables[name] = load(connection, labels, f"labels_{name}")
        baseline = tables.pop("as_it_is")
        speaker = baseline.divisors["speaker"]
        without = baseline.where(f"{speaker} <> 'speaker {_SPEAKER}'", "without_a_speaker")
        tables["without_a_speaker"] = without
        result: dict[str, Any] = {
            "machine": machine(),
            "recordings": baseline.num_rows,
            "drift": {name: drifted(compare(baseline, table)) for name, table in tables.items()},
            "draws": _DRAWS,
            "false_alarms": false_alarms(baseline),
        }
    write_result("drift-emodb", result)


if __name__ == "__main__":
    main()
