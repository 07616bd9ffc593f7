"""The Ray Data pipeline: sources through listing, decoders and classifiers; it writes nothing.

The driver reads the rows at its end and tells two kinds of failure apart: a process that died
leaves its rows out, which `rounds.py` notices and runs again; a reason to stop the run, such as a
bug, comes out as a column of its rows.
"""

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy
from ray.data._internal.execution.backpressure_policy import DownstreamCapacityBackpressurePolicy
from ray.exceptions import GetTimeoutError, RayError
from ray.util.annotations import RayDeprecationWarning

from ser_core import cluster
from ser_core.audio.constants import SEGMENT_SAMPLES
from ser_core.errors import RunError
from ser_core.labeling.assembly import Assembly
from ser_core.labeling.classifier_actor import ClassifierActor
from ser_core.labeling.listing import TASKS, ListingSettings, list_sources
from ser_core.labeling.one_machine import without_cluster_services
from ser_core.labeling.packing import BYTES_PER_BLOCK, map_packed, packed, unpacked
from ser_core.labeling.resources import Resources
from ser_core.labeling.stages import (
    StageSettings,
    decode_block,
    rows_with_reason,
    run_stage,
)
from ser_core.labeling.start_counter import StartCounter
from ser_core.labeling.stopping import raise_reason_to_stop, reason_to_stop
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
# recording: 21 full segments of 16 bits, some 5 s of one core.
_BYTES_PER_TABLE = 4 << 20
_BYTES_PER_TABLE_ON_GPU = 512 * 2 * SEGMENT_SAMPLES  # four full batches of 16 bits
_TABLES_PER_CLASSIFIER = 4  # on a CPU, that wait in the object store
_MOST_OF_OBJECT_STORE = 0.5  # Ray Data's default
# Bytes that wait for a stage, to those that it works on. Listing ends early where all of a corpus
# may wait, and then the time left is known.
_WAITING_FOR_EACH_IN_WORK = 64.0
_CALLS_ON_GPU = 2  # one prepares its block, or passes it on, while the other computes
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
        starts: of the classifiers of one round, from `start_counter`.
    """

    stages: StageSettings
    decoder: DecoderSettings
    checkpoint: "ray.ObjectRef[Checkpoint]"
    precision: Precision
    batch_size: int | None
    resources: Resources
    starts: "ray.actor.ActorHandle[StartCounter]"


@contextmanager
def connected(verbose: bool) -> Iterator[None]:
    """Joins Ray and sets how Ray Data works within the block.

    Raises:
        UsageError: no cluster answers at its address.
    """
    one_machine = cluster.join(verbose)
    _set_data_context(verbose)
    lean = one_machine and not verbose
    with without_cluster_services() if lean else nullcontext():
        yield


def _set_data_context(verbose: bool) -> None:
    context = DataContext.get_current()  # read when a dataset is made, ignored afterwards
    # Listing is faster than decoding, and the driver holds the blocks that wait in between. Ray
    # Data limits them, too, but only where half of the object store is full.
    DownstreamCapacityBackpressurePolicy.OBJECT_STORE_BUDGET_UTIL_THRESHOLD = 0.0
    context.downstream_capacity_backpressure_ratio = _WAITING_FOR_EACH_IN_WORK
    context.max_errored_blocks = -1  # lost rows are run again; bugs come as rows
    context.max_consecutive_actor_init_deaths = -1  # `StartCounter` says when it is enough
    context.enable_progress_bars = verbose
    context.print_on_execution_start = verbose
    if not verbose:
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        warnings.filterwarnings("ignore", category=RayDeprecationWarning)
        # They count the blocks that a listing begins with, and not those that it becomes.
        for limit in ("minimum number of concurrent actors", "maximum number of concurrent tasks"):
            warnings.filterwarnings("ignore", f"The {limit}")


def share(checkpoint: "Checkpoint") -> "ray.ObjectRef[Checkpoint]":
    """Puts a checkpoint into Ray's object store, which brings it to each node once."""
    return ray.put(checkpoint)


