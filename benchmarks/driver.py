"""Measures what one driver takes of a core, for each block and each row, without audio or network.

The job's own pipeline runs, from listing to parts, but what lists, decodes and classifies returns
ready rows. These processes compete with the driver for cores, so that its CPU time is measured: a
driver that has one core for all of its threads takes so many rows per second.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import psutil
import pyarrow as pa
import ray

from benchmarks.measuring import machine, write_result
from ser_core.audio.constants import SEGMENT_SAMPLES
from ser_core.emotions import CASIA_LABELS
from ser_core.labeling import pipeline, rounds
from ser_core.labeling.classifier_actor import ClassifierActor
from ser_core.labeling.label_store import LabelStore
from ser_core.labeling.packing import map_packed
from ser_core.labeling.progress import RunStats
from ser_core.labeling.resources import Resources
from ser_core.labeling.stages import StageSettings
from ser_core.schema import decoded_schema, embedding_field, in_schema, plan_schema, score_columns

_BLOCKS = (40, 500)  # fewest and most of a measurement
_WARM_UP = 0.1  # of the rows
_BYTES_PER_WINDOW = 2 * SEGMENT_SAMPLES
_EMBEDDING_SIZE = 768
_MANIFEST = pa.schema([("speaker", pa.string()), ("call", pa.int64()), ("line", pa.string())])


@dataclass(frozen=True)
class Form:
    """What is measured.

    Attributes:
        rows: of a block of the plan, which one task decodes.
        table: windows in a table that it passes on.
        tables_per_call: that a classifier gets at once.
        manifest: the columns that rows have of a manifest.
        embedding_size: of their embeddings; None if they have none.
    """

    rows: int
    table: int = 512
    tables_per_call: int = 1
    manifest: pa.Schema = field(default_factory=lambda: pa.schema([]))
    embedding_size: int | None = None

    @property
    def stages(self) -> StageSettings:
        """The settings of its stages."""
        return StageSettings(CASIA_LABELS, self.manifest, self.embedding_size)


# Full windows of 16 bits come in tables of 512, of 32 bits in tables of 256.
FORMS = {
    "blocks of 64": Form(64),
    "blocks of 256": Form(256),
    "blocks of 1,024": Form(1024),
    "blocks of 1,024, calls of 4": Form(1024, tables_per_call=4),
    "blocks of 5,000": Form(5000),
    "blocks of 5,000, calls of 4": Form(5000, tables_per_call=4),
    "the same in 32 bits": Form(5000, 256, 4),
    "with a manifest": Form(5000, tables_per_call=4, manifest=_MANIFEST),
    "with embeddings": Form(5000, tables_per_call=4, embedding_size=_EMBEDDING_SIZE),
}


# ---- what lists, decodes and classifies in place of the job's own --------------------------------


def list_blocks(_: pa.Table, settings: tuple[Form, int]) -> Iterator[pa.Table]:
    """So many blocks of the plan."""
    form, blocks = settings
    manifest = {each.name: pa.array(range(form.rows)).cast(each.type) for each in form.manifest}
    for number in range(blocks):
        uri = [f"s3://bucket/calls/{number:06}/{row:06}.wav" for row in range(form.rows)]
        ours = {
            "_index": np.arange(form.rows) + number * form.rows,
            "_has_final": np.zeros(form.rows, bool),
            "uri": uri,
            "file_id": uri,
        }
        yield in_schema({**ours, **manifest}, plan_schema(form.manifest))


def decode(rows: pa.Table, stages: StageSettings, _: Any, num_bytes: int) -> Iterator[pa.Table]:
    """Decoded blocks, each recording 6 s long, without waveforms."""

    def decoded(planned: pa.Table) -> Iterator[pa.Table]:
        count = len(planned)
        number = np.random.default_rng(int(planned["_index"][0].as_py())).random(count)
        columns = {name: planned[name] for name in planned.column_names} | {
            "path": planned["uri"],
            "start": np.zeros(count),
            "end": np.full(count, 6.0),
            "duration": 6 + number,
            "sampling_rate": np.full(count, 16_000),
            **dict.fromkeys(("speech", "rms_db", "peak", "level_range_db"), number),
            "clipped_share": np.zeros(count),
            **dict.fromkeys(("_fetch_seconds", "_decode_seconds"), number),
            "status": ["ok"] * count,
            "quality": ["quiet" if each < 0.1 else "" for each in number],
            "_num_rows": np.ones(count, np.int64),
        }
        table = in_schema(columns, decoded_schema(stages.manifest))
        size = num_bytes // _BYTES_PER_WINDOW
        for start in range(0, count, size):
            yield table.slice(start, size)

    yield from map_packed(decoded, rows)


class Classifier(ClassifierActor):
    """An actor without a network."""

    def __init__(self, settings: StageSettings, *_: Any) -> None:
        self._settings = settings

    def classify(self, decoded: pa.Table) -> pa.Table:
        """The rows with scores, and embeddings if the run has them."""
        count, size = len(decoded), self._settings.embedding_size
        number = np.random.default_rng(int(decoded["_index"][0].as_py()))
        scores = number.dirichlet(np.ones(len(CASIA_LABELS)), count).astype(np.float32)
        seconds = np.full(count, 1e-3)
        columns = {name: decoded[name] for name in decoded.column_names} | {
            **dict(zip(score_columns(CASIA_LABELS), scores.T, strict=True)),
            "precision": ["bf16"] * count,
            **{f"_{stage}_seconds": seconds for stage in ("idle", "transfer", "compute")},
            "_device": ["NVIDIA H100 bf16"] * count,
        }
        if size is not None:
            values = pa.array(number.random(count * size).astype(np.float16))
            columns["embedding"] = pa.FixedSizeListArray.from_arrays(
                values, type=embedding_field(size).type
            )
        return in_schema(columns, self._settings.labeled_schema)


# ---- measuring -----------------------------------------------------------------------------------


class _Meter:
    """CPU seconds of the driver and of Ray's own processes, while rows pass."""

    def __init__(self) -> None:
        children = psutil.Process().children(recursive=True)
        self._services = [each for each in children if each.name() in ("raylet", "gcs_server")]
        self._began: dict[str, float] = {}
        self._rows = self._blocks = 0

    def count(self, tables: Iterator[pa.Table], warm_up: int) -> Iterator[pa.Table]:
        """Passes tables on, and counts them once so many rows have passed."""
        passed = 0
        for table in tables:
            yield table
            passed += len(table)
            if self._began:
                self._rows, self._blocks = self._rows + len(table), self._blocks + 1
            elif passed >= warm_up:
                self._began = self._now()

    def result(self) -> dict[str, float]:
        """Since the first row that was counted."""
        spent = {name: now - self._began[name] for name, now in self._now().items()}
        return {
            "rows": self._rows,
            "rows_per_block": self._rows / self._blocks,
            "driver_rows_per_core_second": self._rows / spent["driver_cpu_seconds"],
            **spent,
        }

    def _now(self) -> dict[str, float]:
        times = [process.cpu_times() for process in self._services]
        return {
            "seconds": time.perf_counter(),
            "driver_cpu_seconds": time.process_time(),
            "main_thread_cpu_seconds": time.thread_time(),  # of that: taking blocks, finishing
            "ray_services_cpu_seconds": sum(each.user + each.system for each in times),
        }


