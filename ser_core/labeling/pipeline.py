"""The Ray Data pipeline: sources through listing, decoders and classifiers; it writes nothing.

The driver reads the rows at its end and tells two kinds of failure apart: a process that died
leaves its rows out, which `rounds.py` notices and runs again; a reason to stop the run, such as a
bug, comes out as a column of its rows.
"""

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, ExecutionResources
from ray.exceptions import GetTimeoutError, RayError
from ray.util.annotations import RayDeprecationWarning

from ser_core import cluster
from ser_core.console import say
from ser_core.errors import RunError, one_line
from ser_core.labeling.assembly import Assembly
from ser_core.labeling.classifier_actor import ClassifierActor, StartCounter
from ser_core.labeling.listing import ListingSettings, list_sources
from ser_core.labeling.packing import BYTES_PER_BLOCK, map_packed, packed, unpacked
from ser_core.labeling.resources import Resources
from ser_core.labeling.stages import (
    StageSettings,
    decode_block,
    reason_to_stop,
    rows_with_reason,
    run_stage,
)
from ser_core.settings import Precision
from ser_core.sources.decoder import Decoder, DecoderSettings
from ser_core.versions import installed_version

if TYPE_CHECKING:  # processes that only decode do without torch
    from ser_core.models.checkpoint import Checkpoint
    from ser_core.models.classifier import Classifier

# On CPUs a classifier takes nearly its whole core and leaves the rest for decoding, which takes
# about a hundredth of the time, and for listing. Ray fuses stages that ask for the same.
_CLASSIFIER_CPUS = 0.85
_DECODER_CPUS = 0.1
_LISTING_CPUS = 0.05
# A listing or decoding task whose process dies; its rows are left out then and run again. Ray
# Data's default is to retry for ever. Ray 2.64 removes this setting: see pyproject.toml.
_RETRIED_ONCE = {"max_retries": 1}
# Decoded segments are passed on in tables of this size, so that several classifiers share a long
# recording: 85 full segments of 16 bits, some 20 s of one core.
_BYTES_PER_TABLE = 16 << 20
_BYTES_PER_TABLE_ON_GPU = 64 << 20
_TABLES_PER_CLASSIFIER = 4  # on a CPU, that wait in the object store
_CALLS_ON_GPU = 2  # one call fetches its blocks while the other classifies
_START_SECONDS = 300.0  # for one process to start on the cluster


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
        # It counts the blocks that a listing begins with, and not those that it becomes.
        warnings.filterwarnings("ignore", "The minimum number of concurrent actors")


def share(checkpoint: "Checkpoint") -> "ray.ObjectRef[Checkpoint]":
    """Puts a checkpoint into Ray's object store, which brings it to each node once."""
    return ray.put(checkpoint)


def label_sources(
    count: int, listing: ListingSettings, settings: PipelineSettings
) -> Iterator[pa.Table]:
    """The rows (``labeled_schema``) of all that is to be labelled, those of a recording together.

    What a dying process takes with it is left out.

    Args:
        count: how many sources there are.
        listing: how they are listed.
        settings: how their recordings are labelled.

    Raises:
        RunError: a source cannot be listed, a bug, no classifier runs, or Ray failed.
    """
    assembly = Assembly()
    for segments in _run(_labeled(count, listing, settings)):
        yield assembly.add(segments)


def list_again(count: int, listing: ListingSettings) -> Iterator[pa.Table]:
    """The plan (``plan_schema``) of all that is to be labelled, in the driver.

    Raises:
        RunError: a source cannot be listed, a bug, or Ray failed.
    """
    yield from _run(_planned(count, listing))


def _run(dataset: ray.data.Dataset) -> Iterator[pa.Table]:
    try:
        blocks = dataset.iter_batches(
            batch_size=None,
            batch_format="pyarrow",
            prefetch_batches=0,  # otherwise each block waits until the next one is done
        )
        for table in chain.from_iterable(map(unpacked, blocks)):
            if reason := reason_to_stop(table):
                raise _stopped(reason)
            yield table
    except RayError as error:
        raise ray_failed(error) from error


def ray_failed(error: RayError) -> RunError:
    """What to raise when Ray itself fails."""
    last_line = str(error).strip().splitlines()[-1:]  # what was raised first
    reason = one_line(*last_line) if last_line else repr(error)
    return RunError(f"Ray stopped the run ({reason})")


def _stopped(reason: str) -> RunError:
    """Shows the traceback of a bug, if it is one."""
    summary, _, details = reason.partition("\n")
    if details:
        say(details)
    return RunError(summary)


def _planned(count: int, listing: ListingSettings) -> ray.data.Dataset:
    """Blocks of the plan, each a row of the dataset."""
    sources = [packed(pa.table({"number": [number]})) for number in range(count)]
    DataContext.get_current().target_max_block_size = BYTES_PER_BLOCK
    return ray.data.from_blocks(sources).map_batches(
        partial(map_packed, partial(list_sources, settings=listing)),
        batch_format="pyarrow",
        batch_size=None,
        num_cpus=_LISTING_CPUS,
        **_RETRIED_ONCE,
    )


def _labeled(count: int, listing: ListingSettings, settings: PipelineSettings) -> ray.data.Dataset:
    classifiers = settings.resources.classifiers
    if settings.resources.on_gpu:
        decoder_cpus, num_bytes, calls = 1.0, _BYTES_PER_TABLE_ON_GPU, _CALLS_ON_GPU
        classifier: dict[str, Any] = {"num_gpus": 1, "num_cpus": 0}
    else:
        decoder_cpus, num_bytes, calls = _DECODER_CPUS, _BYTES_PER_TABLE, 1
        classifier = {"num_cpus": _CLASSIFIER_CPUS}
        # Decoders are faster than classifiers there, and would fill the object store.
        waiting = ExecutionResources(
            object_store_memory=_TABLES_PER_CLASSIFIER * classifiers * num_bytes
        )
        DataContext.get_current().execution_options.resource_limits = waiting
    return (
        _planned(count, listing)
        .map_batches(
            _decode,
            fn_args=(settings.stages, settings.decoder, num_bytes),
            batch_format="pyarrow",
            batch_size=None,
            num_cpus=decoder_cpus,
            **_RETRIED_ONCE,
        )
        .map_batches(
            ClassifierActor,
            fn_constructor_args=(
                settings.stages,
                partial(_load, settings),
                _start_counter(classifiers),
            ),
            batch_format="pyarrow",
            batch_size=1,  # table; Ray Data insists on a number for GPUs
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
    rows: pa.Table, stages: StageSettings, settings: DecoderSettings, num_bytes: int
) -> Iterator[pa.Table]:
    decode = partial(
        decode_block, settings=stages, decoder=_decoder(settings), bytes_per_table=num_bytes
    )

    def decoded(planned: pa.Table) -> Iterator[pa.Table]:
        if reason := reason_to_stop(planned):
            return iter([rows_with_reason(planned, stages, reason)])
        return run_stage(decode, planned, stages)

    yield from map_packed(decoded, rows)


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
