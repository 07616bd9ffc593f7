"""The Ray Data pipeline: a plan through decoders and classifiers; it neither lists nor writes.

The driver reads the rows at its end and tells two kinds of failure apart: a process that died
leaves its rows out, which the driver notices and runs again; a reason to stop the run, such as a
bug, comes out as a column of its rows.
"""

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, ExecutionResources
from ray.exceptions import GetTimeoutError, RayError
from ray.util.annotations import RayDeprecationWarning

from ser_core import cluster
from ser_core.console import say
from ser_core.errors import RunError, Status, one_line
from ser_core.labeling.assembly import Assembly
from ser_core.labeling.classifier_actor import ClassifierActor, StartCounter
from ser_core.labeling.plan import Plan, cut_into_blocks
from ser_core.labeling.resources import Resources
from ser_core.labeling.stages import (
    StageSettings,
    decode_block,
    failed_rows,
    reason_to_stop,
    run_stage,
)
from ser_core.schema import INDEX
from ser_core.settings import Precision
from ser_core.sources.decoder import Decoder, DecoderSettings
from ser_core.versions import installed_version

if TYPE_CHECKING:  # processes that only decode do without torch
    from ser_core.models.checkpoint import Checkpoint
    from ser_core.models.classifier import Classifier

# On CPUs a classifier takes nearly its whole core and leaves the rest for decoding, which takes
# about a hundredth of the time. Different shares also keep Ray from fusing the two.
_CLASSIFIER_CPUS = 0.9
_DECODER_CPUS = 0.1
# A decoding task whose process dies; its rows are left out then and run again. Ray Data's default
# is to retry for ever. Ray 2.64 removes this setting: see the range in pyproject.toml.
_RETRIED_ONCE = {"max_retries": 1}
_SEGMENTS_PER_CALL_ON_GPU = 512
# Decoded segments are passed on in tables of this size, so that several classifiers share a long
# recording: 85 full segments of 16 bits, some 20 s of one core.
_BYTES_PER_TABLE = 16 << 20
_BYTES_PER_TABLE_ON_GPU = 64 << 20
_TABLES_PER_CLASSIFIER = 4  # on a CPU, that wait in the object store
_CALLS_ON_GPU = 2  # one call fetches its blocks while the other classifies
_SMALLER = 8  # what was lost runs again in blocks smaller by this factor, down to one recording
_START_SECONDS = 300.0  # for one process to start on the cluster
_LOST = "its process died each time, even when it ran alone"


@dataclass(frozen=True)
class PipelineSettings:
    """How the blocks of a run are computed.

    Attributes:
        stages: what all blocks have in common.
        decoder: how recordings are decoded.
        checkpoint: in Ray's object store, from `share`.
        precision: as the user asked for.
        batch_size: segments per forward pass, or None to choose for the hardware.
        resources: what the run may use.
    """

    stages: StageSettings
    decoder: DecoderSettings
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
    context.max_consecutive_actor_init_deaths = -1  # `StartCounter` says when it is enough
    context.enable_progress_bars = verbose
    context.print_on_execution_start = verbose
    if not verbose:
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        warnings.filterwarnings("ignore", category=RayDeprecationWarning)


def share(checkpoint: "Checkpoint") -> "ray.ObjectRef[Checkpoint]":
    """Puts a checkpoint into Ray's object store, which brings it to each node once."""
    return ray.put(checkpoint)