def measure(form: Form, gpus: int, rows: int) -> dict[str, Any]:
    """Runs the pipeline and writes its rows."""
    blocks = int(np.clip(rows // form.rows, *_BLOCKS))
    resources = Resources(gpus, gpus, None, True, form.rows, None, form.tables_per_call, 1.0, 1)
    none: Any = None
    settings = pipeline.PipelineSettings(form.stages, none, none, "auto", None, resources, none)
    store_settings = (CASIA_LABELS, form.manifest, form.embedding_size)
    with tempfile.TemporaryDirectory() as output:
        store = LabelStore(output, *store_settings)
        config: Any = SimpleNamespace(part_seconds=60.0, rows="recording", input=())
        checkpoint: Any = SimpleNamespace(name="model")
        run: Any = SimpleNamespace(
            store=store, config=config, checkpoint=checkpoint, digest="0" * 16
        )
        meter, now = _Meter(), datetime.now(UTC)
        planned = pipeline.listed(1, (form, blocks))  # type: ignore[arg-type]
        with (
            store.claimed() as claim,
            patch.object(pipeline, "_BYTES_PER_TABLE_ON_GPU", form.table * _BYTES_PER_WINDOW),
        ):
            labeling = rounds._Labeling(run, [], RunStats(), claim, now, None, True)
            labeled = pipeline.label_planned(planned, settings)
            rounds._write(
                labeling, meter.count(labeled, int(_WARM_UP * blocks * form.rows)), form.stages
            )
    assert labeling.stats.done == form.rows * blocks
    return meter.result()


def loop_seconds() -> float:
    """What ten million steps of a Python loop take: other work on a machine slows them down."""
    started = time.process_time()
    for _ in range(10_000_000):
        pass
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=400_000, help="of each measurement")
    parser.add_argument("--cpus", type=int, default=2, help="that Ray counts")
    parser.add_argument("--gpus", type=int, default=4, help="that Ray counts, a process for each")
    flags = parser.parse_args()
    replaced: dict[str, Any] = {
        "list_sources": list_blocks,
        "_decode": decode,
        "ClassifierActor": Classifier,
    }
    result: dict[str, Any] = {"machine": machine(), "gpus": flags.gpus, "cpus": flags.cpus}
    result["forms"] = {}
    ray.init(num_cpus=flags.cpus, num_gpus=flags.gpus, log_to_driver=False, include_dashboard=False)
    with pipeline.connected(verbose=False), patch.multiple(pipeline, **replaced):
        for name, form in FORMS.items():
            before = loop_seconds()
            measured = measure(form, flags.gpus, flags.rows)
            measured["loop_seconds"] = [before, loop_seconds()]
            result["forms"][name] = measured
            print(name, json.dumps(measured), flush=True)
    write_result("driver-cpu", result)


if __name__ == "__main__":
    main()