def listed(count: int, listing: ListingSettings) -> ray.data.Dataset:
    """Blocks of the plan (``plan_schema``), listed by a task for each source."""
    sources = [pa.table({"number": [number]}) for number in range(count)]
    return held(sources).map_batches(
        partial(map_packed, partial(list_sources, settings=listing)),
        batch_format="pyarrow",
        batch_size=None,
        num_cpus=_LISTING_CPUS,
        compute=TaskPoolStrategy(size=TASKS),
        **_RETRIED_ONCE,
    )


def held(tables: Sequence[pa.Table]) -> ray.data.Dataset:
    """Tables that the driver holds, each a row of the dataset."""
    DataContext.get_current().target_max_block_size = BYTES_PER_BLOCK
    return ray.data.from_blocks([packed(table) for table in tables])


def label_planned(planned: ray.data.Dataset, settings: PipelineSettings) -> Iterator[pa.Table]:
    """The rows (``labeled_schema``) of all that is to be labelled, those of a recording together.

    What a dying process takes with it is left out.

    Args:
        planned: from `listed` or `held`.
        settings: how their recordings are labelled.

    Raises:
        RunError: a source cannot be listed, a bug, no classifier runs, or Ray failed.
    """
    blocks = _labeled(planned, settings).iter_batches(
        batch_size=None,
        batch_format="pyarrow",
        prefetch_batches=0,  # otherwise each block waits until the next one is done
    )
    assembly = Assembly()
    try:
        for table in chain.from_iterable(map(unpacked, blocks)):
            raise_reason_to_stop(table)
            yield assembly.add(table)
    except RayError as error:
        raise cluster.failed(error) from error


def _labeled(planned: ray.data.Dataset, settings: PipelineSettings) -> ray.data.Dataset:
    resources = settings.resources
    if resources.on_gpu:
        decoder_cpus, num_bytes, calls = 1.0, _BYTES_PER_TABLE_ON_GPU, _CALLS_ON_GPU
        classifier: dict[str, Any] = {"num_gpus": 1, "num_cpus": 0}
    else:
        decoder_cpus, num_bytes, calls = _DECODER_CPUS, _BYTES_PER_TABLE, 1
        # Not `memory`, which Ray Data counts for all stages: with little left, it waited for ever.
        classifier = {"num_cpus": _CLASSIFIER_CPUS * resources.cores_per_classifier}
        # Decoders are faster than classifiers there, and would fill the object store. It is a
        # fraction of it, because it grows with a cluster that does.
        waiting = _TABLES_PER_CLASSIFIER * resources.classifiers * num_bytes
        fraction = min(_MOST_OF_OBJECT_STORE, waiting / resources.object_store_bytes)
        planned.context.override_object_store_memory_limit_fraction = fraction
    return planned.map_batches(
        _decode,
        fn_args=(settings.stages, settings.decoder, num_bytes),
        batch_format="pyarrow",
        batch_size=None,
        num_cpus=decoder_cpus,
        compute=TaskPoolStrategy(size=resources.most_decoders),
        **_RETRIED_ONCE,
    ).map_batches(
        ClassifierActor,
        fn_constructor_args=(
            settings.stages,
            partial(_load, settings),
            settings.starts,
        ),
        batch_format="pyarrow",
        batch_size=resources.tables_per_call,
        compute=ActorPoolStrategy(
            min_size=resources.classifiers,
            max_size=resources.most_classifiers,  # on machines that come later
            max_concurrent_calls_per_actor=calls,
            enable_true_multi_threading=True,  # the actor gives its device to one at a time
        ),
        max_task_retries=0,  # another classifier gets the rows of one that died
        **classifier,
    )


def start_counter(classifiers: int) -> "ray.actor.ActorHandle[StartCounter]":
    """Starts what counts the starts of classifiers, and waits for its process.

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
    classifier.embeddings = settings.stages.embedding_size is not None
    return classifier