def label_plan(plan: Plan, settings: PipelineSettings) -> Iterator[pa.Table]:
    """The rows (``labeled_schema``) of everything planned, those of a recording together.

    What a dying process takes with it runs again, in ever smaller blocks, and is `unavailable` if
    it is lost even alone: a classifier that dies says nothing about a recording's content.

    Raises:
        RunError: a bug, no classifier runs, or Ray failed.
    """
    seen = np.zeros(plan.to_do, bool)
    rows_per_block, rounds = settings.resources.rows_per_block, 0
    # At least twice: what is lost once may have been lost with its neighbours, or its machine.
    while not seen.all() and (rounds < 2 or rows_per_block > 1):
        if rounds:
            rows_per_block = max(1, rows_per_block // _SMALLER)
            lost = np.count_nonzero(~seen)
            how = f"retrying in blocks of {rows_per_block}"
            say(f"{lost:,} recordings were lost with a process; {how}")
        planned = plan.left_out(seen) if rounds else plan.tables
        blocks = cut_into_blocks(
            planned, rows_per_block, settings.decoder.how.whole, anywhere=rounds > 0
        )
        assembly = Assembly()
        for segments in _run(blocks, settings):
            labeled = assembly.add(segments)
            seen[labeled[INDEX.name].to_numpy()] = True
            yield labeled
        rounds += 1
    if not seen.any():
        raise RunError("all recordings were lost with the processes that worked on them")
    for planned in plan.left_out(seen):
        yield failed_rows(planned, settings.stages, Status.UNAVAILABLE, _LOST)


def _run(blocks: list[pa.Table], settings: PipelineSettings) -> Iterator[pa.Table]:
    try:
        batches = _dataset(blocks, settings).iter_batches(
            batch_size=None,
            batch_format="pyarrow",
            prefetch_batches=0,  # otherwise each block waits until the next one is done
        )
        for labeled in batches:
            if reason := reason_to_stop(labeled):
                summary, _, details = reason.partition("\n")
                if details:
                    say(details)
                raise RunError(summary)
            yield labeled
    except RayError as error:
        last_line = str(error).strip().splitlines()[-1:]  # what was raised first
        reason = one_line(*last_line) if last_line else repr(error)
        raise RunError(f"Ray stopped the run ({reason})") from error


def _dataset(blocks: list[pa.Table], settings: PipelineSettings) -> ray.data.Dataset:
    classifiers = settings.resources.classifiers
    context = DataContext.get_current()
    on_gpu = settings.resources.on_gpu
    context.target_max_block_size = _BYTES_PER_TABLE_ON_GPU if on_gpu else _BYTES_PER_TABLE
    if on_gpu:
        decoder: dict[str, Any] = _RETRIED_ONCE | {"num_cpus": 1}
        classifier: dict[str, Any] = {"num_gpus": 1, "num_cpus": 0}
        segments_per_call, calls = _SEGMENTS_PER_CALL_ON_GPU, _CALLS_ON_GPU
    else:
        # Decoders are faster than classifiers there, and would fill the object store.
        waiting = _TABLES_PER_CLASSIFIER * classifiers * _BYTES_PER_TABLE
        context.execution_options.resource_limits = ExecutionResources(object_store_memory=waiting)
        decoder = _RETRIED_ONCE | {"num_cpus": _DECODER_CPUS}
        classifier = {"num_cpus": _CLASSIFIER_CPUS}
        segments_per_call, calls = None, 1  # a block at a time
    # Cut here: Ray Data's own repartition asks for a whole core, which classifiers may hold.
    # `from_arrow` runs a task for each block just to count its rows.
    return (
        ray.data.from_blocks(blocks)
        .map_batches(
            _decode,
            fn_args=(settings.stages, settings.decoder),
            batch_format="pyarrow",
            batch_size=None,  # a block
            **decoder,
        )
        .map_batches(
            ClassifierActor,
            fn_constructor_args=(
                settings.stages,
                partial(_load, settings),
                _start_counter(classifiers),
            ),
            batch_format="pyarrow",
            batch_size=segments_per_call,
            compute=ActorPoolStrategy(size=classifiers, max_concurrent_calls_per_actor=calls),
            max_task_retries=0,  # another classifier gets the rows of one that died
            **classifier,
        )
    )


def _start_counter(classifiers: int) -> "ray.actor.ActorHandle[StartCounter]":
    """Starts what counts the starts of classifiers, the first process on the cluster.

    Raises:
        RunError: no process starts, as Ray tries for ever in a broken environment.
    """
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}  # its node may go
    counter = ray.remote(**options)(StartCounter).remote(classifiers)
    try:
        ray.get(counter.__ray_ready__.remote(), timeout=_START_SECONDS)
    except GetTimeoutError:
        reason = f"no worker process started within {_START_SECONDS:g} s"
        raise RunError(f"{reason}; Ray's own logs say why") from None
    return counter


def _decode(
    planned: pa.Table, stages: StageSettings, settings: DecoderSettings
) -> Iterator[pa.Table]:
    decode = partial(decode_block, settings=stages, decoder=_decoder(settings))
    yield from run_stage(decode, planned, stages)


@cache
def _decoder(settings: DecoderSettings) -> Decoder:
    """The decoder of this worker process; its children live for many blocks."""
    return Decoder(settings)


def _load(settings: PipelineSettings, before_pass: Callable[[], None]) -> "Classifier":
    """Builds a classifier in its actor.

    Raises:
        RunError: torch cannot use the GPU that Ray has.
    """
    on_gpu = settings.resources.on_gpu
    if not on_gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a GPU that Ray does not know is not ours
    from ser_core.models.classifier import Classifier

    checkpoint, num_threads = ray.get(settings.checkpoint), None if on_gpu else 1
    classifier = Classifier(checkpoint, settings.precision, settings.batch_size, num_threads)
    if on_gpu and not classifier.on_gpu:
        reason = f"Ray has GPUs, but torch {installed_version('torch')} cannot use them"
        raise RunError(f"{reason}; install a torch for them, or start Ray with --num-gpus=0")
    classifier.before_pass = before_pass
    return classifier
