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
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import psutil
import pyarrow as pa
import ray

from benchmarks.measuring import machine, write_result
from ser_core.emotions import CASIA_LABELS
from ser_core.labeling import pipeline, rounds
from ser_core.labeling.label_store import LabelStore
from ser_core.labeling.packing import map_packed
from ser_core.labeling.progress import RunStats
from ser_core.labeling.resources import Resources
from ser_core.labeling.stages import StageSettings
from ser_core.schema import decoded_schema, embedding_field, in_schema, plan_schema, score_columns
from ser_core.storage.claim import Claim

_ROWS_PER_BLOCK = (64, 256, 512, 1024, 4096)
_GPUS = 16  # that Ray counts; a process for each
_ROWS = 500_000  # of a measurement, with the next two as limits
_BLOCKS = (200, 2000)
_WARM_UP = 0.1  # of the rows
_PART_SECONDS = 60.0
_EMBEDDING_SIZE = 768
_MANIFEST = pa.schema([("speaker", pa.string()), ("call", pa.int64()), ("line", pa.string())])


@dataclass(frozen=True)
class Form:
    """What is measured.

    Attributes:
        rows: of a block.
        manifest: the columns that rows have of a manifest.
        embedding_size: of their embeddings; None if they have none.
    """

    rows: int
    manifest: pa.Schema = field(default_factory=lambda: pa.schema([]))
    embedding_size: int | None = None

    @property
    def blocks(self) -> int:
        """How many there are."""
        fewest, most = _BLOCKS
        return min(most, max(fewest, _ROWS // self.rows))

    @property
    def stages(self) -> StageSettings:
        """The settings of its stages."""
        return StageSettings(CASIA_LABELS, self.manifest, self.embedding_size)


# ---- what lists, decodes and classifies in place of the job's own --------------------------------


def list_blocks(_: pa.Table, settings: Form) -> Iterator[pa.Table]:
    """Blocks of the plan."""
    index = np.arange(settings.rows)
    manifest = {field.name: pa.array(index).cast(field.type) for field in settings.manifest}
    for number in range(settings.blocks):
        uri = [f"s3://bucket/calls/{number:06}/{row:06}.wav" for row in range(settings.rows)]
        final = np.zeros(settings.rows, bool)
        ours = {"_index": index + number * settings.rows, "uri": uri, "file_id": uri, "_has_final": final}
        yield in_schema({**ours, **manifest}, plan_schema(settings.manifest))


def decode(rows: pa.Table, stages: StageSettings, *_: Any) -> Iterator[pa.Table]:
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
        yield in_schema(columns, decoded_schema(stages.manifest))

    yield from map_packed(decoded, rows)


class Classifier:
    """Takes the place of `ClassifierActor`."""

    def __init__(self, settings: StageSettings, *_: Any) -> None:
        self._settings = settings

    def __call__(self, rows: pa.Table) -> Iterator[pa.Table]:
        """Labelled blocks."""
        return map_packed(lambda decoded: [self.classify(decoded)], rows)

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
    """CPU seconds of the driver and of Ray's own processes, from a row on."""

    def __init__(self) -> None:
        self._services = [
            process
            for process in psutil.Process().children(recursive=True)
            if process.name() in ("raylet", "gcs_server")
        ]
        self.rows = self.blocks = 0
        self._began: dict[str, float] | None = None

    def count(self, tables: Iterator[pa.Table], warm_up: int) -> Iterator[pa.Table]:
        """Passes tables on, and counts them once so many rows have passed."""
        passed = 0
        for table in tables:
            yield table
            passed += len(table)
            if self._began is not None:
                self.rows, self.blocks = self.rows + len(table), self.blocks + 1
            elif passed >= warm_up:
                self._began = self._now()

    def result(self) -> dict[str, float]:
        """Since the first row that was counted."""
        assert self._began is not None
        spent = {name: now - self._began[name] for name, now in self._now().items()}
        return {"rows": self.rows, "blocks": self.blocks, **spent}

    def _now(self) -> dict[str, float]:
        times = [process.cpu_times() for process in self._services]
        return {
            "seconds": time.perf_counter(),
            "driver_cpu_seconds": time.process_time(),
            "loop_cpu_seconds": time.thread_time(),  # of finishing, in the driver's main thread
            "ray_services_cpu_seconds": sum(each.user + each.system for each in times),
        }


def measure(form: Form) -> dict[str, Any]:
    """Runs the pipeline and writes its rows."""
    resources = Resources(_GPUS, _GPUS, None, True, form.rows, 1.0, 1)
    starts: Any = None
    settings = pipeline.PipelineSettings(
        form.stages, None, None, "auto", None, resources, starts  # type: ignore[arg-type]
    )
    with tempfile.TemporaryDirectory() as output:
        store = LabelStore(output, CASIA_LABELS, form.manifest, form.embedding_size)
        config = SimpleNamespace(part_seconds=_PART_SECONDS, rows="recording", input=())
        run = SimpleNamespace(
            store=store, config=config, digest="0" * 16, checkpoint=SimpleNamespace(name="model")
        )
        meter, now = _Meter(), datetime.now(UTC)
        with store.claimed() as claim:
            labeling = rounds._Labeling(run, [], RunStats(), claim, now, None, True)
            labeled = pipeline.label_planned(pipeline.listed(1, form), settings)
            rounds._write(labeling, meter.count(labeled, int(_WARM_UP * _ROWS)), form.stages)
        assert labeling.stats.done == form.rows * form.blocks
        return meter.result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="*", default=_ROWS_PER_BLOCK, help="of a block")
    flags = parser.parse_args()
    forms = {f"{rows}": Form(rows) for rows in flags.rows}
    largest = max(flags.rows)
    forms["manifest"] = Form(largest, _MANIFEST)
    forms["embeddings"] = Form(largest, embedding_size=_EMBEDDING_SIZE)
    result: dict[str, Any] = {"machine": machine(), "forms": {}}
    ray.init(num_cpus=2, num_gpus=_GPUS, log_to_driver=False, include_dashboard=False)
    replaced = {"list_sources": list_blocks, "_decode": decode, "ClassifierActor": Classifier}
    with pipeline.connected(verbose=False), patch.multiple(pipeline, **replaced):
        for name, form in forms.items():
            result["forms"][name] = measure(form)
            print(name, json.dumps(result["forms"][name]), flush=True)
    write_result("driver-cpu", result)


if __name__ == "__main__":
    main()
