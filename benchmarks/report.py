"""Measures the time and the memory of a report on many labels."""

import argparse
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measuring import ROOT, Watch, casia_lengths, machine, write_result
from ser_core.schema import in_schema, output_schema, score_columns

_LABELS = ("angry", "fear", "happy", "neutral", "sad", "surprise")
_ROWS_PER_PART = 50_000
_SPEAKERS, _DAYS = 500, 30
_MANIFEST = pa.schema([("speaker", pa.string()), ("day", pa.string())])


def write_labels(folder: Path, num_rows: int, seed: int) -> None:
    """Writes rows as jobs.label would: 500 speakers, 30 days, one row in a hundred failed."""
    folder.mkdir()
    random = np.random.default_rng(seed)
    for part, start in enumerate(range(0, num_rows, _ROWS_PER_PART)):
        count = min(_ROWS_PER_PART, num_rows - start)
        rows = _rows(random, start, count)
        pq.write_table(rows, folder / f"part-{part:024x}.parquet", compression="zstd")


def _rows(random: np.random.Generator, start: int, count: int) -> pa.Table:
    scores = random.dirichlet(np.full(len(_LABELS), 0.5), count).astype(np.float32)
    failed = random.random(count) < 0.01
    best, numbers = scores.argmax(axis=1), range(start, start + count)
    speakers = random.integers(0, _SPEAKERS, count)
    days = random.integers(0, _DAYS, count)
    names = zip(days, speakers, numbers, strict=True)
    paths = [f"calls/{day:02}/{speaker:03}/{number:09}.wav" for day, speaker, number in names]
    columns: dict[str, Any] = {
        "path": paths,
        "uri": [f"s3://bucket/{path}" for path in paths],
        "file_id": [f"{number:032x}" for number in numbers],
        "duration": casia_lengths(count, start),
        "sampling_rate": pa.array(np.where(days == 0, 8_000, 16_000), pa.int32()),
        "label": pa.array(np.array(_LABELS, object)[best], mask=failed),
        "score": pa.array(scores.max(axis=1), mask=failed),
        **{
            name: pa.array(column, mask=failed)
            for name, column in zip(score_columns(_LABELS), scores.T, strict=True)
        },
        "status": np.where(failed, "decode_error", "ok").astype(object),
        "error": pa.array(np.full(count, "no decoder can read it", object), mask=~failed),
        "labeled_at": [datetime(2026, 11, 1, tzinfo=UTC) + timedelta(days=int(d)) for d in days],
        "speaker": [f"speaker {s}" for s in speakers],
        "day": [f"2026-11-{d + 1:02}" for d in days],
    }
    for name, value in (("model", "card"), ("model_digest", "0" * 32), ("precision", "bf16")):
        columns[name] = np.full(count, value, object)
    plain = pa.schema(
        [
            pa.field(f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type)
            for f in output_schema(_LABELS, _MANIFEST)
        ]
    )
    return in_schema(columns, plain).cast(output_schema(_LABELS, _MANIFEST))


def measure(folder: Path, output: Path, *flags: str) -> dict[str, float]:
    """Runs the command; recordings do not exist, so there is nothing to play.

    Raises:
        CalledProcessError: it failed.
    """
    command = [sys.executable, "-m", "jobs.report", "--labels", str(folder)]
    command += ["--output", str(output), "--no-audio", *flags]
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    with Watch(process.pid) as watch:
        code = process.wait()
    if code:
        raise subprocess.CalledProcessError(code, command)
    seconds = time.monotonic() - started
    return {"seconds": round(seconds, 1), "peak_mib": round(watch.peak_of_parent_mib or 0)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 10_000_000])
    parser.add_argument("--name", default="report-cpu", help="of the result")
    arguments = parser.parse_args()
    measured = []
    with tempfile.TemporaryDirectory() as temporary:
        for rows in arguments.rows:
            folder = Path(temporary) / f"labels-{rows}"
            write_labels(folder, rows, seed=0)
            report = measure(folder, Path(temporary) / f"report-{rows}")
            since = measure(folder, Path(temporary) / f"since-{rows}", "--since", "2026-11-30")
            measured.append({"rows": rows, "report": report, "with_since": since})
            print(measured[-1], file=sys.stderr)
    write_result(arguments.name, {"machine": machine(), "reports": measured})


if __name__ == "__main__":
    main()
