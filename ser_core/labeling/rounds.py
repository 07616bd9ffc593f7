"""Labels a source in rounds: what a dying process took with it is found by looking again."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.exceptions import RayError, RayTaskError

from ser_core.console import say
from ser_core.errors import RunError, Status
from ser_core.labeling.assembly import assembled_rows
from ser_core.labeling.coverage import Coverage, coverage
from ser_core.labeling.listing import ListingSettings, Tally, start_tally
from ser_core.labeling.output_rows import output_rows
from ser_core.labeling.part_writer import PartWriter
from ser_core.labeling.pipeline import (
    PipelineSettings,
    connect,
    label_sources,
    list_again,
    ray_failed,
    share,
)
from ser_core.labeling.plan import Plan
from ser_core.labeling.preparation import Run
from ser_core.labeling.progress import Display, RunStats
from ser_core.labeling.resources import choose_resources
from ser_core.labeling.row_index import RowIndex
from ser_core.labeling.rules import is_useful
from ser_core.labeling.stages import StageSettings, failed_rows
from ser_core.schema import HAS_FINAL, INDEX
from ser_core.sources.inputs import shown
from ser_core.sources.interface import Listing
from ser_core.storage.claim import Claim

_SMALLER = 8  # what was lost runs again in blocks smaller by this factor, down to one recording
_FEWEST_ROUNDS = 2  # what is lost once may have been lost with its neighbours, or its machine
_UNKNOWN = 1 << 40  # recordings of a listing that has not ended
_LOST = "its process died each time, even when it ran alone"


@dataclass
class _Labeling:
    """What all rounds of a run share.

    Attributes:
        run: checked and ready.
        sources: what is listed, each by a task of its own.
        known: the plan, if the listing was short enough to be made by the driver.
        stats: of the run.
        claim: of its output.
        settings: of the pipeline.
        tally: of what is listed.
        since: the time of the run's first rows.
        dropped: hashes of the recordings whose rows were of no use.
    """

    run: Run
    sources: Sequence[Listing]
    known: Plan | None
    stats: RunStats
    claim: Claim
    settings: PipelineSettings
    tally: "ray.actor.ActorHandle[Tally]"
    since: datetime
    dropped: list[np.ndarray] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        """Whether everything has been listed."""
        return self.stats.total is not None


def label(
    run: Run, sources: Sequence[Listing], known: Plan | None, stats: RunStats, claim: Claim
) -> tuple[Plan, Coverage]:
    """Labels what has no row yet, until nothing is left out.

    What is lost with its process even if it runs alone is `unavailable`: a classifier that dies
    says nothing about a recording's content.

    Args:
        run: checked and ready.
        sources: what it lists, each by a task of its own.
        known: the plan, if the listing was short enough to be made by the driver.
        stats: to be filled.
        claim: of the output.

    Returns:
        What there was to do, and what the output has of it.

    Raises:
        RunError: a bug, no classifier runs, Ray or the storage failed.
    """
    connect(run.config.verbose)
    stats.stage_seconds["start"] = stats.elapsed
    labeling = _prepare(run, sources, known, stats, claim)
    rows, number = labeling.settings.resources.rows_per_block, 0
    with Display(stats, lambda: _count_listed(labeling)) as display:
        while True:
            last = number >= _FEWEST_ROUNDS and rows == 1
            covered = _round(labeling, display, rows, number, last)
            if labeling.ended and not covered.missing:
                break
            problem = _unfinished(labeling, covered)
            if last or (number + 1 == _FEWEST_ROUNDS and not stats.done):
                raise RunError(f"--input {shown(run.config.input)}: {problem}, each time")
            rows, number = max(1, rows // _SMALLER), number + 1
            say(f"{problem}; retrying in blocks of {rows}")
    return stats.plan, covered


def _prepare(
    run: Run, sources: Sequence[Listing], known: Plan | None, stats: RunStats, claim: Claim
) -> _Labeling:
    checkpoint, whole = run.checkpoint, run.decoder.how.whole
    to_do, segments = (known.to_do, known.segments) if known else (_UNKNOWN, _UNKNOWN)
    resources = choose_resources(to_do, segments if whole else to_do)
    say(f"classifiers: {resources.classifiers}, on {'GPUs' if resources.on_gpu else 'CPUs'}")
    settings = PipelineSettings(
        StageSettings(checkpoint.labels, run.source.columns),
        run.decoder,
        share(checkpoint),
        run.config.precision,
        run.config.batch_size,
        resources,
    )
    since = run.store.now()
    return _Labeling(run, sources, known, stats, claim, settings, start_tally(), since)


def _round(labeling: _Labeling, display: Display, rows: int, number: int, last: bool) -> Coverage:
    """Labels what has no row of this run yet, and looks at the output; the last one gives up."""
    run, count = labeling.run, len(labeling.sources)
    listing = ListingSettings(
        ray.put(labeling.sources),
        _computed(labeling, _index, run, labeling.since if number else None, labeling.dropped),
        labeling.tally,
        run.source.columns,
        rows,
        run.decoder.how.whole,
        anywhere=number > 0,
    )
    labeled = (
        _lost(labeling.settings.stages, list_again(count, listing))
        if last
        else label_sources(count, listing, labeling.settings)
    )
    _write(labeling, labeled, display)
    _count_listed(labeling)
    plan: Any = labeling.known
    if plan is None:
        if known_to_0_1 := ray.get(labeling.tally.known_to_0_1.remote()):
            run.store.upgrade(pa.concat_tables(known_to_0_1))
        plan = labeling.tally.plan.remote()
    seen = (labeling.since, labeling.dropped, run.config.prune)
    covered: Coverage = ray.get(_computed(labeling, coverage, run.store, plan, *seen))
    return covered


def _computed(
    labeling: _Labeling, function: Callable[..., Any], *args: Any
) -> "ray.ObjectRef[Any]":
    """What a function returns whose memory grows with the corpus: in the cluster if that is large.

    Raises:
        RunError: what it raises, or Ray failed.
    """
    if labeling.known is not None:
        return ray.put(function(*args))
    result = ray.remote(num_cpus=0)(function).remote(*args)
    try:
        ray.get(result)  # large arrays stay in shared memory
    except RayTaskError as error:
        raise error.cause from None
    except RayError as error:
        raise ray_failed(error) from error
    return result


def _index(run: Run, since: datetime | None, dropped: Sequence[np.ndarray]) -> RowIndex:
    skipped = np.sort(np.concatenate([np.empty(0, np.uint64), *dropped]))
    return replace(run.index(since), skipped=skipped)


def _lost(stages: StageSettings, left_out: Iterable[pa.Table]) -> Iterator[pa.Table]:
    return (failed_rows(each, stages, Status.UNAVAILABLE, _LOST) for each in left_out)


def _write(labeling: _Labeling, labeled: Iterable[pa.Table], display: Display) -> None:
    """Writes rows as they come."""
    run, stats, stages = labeling.run, labeling.stats, labeling.settings.stages
    origin = {"model": run.checkpoint.name, "model_digest": run.digest}
    with PartWriter(run.store, run.config.part_seconds) as writer:
        for segments in labeled:
            labeling.claim.check()
            assembled = assembled_rows(segments, stages.labels, run.config.rows)
            rows = output_rows(assembled, stages, run.store.schema, origin, run.store.now())
            useful = is_useful(rows["status"], assembled[HAS_FINAL.name].to_numpy())
            writer.add(rows.filter(pa.array(useful)))
            if not useful.all():
                labeling.dropped.append(assembled[INDEX.name].to_numpy()[~useful].view(np.uint64))
            stats.add(segments, rows)
            display.update()
            if stats.outage:
                inputs = shown(run.config.input)
                raise RunError(f"--input {inputs}: the storage has stopped answering")
    stats.stage_seconds["write"] += writer.write_seconds


def _count_listed(labeling: _Labeling) -> None:
    """Shows how far listing has come."""
    plan, ended, seconds = ray.get(labeling.tally.numbers.remote())
    labeling.stats.listing(labeling.known or plan, ended == len(labeling.sources))
    labeling.stats.stage_seconds["list"] = seconds


def _unfinished(labeling: _Labeling, covered: Coverage) -> str:
    if labeling.ended:
        return f"{covered.missing:,} recordings were lost with a process"
    return "a process that listed it died"
