"""The Ray Data pipeline: a plan through decoders and classifiers; it neither lists nor writes.

The driver reads the rows at the end of it. Two kinds of trouble are told apart there: a process
that died leaves its rows out, which the driver notices and sweeps again; a bug comes out as a row
with its traceback, and the driver stops.
"""

import logging
import math
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.util.annotations import RayDeprecationWarning

from ser_core.cluster import join
from ser_core.errors import RunError
from ser_core.labeling.stages import Blocks
from ser_core.schema import FAULT, SIZE

if TYPE_CHECKING:  # processes that only decode do without torch
    from ser_core.models.checkpoint import Checkpoint
    from ser_core.models.classifier import Precision

# On CPUs a classifier takes nearly its whole core and leaves the rest for decoding, which takes
# about a hundredth of the time. Different shares also keep Ray from fusing the two.
_CLASSIFIER_CPUS = 0.9
_DECODER_CPUS = 0.1
_CLASSIFIER_BYTES = 2 << 30  # of memory: the full-size model and one batch on a CPU, rounded up
# A decoding task whose process dies; it is left out then, and swept again. Ray Data's own default
# is to try for ever. Ray 2.64 takes this setting away: see the range in pyproject.toml.
_RETRIED_ONCE = {"max_retries": 1}
# Ray has no public word for how many GPUs an autoscaler may start, so the head node says it as a
# resource of this name: see cluster.yaml.
_GPU_POOL = "gpu_pool"
_RECORDINGS_PER_GPU = 20_000  # an H100 takes seconds for them, a machine to start takes minutes
_RECORDINGS_PER_CORE = 16  # likewise: one labels them in the seconds that its actor takes to start
# Each block costs the driver some 10 ms and 10 kB of its memory, so large corpora have large ones;
# but at the end of a run the others wait for whoever has the last one.
_BLOCKS_PER_WORKER = 50
_ROWS_PER_BLOCK = (64, 256)  # fewest and most: 25 and 100 MB if all are 6 s long
_ROWS_PER_BLOCK_ON_CPU = (8, 256)  # 8 are a few seconds of one core
# Of whole recordings, files of so many bytes: 8 minutes of 16-bit WAV, an hour or two of Opus.
_FILE_BYTES_PER_BLOCK = 16 << 20
_UNSEEN_FILE_BYTES = _FILE_BYTES_PER_BLOCK // 4  # of one whose size the store did not say
_ROWS_PER_CALL_ON_GPU = 512
_WHOLE_ROWS_PER_CALL_ON_GPU = 8  # 1.8 GB if all last an hour
_CALLS_ON_GPU = 2  # one's blocks are brought together while the other is classified, never both


@dataclass(frozen=True)
class Resources:
    """What a run uses of its cluster.

    Attributes:
        classifiers: how many actors hold the model.
        on_gpu: whether each has a GPU.
        rows_per_block: recordings decoded by one task.
    """

    classifiers: int
    on_gpu: bool
    rows_per_block: int


def connect(verbose: bool) -> None:
    """Joins Ray, and tells Ray Data how this project wants its failures.

    Raises:
        UsageError: nobody answers at the cluster's address.
    """
    join(verbose)
    context = DataContext.get_current()  # read when a dataset is made, ignored afterwards
    context.max_errored_blocks = -1  # what died is swept again; bugs come as rows
    context.enable_progress_bars = verbose
    context.print_on_execution_start = verbose
    if not verbose:
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        warnings.filterwarnings("ignore", category=RayDeprecationWarning)


