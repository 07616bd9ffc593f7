"""The Ray Data pipeline: a plan through decoders and classifiers; it neither lists nor writes.

The driver reads the rows at its end and tells two kinds of failure apart: a process that died
leaves its rows out, which the driver notices and runs again; a bug comes out as a row with its
traceback, and the driver stops.
"""

import logging
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.util.annotations import RayDeprecationWarning

from ser_core import cluster
from ser_core.console import say
from ser_core.errors import RunError, Status
from ser_core.labeling.plan import Plan, cut_into_blocks
from ser_core.labeling.resources import Resources
from ser_core.labeling.stages import (
    StageSettings,
    block_with_bug,
    classify_block,
    decode_block,
    failed_rows,
)
from ser_core.schema import BUG, INDEX
from ser_core.settings import Precision

if TYPE_CHECKING:  # processes that only decode do without torch
    from ser_core.models.checkpoint import Checkpoint

# On CPUs a classifier takes nearly its whole core and leaves the rest for decoding, which takes
# about a hundredth of the time. Different shares also keep Ray from fusing the two.
_CLASSIFIER_CPUS = 0.9
_DECODER_CPUS = 0.1
# A decoding task whose process dies; its rows are left out then and run again. Ray Data's default
# is to retry for ever. Ray 2.64 removes this setting: see the range in pyproject.toml.
_RETRIED_ONCE = {"max_retries": 1}
_ROWS_PER_CALL_ON_GPU = 512
_WHOLE_ROWS_PER_CALL_ON_GPU = 8  # 1.8 GB if all last an hour
_CALLS_ON_GPU = 2  # one call fetches its blocks while the other classifies
_CRASHED = "decoding crashed the worker process, even in isolation"


@dataclass(frozen=True)
class PipelineSettings:
    """How the blocks of a run are computed.

    Attributes:
        stages: what is done to each.
        checkpoint: in Ray's object store, from `share`.
        precision: as the user asked for.
        batch_size: segments per forward pass, or None to choose for the hardware.
        resources: what the run may use.
    """

    stages: StageSettings
    checkpoint: "ray.ObjectRef[Checkpoint]"
    precision: Precision
    batch_size: int | None
    resources: Resources


def connect(verbose: bool) -> None:
    """Joins Ray and sets how Ray Data treats failures.

    Raises:
        UsageError: no cluster answers at its address.
    """
    cluster.join(verbose)
    context = DataContext.get_current()  # read when a dataset is made, ignored afterwards
    context.max_errored_blocks = -1  # lost rows are run again; bugs come as rows
    context.enable_progress_bars = verbose
    context.print_on_execution_start = verbose
    if not verbose:
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        warnings.filterwarnings("ignore", category=RayDeprecationWarning)


def share(checkpoint: "Checkpoint") -> "ray.ObjectRef[Checkpoint]":
    """Puts a checkpoint into Ray's object store, which brings it to each node once."""
    return ray.put(checkpoint)


def label_plan(plan: Plan, settings: PipelineSettings) -> Iterator[pa.Table]:
    """A row (``labeled_schema``) for everything planned, in no particular order.

    What a dying process takes with it is run again, each recording alone.

    Raises:
        RunError: our code met a bug, or the model does not run.
    """
    seen = np.zeros(plan.to_do, bool)
    for labeled in _run(plan.tables, settings, settings.resources.rows_per_block):
        seen[labeled[INDEX.name].to_numpy()] = True
        yield labeled
    if seen.all():
        return
    say(f"{(~seen).sum():,} recordings were lost with a worker process; retrying each one alone")
    for labeled in _run(plan.left_out(seen), settings, rows_per_block=1):
        seen[labeled[INDEX.name].to_numpy()] = True
        yield labeled
    for planned in plan.left_out(seen):
        yield failed_rows(planned, settings.stages, Status.CRASHED, _CRASHED)


def _run(
    plan: list[pa.Table], settings: PipelineSettings, rows_per_block: int
) -> Iterator[pa.Table]:
    for table in _dataset(plan, settings, rows_per_block).iter_batches(
        batch_size=None,
        batch_format="pyarrow",
        prefetch_batches=0,  # otherwise each block waits until the next one is done
    ):
        bugs = table[BUG.name].drop_null()
        if len(bugs):
            raise RunError(f"a bug, not a bad recording, stopped the run:\n{bugs[0].as_py()}")
        yield table


def _dataset(
    plan: list[pa.Table], settings: PipelineSettings, rows_per_block: int
) -> ray.data.Dataset:
    whole = settings.stages.segments == "all"
    if settings.resources.on_gpu:
        decoder: dict[str, Any] = _RETRIED_ONCE | {"num_cpus": 1}
        classifier: dict[str, Any] = {"num_gpus": 1, "num_cpus": 0}
        rows_per_call, calls, num_threads = _ROWS_PER_CALL_ON_GPU, _CALLS_ON_GPU, None
        if whole:
            rows_per_call = _WHOLE_ROWS_PER_CALL_ON_GPU
    else:
        decoder = _RETRIED_ONCE | {"num_cpus": _DECODER_CPUS}
        classifier = {"num_cpus": _CLASSIFIER_CPUS}
        rows_per_call, calls, num_threads = None, 1, 1  # a block at a time
    pool = ActorPoolStrategy(
        size=settings.resources.classifiers, max_concurrent_calls_per_actor=calls
    )
    # Cut here: Ray Data's own repartition asks for a whole core, which classifiers may hold.
    # `from_arrow` runs a task for each block just to count its rows.
    return (
        ray.data.from_blocks(cut_into_blocks(plan, rows_per_block, whole))
        .map_batches(
            _decode,
            fn_args=(settings.stages,),
            batch_format="pyarrow",
            batch_size=None,  # a block
            **decoder,
        )
        .map_batches(
            _Classify,
            fn_constructor_args=(settings, num_threads),
            batch_format="pyarrow",
            batch_size=rows_per_call,
            compute=pool,
            **classifier,
        )
    )


def _decode(planned: pa.Table, settings: StageSettings) -> pa.Table:
    return _with_bug_as_rows(partial(decode_block, settings=settings), planned, settings)


class _Classify:
    """The actor: one checkpoint on one GPU, or on one core."""

    def __init__(self, settings: PipelineSettings, num_threads: int | None) -> None:
        from ser_core.models.classifier import Classifier

        self._settings = settings.stages
        self._classifier = Classifier(
            ray.get(settings.checkpoint), settings.precision, settings.batch_size, num_threads
        )
        self._idle_since: float | None = None  # the first block's wait is the pipeline's start

    def __call__(self, decoded: pa.Table) -> pa.Table:
        if decoded[BUG.name].null_count < len(decoded):
            bug = decoded[BUG.name].drop_null()[0].as_py()
            return block_with_bug(decoded, self._settings, bug)
        now = time.perf_counter()
        classify = partial(
            classify_block,
            settings=self._settings,
            scorer=self._classifier,
            idle_seconds=now - (self._idle_since or now),
        )
        labeled = _with_bug_as_rows(classify, decoded, self._settings)
        self._idle_since = time.perf_counter()
        return labeled


def _with_bug_as_rows(
    stage: Callable[[pa.Table], pa.Table], block: pa.Table, settings: StageSettings
) -> pa.Table:
    """The stage's result, or its traceback: Ray would drop an exception with the block."""
    try:
        return stage(block)
    except Exception:
        return block_with_bug(block, settings, traceback.format_exc())
