"""How much of the cluster a run uses; it starts nothing."""

import math
from dataclasses import dataclass

import ray

_CLASSIFIER_BYTES = 2 << 30  # of memory: the full-size model and one batch on a CPU, rounded up
# Ray has no public way to tell how many GPUs an autoscaler may start, so the head node states it as
# a resource of this name: see cluster.yaml.
_GPU_POOL = "gpu_pool"
_SEGMENTS_PER_GPU = 20_000  # an H100 takes seconds for them, a machine takes minutes to start
_SEGMENTS_PER_DECODER = 256  # its processes take 2 s of a core to start, and decode 100 a second
_SEGMENTS_PER_CORE = 16  # one core labels them in the seconds that its actor takes to start
# Each block costs the driver some 10 ms and 10 kB of memory, so large corpora get large blocks; but
# at the end of a run all others wait for whoever has the last block.
_BLOCKS_PER_WORKER = 50
_ROWS_PER_BLOCK = (64, 1024)  # fewest and most; decoded, they are cut by bytes
_ROWS_PER_BLOCK_ON_CPU = (8, 256)  # 8 are a few seconds of one core
_MOST_GROWN = 5_000  # most in a long listing (`grown`): half of one of its pages
# A call of a classifier and the rows that it returns cost the driver some milliseconds, too. Up to
# so many GPUs, it keeps up with a call for each table.
_GPUS_FED_TABLE_BY_TABLE = 4
_TABLES_PER_CALL = 4
# Of the object store for each table of a call: tables of 100 MB wait there until the call is
# complete. With a store of 1.5 GB, the first call of four waited for 30 s, as Ray Data let no
# decoder go on.
_STORE_BYTES_PER_TABLE = 1 << 30


@dataclass(frozen=True)
class Resources:
    """What a run uses of its cluster.

    Attributes:
        classifiers: how many actors hold the model.
        most_classifiers: that the work justifies; machines that come later get them.
        most_decoders: that the work justifies; None if it justifies all that fit.
        on_gpu: whether each has a GPU.
        rows_per_block: recordings decoded by one task.
        growing_for: processes for which blocks grow in a long listing (`grown`); None if they keep
            their size: on CPUs, or where machines are yet to come.
        tables_per_call: decoded tables that a classifier gets at once.
        cores_per_classifier: that it takes on CPUs: more than one where memory is short.
        object_store_bytes: that the cluster has.
    """

    classifiers: int
    most_classifiers: int
    most_decoders: int | None
    on_gpu: bool
    rows_per_block: int
    growing_for: int | None
    tables_per_call: int
    cores_per_classifier: float
    object_store_bytes: int


def choose_resources(recordings: int, segments: int) -> Resources:
    """All GPUs that the cluster has or can start, as many as the work justifies; else its CPUs.

    Args:
        recordings: how many there are to label.
        segments: about how many there are in them.
    """
    present = ray.cluster_resources()
    cpus, memory = max(1, int(present.get("CPU", 1))), int(present.get("memory", 0))
    gpus_present = int(present.get("GPU", 0))
    gpus = max(gpus_present, int(present.get(_GPU_POOL, 0)))
    fitting = max(1, min(cpus, memory // _CLASSIFIER_BYTES))
    largest = max(node["Resources"].get("CPU", 1) for node in ray.nodes() if node["Alive"])
    if gpus:
        worth = max(gpus_present, math.ceil(segments / _SEGMENTS_PER_GPU))
        classifiers = min(gpus, worth)
    else:
        worth = max(1, math.ceil(segments / _SEGMENTS_PER_CORE))
        classifiers = min(worth, fitting)
    decoders = math.ceil(segments / _SEGMENTS_PER_DECODER)
    bounds = _ROWS_PER_BLOCK if gpus else _ROWS_PER_BLOCK_ON_CPU
    workers = cpus if gpus else classifiers
    store = int(present.get("object_store_memory", 0)) or 1
    return Resources(
        classifiers,
        max(classifiers, worth),
        decoders if decoders < cpus else None,
        bool(gpus),
        rows_per_block(recordings, workers, bounds),
        cpus if gpus and gpus == gpus_present else None,
        tables_per_call(classifiers, store) if gpus else 1,
        min(cpus / fitting, max(1, largest)),
        store,
    )


def rows_per_block(recordings: int, workers: int, bounds: tuple[int, int]) -> int:
    """How many recordings one task decodes.

    Args:
        recordings: how many there are.
        workers: processes that share them.
        bounds: the fewest and the most; fewer still where some workers would get none.

    >>> [rows_per_block(count, 2, (8, 256)) for count in (6, 100, 10_000, 1_000_000)]
    [1, 8, 100, 256]
    """
    fewest, most = bounds
    rows = min(most, max(fewest, recordings // (_BLOCKS_PER_WORKER * workers)))
    return max(1, min(rows, math.ceil(recordings / (4 * workers))))


def tables_per_call(classifiers: int, store_bytes: int) -> int:
    """How many decoded tables a classifier on a GPU gets in a call.

    Args:
        classifiers: how many there are.
        store_bytes: of the object store of the machines that are there.

    >>> [tables_per_call(gpus, 64 << 30) for gpus in (4, 16, 32, 128)]
    [1, 4, 2, 1]
    """
    if classifiers <= _GPUS_FED_TABLE_BY_TABLE:
        return 1
    return min(_TABLES_PER_CALL, max(1, store_bytes // (classifiers * _STORE_BYTES_PER_TABLE)))


def grown(rows: int, to_do: int, workers: int) -> int:
    """How many recordings one task decodes, in a listing that has not ended yet.

    Args:
        rows: at first.
        to_do: recordings to label so far.
        workers: processes that share them.

    >>> [grown(1024, to_do, 256) for to_do in (10_000, 20_000_000, 100_000_000)]
    [1024, 1562, 5000]
    """
    return max(rows, min(_MOST_GROWN, to_do // (_BLOCKS_PER_WORKER * workers)))