def choose_resources(recordings: int) -> Resources:
    """All GPUs the cluster has or can start, as far as the recordings are worth it; else its CPUs.

    Args:
        recordings: how many there are to label.
    """
    present = ray.cluster_resources()
    cpus = max(1, int(present.get("CPU", 1)))
    gpus_present = int(present.get("GPU", 0))
    gpus = max(gpus_present, int(present.get(_GPU_POOL, 0)))
    if gpus:
        worth = max(gpus_present, math.ceil(recordings / _RECORDINGS_PER_GPU))
        classifiers = min(gpus, worth)
    else:
        worth = math.ceil(recordings / _RECORDINGS_PER_CORE)
        classifiers = min(cpus, worth, int(present.get("memory", 0) // _CLASSIFIER_BYTES))
    classifiers = max(1, classifiers)
    bounds = _ROWS_PER_BLOCK if gpus else _ROWS_PER_BLOCK_ON_CPU
    workers = cpus if gpus else classifiers
    return Resources(classifiers, bool(gpus), rows_per_block(recordings, workers, bounds))


def rows_per_block(recordings: int, workers: int, bounds: tuple[int, int]) -> int:
    """How many recordings one task decodes.

    Args:
        recordings: how many there are.
        workers: processes that share them.
        bounds: the fewest and the most; fewer where some workers would go without.

    >>> [rows_per_block(count, 2, (8, 256)) for count in (6, 100, 10_000, 1_000_000)]
    [1, 8, 100, 256]
    """
    fewest, most = bounds
    rows = min(most, max(fewest, recordings // (_BLOCKS_PER_WORKER * workers)))
    return max(1, min(rows, math.ceil(recordings / (4 * workers))))


def cut(plan: list[pa.Table], rows: int, whole: bool) -> list[pa.Table]:
    """The plan in blocks.

    Args:
        plan: tables of ``plan_schema``.
        rows: of one block at most.
        whole: whether recordings are decoded to their end; a block's files then have few bytes.
    """
    pieces = plan
    if whole:
        pieces = [piece for table in plan for piece in _cut_by_bytes(table)]
    return [piece.slice(at, rows) for piece in pieces for at in range(0, len(piece), rows)]


def _cut_by_bytes(table: pa.Table) -> Iterator[pa.Table]:
    sizes = table[SIZE.name].fill_null(_UNSEEN_FILE_BYTES).to_numpy()
    piece_of = sizes.cumsum() // _FILE_BYTES_PER_BLOCK
    starts = np.flatnonzero(np.diff(piece_of, prepend=-1))
    for start, end in pairwise([*starts, len(table)]):
        yield table.slice(start, end - start)


@dataclass(frozen=True)
class Pipeline:
    """How a run's blocks are computed.

    Attributes:
        blocks: what is done to each.
        checkpoint: in the object store, which brings it to each node once.
        precision: as the user asked for.
        batch_size: segments per forward pass, or None.
        resources: what it may use.
    """

    blocks: Blocks
    checkpoint: "ray.ObjectRef[Checkpoint]"
    precision: "Precision"
    batch_size: int | None
    resources: Resources

    @classmethod
    def start(
        cls,
        blocks: Blocks,
        checkpoint: "Checkpoint",
        precision: "Precision",
        batch_size: int | None,
        resources: Resources,
    ) -> Self:
        """Puts the checkpoint where every actor finds it."""
        return cls(blocks, ray.put(checkpoint), precision, batch_size, resources)

    def run(self, plan: list[pa.Table], rows_per_block: int | None = None) -> Iterator[pa.Table]:
        """The plan's rows, labelled (``labeled_schema``), as they come and in no order.

        Args:
            plan: tables of ``plan_schema``.
            rows_per_block: recordings decoded by one task, if other than the resources say.

        Raises:
            RunError: the code met a bug or the model does not run.
        """
        dataset = self._dataset(plan, rows_per_block or self.resources.rows_per_block)
        for table in dataset.iter_batches(
            batch_size=None,
            batch_format="pyarrow",
            prefetch_batches=0,  # else each block waits here until the next one is done
        ):
            faults = table[FAULT.name].drop_null()
            if len(faults):
                raise RunError(f"a bug, not a bad recording, stopped the run:\n{faults[0].as_py()}")
            yield table

    def _dataset(self, plan: list[pa.Table], rows: int) -> ray.data.Dataset:
        if self.resources.on_gpu:
            decoder: dict[str, Any] = _RETRIED_ONCE | {"num_cpus": 1}
            classifier: dict[str, Any] = {"num_gpus": 1, "num_cpus": 0}
            rows_per_call, calls, num_threads = _ROWS_PER_CALL_ON_GPU, _CALLS_ON_GPU, None
            if self.blocks.whole:
                rows_per_call = _WHOLE_ROWS_PER_CALL_ON_GPU
        else:
            decoder = _RETRIED_ONCE | {"num_cpus": _DECODER_CPUS}
            classifier = {"num_cpus": _CLASSIFIER_CPUS}
            rows_per_call, calls, num_threads = None, 1, 1  # a block at a time
        # Cut here: Ray Data's own repartition asks for a whole core, which classifiers may hold.
        # `from_arrow` runs a task for each block just to count its rows.
        return (
            ray.data.from_blocks(cut(plan, rows, self.blocks.whole))
            .map_batches(
                _decode,
                fn_args=(self.blocks,),
                batch_format="pyarrow",
                batch_size=None,  # a block
                **decoder,
            )
            .map_batches(
                _Classify,
                fn_constructor_args=(self, num_threads),
                batch_format="pyarrow",
                batch_size=rows_per_call,
                compute=ActorPoolStrategy(
                    size=self.resources.classifiers, max_concurrent_calls_per_actor=calls
                ),
                **classifier,
            )
        )


def _decode(planned: pa.Table, blocks: Blocks) -> pa.Table:
    return _with_bugs_as_rows(blocks, blocks.decode, planned)


class _Classify:
    """The actor: one checkpoint on one GPU, or on one core."""

    def __init__(self, pipeline: Pipeline, num_threads: int | None) -> None:
        from ser_core.models.classifier import Classifier

        self._blocks = pipeline.blocks
        self._classifier = Classifier(
            ray.get(pipeline.checkpoint), pipeline.precision, pipeline.batch_size, num_threads
        )
        self._idle_since: float | None = None  # the first block's wait is the pipeline's start

    def __call__(self, decoded: pa.Table) -> pa.Table:
        if decoded[FAULT.name].null_count < len(decoded):
            return self._blocks.with_fault(decoded, decoded[FAULT.name].drop_null()[0].as_py())
        now = time.perf_counter()
        work = partial(
            self._blocks.classify,
            scorer=self._classifier,
            idle_seconds=now - (self._idle_since or now),
        )
        labeled = _with_bugs_as_rows(self._blocks, work, decoded)
        self._idle_since = time.perf_counter()
        return labeled


def _with_bugs_as_rows(
    blocks: Blocks, work: Callable[[pa.Table], pa.Table], block: pa.Table
) -> pa.Table:
    """The work's result, or its traceback: as an exception, Ray would drop it with the block."""
    try:
        return work(block)
    except Exception:
        return blocks.with_fault(block, traceback.format_exc())
