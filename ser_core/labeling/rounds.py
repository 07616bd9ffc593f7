"""Labels a source in rounds: what a dying process took with it is found by looking again."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.exceptions import RayError, RayTaskError

from ser_core import cluster
from ser_core.console import counted, phase, say
from ser_core.errors import RunError, Status
from ser_core.labeling.assembly import assembled_rows
from ser_core.labeling.coverage import Coverage, coverage
from ser_core.labeling.listing import (
    ListingSettings,
    Tally,
    list_here,
    look_for_work,
    start_tally,
)
from ser_core.labeling.metrics import RunMetrics
from ser_core.labeling.output_rows import output_rows
from ser_core.labeling.part_writer import PartWriter
from ser_core.labeling.pipeline import (
    PipelineSettings,
    connected,
    held,
    label_planned,
    listed,
    share,
    start_counter,
)
from ser_core.labeling.plan import cut_into_blocks
from ser_core.labeling.preparation import Run
from ser_core.labeling.progress import RunStats, showing
from ser_core.labeling.resources import choose_resources
from ser_core.labeling.rules import is_useful
from ser_core.labeling.stages import StageSettings, failed_rows
from ser_core.labeling.start_counter import StartCounter
from ser_core.schema import HAS_FINAL, INDEX
from ser_core.sources.inputs import shown
from ser_core.sources.interface import PAGE_ROWS, Listing
from ser_core.storage.claim import Claim

_SMALLER = 8  # what was lost runs again in blocks smaller by this factor, down to one recording
_FEWEST_ROUNDS = 2  # what is lost once may have been lost with its neighbours, or its machine
_UNKNOWN = 1 << 40  # recordings of a listing that has not ended
_LOOK_SECONDS = 5.0  # for the classifiers' counter to answer, which may be on its way to a node
_LOST = "its process died each time, even when it ran alone"


@dataclass
class _Labeling:
    """What all rounds of a run share.

    Attributes:
        run: checked and ready.
        sources: what is listed, each by a task of its own.
        stats: of the run.
        claim: of its output.
        since: the time of the run's first rows.
        work: what is to be labelled, where it is little and has not been tried yet.
        planned_here: whether the driver has made the plan, with the hashes of all recordings.
        dropped: hashes of the recordings whose rows were of no use.
        listing: of the latest round that listed.
        starts: of the classifiers of the latest round.
        metrics: for Ray's endpoint.
    """

    run: Run
    sources: Sequence[Listing]
    stats: RunStats
    claim: Claim
    since: datetime
    work: Sequence[pa.Table] | None
    planned_here: bool
    dropped: list[np.ndarray] = field(default_factory=list)
    listing: ListingSettings | None = None
    starts: "ray.actor.ActorHandle[StartCounter] | None" = None
    metrics: RunMetrics = field(default_factory=RunMetrics)

    @cached_property
    def tally(self) -> "ray.actor.ActorHandle[Tally]":
        """Of what tasks list, if any do; it is a process."""
        return start_tally()

    @property
    def ended(self) -> bool:
        """Whether everything has been listed."""
        return self.stats.total is not None


def label(
    run: Run,
    sources: Sequence[Listing],
    work: Sequence[pa.Table] | None,
    stats: RunStats,
    claim: Claim,
) -> Coverage:
    """Labels what has no row yet, until nothing is left out.

    What is lost with its process even if it runs alone is `unavailable`: a classifier that dies
    says nothing about a recording's content.

    Args:
        run: checked and ready.
        sources: what it lists, each by a task of its own.
        work: what is to be labelled, if the driver has made the plan, which ``stats`` has then.
        stats: to be filled.
        claim: of the output.

    Returns:
        What the output has of the plan.

    Raises:
        RunError: a bug, no classifier runs, Ray or the storage failed.
    """
    phase("starting Ray")
    now, here = run.store.now(), work is not None
    labeling = _Labeling(run, sources, stats, claim, now, work, here)
    with connected(run.config.verbose):
        if not here:  # before others ask for it
            labeling.tally = start_tally()
        with showing(stats, lambda: _refresh(labeling)):
            stats.stage_seconds["start"] = stats.elapsed
            if not here:
                _look_for_work(labeling)
            if labeling.ended:
                plan = stats.plan
                found = counted(plan.listed, "recording")
                say(f"{found}, {plan.done:,} already done, {plan.to_do:,} to label")
            if stats.total == 0:
                return _coverage(labeling)
            return _label_in_rounds(labeling)


def _look_for_work(labeling: _Labeling) -> None:
    """Lists everything if little is to be labelled; else only until that is known."""
    count, listing = len(labeling.sources), _listing(labeling, 0)
    labeling.work = look_for_work(count, listing, PAGE_ROWS)
    if labeling.work is None:  # listed again from its beginning, while the first are labelled
        labeling.tally = start_tally()
        labeling.listing = replace(listing, tally=labeling.tally)
    _count_listed(labeling)


def _label_in_rounds(labeling: _Labeling) -> Coverage:
    run, settings = labeling.run, _settings(labeling)
    rows, number = settings.resources.rows_per_block, 0
    while True:
        last = number >= _FEWEST_ROUNDS and rows == 1
        labeled = _labeled(labeling, settings, rows, number, last)
        _write(labeling, labeled, settings.stages)
        _count_listed(labeling)
        labeling.stats.checking = True
        covered = _coverage(labeling)
        labeling.stats.checking = False
        if labeling.ended and not covered.missing:
            return covered
        problem = _unfinished(labeling, covered)
        if last or (number + 1 == _FEWEST_ROUNDS and not labeling.stats.done):
            raise RunError(f"--input {shown(run.config.input)}: {problem}, each time")
        rows, number = max(1, rows // _SMALLER), number + 1
        resources = replace(settings.resources, tables_per_call=1)  # each may be what kills it
        starts = _counted_starts(labeling, resources.classifiers)
        settings = replace(settings, resources=resources, starts=starts)
        say(f"{problem}; retrying in blocks of {rows}", logging.WARNING)


def _settings(labeling: _Labeling) -> PipelineSettings:
    run, checkpoint, plan = labeling.run, labeling.run.checkpoint, labeling.stats.plan
    whole = run.decoder.how.whole
    to_do, segments = (plan.to_do, plan.segments) if labeling.ended else (_UNKNOWN, _UNKNOWN)
    resources = choose_resources(to_do, segments if whole else to_do)
    say(f"classifiers: {resources.classifiers}, on {'GPUs' if resources.on_gpu else 'CPUs'}")
    return PipelineSettings(
        run.stages,
        run.decoder,
        share(checkpoint),
        run.config.precision,
        run.config.batch_size,
        resources,
        _counted_starts(labeling, resources.classifiers),
    )


def _counted_starts(labeling: _Labeling, classifiers: int) -> "ray.actor.ActorHandle[StartCounter]":
    """Counts the starts of the classifiers of a round, from now on."""
    labeling.stats.classifiers = labeling.stats.classifiers or (classifiers, 0)
    labeling.starts = start_counter(classifiers)
    return labeling.starts


def _labeled(
    labeling: _Labeling, settings: PipelineSettings, rows: int, number: int, last: bool
) -> Iterator[pa.Table]:
    """Labels what has no row of this run yet; the last round gives up."""
    whole = labeling.run.decoder.how.whole
    work, labeling.work = labeling.work, None
    if work is not None:
        blocks = [block for table in work for block in cut_into_blocks(table, rows, whole)]
        return label_planned(held(blocks), settings)
    listing = replace(_listing(labeling, number), rows=rows, whole=whole, anywhere=number > 0)
    if number == 0:
        listing = replace(listing, growing_for=settings.resources.growing_for)
    count = len(labeling.sources)
    if last:
        return _lost(settings.stages, list_here(count, listing))
    return label_planned(listed(count, listing), settings)


def _listing(labeling: _Labeling, number: int) -> ListingSettings:
    """Lists what has no row yet; after the first round, no row of this run."""
    run = labeling.run
    if labeling.listing is None or number:
        since = labeling.since if number else None
        labeling.listing = ListingSettings(
            ray.put(labeling.sources),
            _computed(labeling, run.store.index, *run.index_settings, since, labeling.dropped),
            labeling.tally,
            run.source.columns,
        )
    return labeling.listing


def _coverage(labeling: _Labeling) -> Coverage:
    """Looks at the output, and upgrades the rows of release 0.1 in it."""
    run, tally = labeling.run, labeling.tally
    plan: Any = labeling.stats.plan
    if not labeling.planned_here:
        if known_to_0_1 := ray.get(tally.known_to_0_1.remote()):
            run.store.upgrade(pa.concat_tables(known_to_0_1))
        plan = tally.plan.remote()
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
    if labeling.planned_here:
        return ray.put(function(*args))
    call = ray.remote(num_cpus=0)(lambda function, *args: function(*args))
    result = call.remote(function, *args)
    try:
        ray.get(result)  # large arrays stay in shared memory
    except RayTaskError as error:
        raise error.cause from None
    except RayError as error:
        raise cluster.failed(error) from error
    return result


def _lost(stages: StageSettings, left_out: Iterable[pa.Table]) -> Iterator[pa.Table]:
    return (failed_rows(each, stages, Status.UNAVAILABLE, _LOST) for each in left_out)


def _write(labeling: _Labeling, labeled: Iterable[pa.Table], stages: StageSettings) -> None:
    """Writes rows as they come."""
    run, stats = labeling.run, labeling.stats
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
            if stats.outage:
                inputs = shown(run.config.input)
                raise RunError(f"--input {inputs}: the storage has stopped answering")
    stats.stage_seconds["write"] += writer.write_seconds


def _refresh(labeling: _Labeling) -> None:
    """Brings what is shown up to date; where Ray fails here, it ends the run elsewhere."""
    with suppress(RayError):
        _count_listed(labeling)
        if labeling.starts is not None:
            ready, seconds = ray.get(labeling.starts.numbers.remote(), timeout=_LOOK_SECONDS)
            if ready:
                labeling.stats.classifiers_ready(ready, seconds)
        labeling.metrics.update(labeling.stats)


def _count_listed(labeling: _Labeling) -> None:
    """Takes over how far listing has come."""
    if labeling.planned_here:
        return
    plan, ended, seconds = ray.get(labeling.tally.numbers.remote())
    labeling.stats.listing(plan, ended == len(labeling.sources))
    labeling.stats.stage_seconds["list"] = seconds


def _unfinished(labeling: _Labeling, covered: Coverage) -> str:
    if labeling.ended:
        were = "was" if covered.missing == 1 else "were"
        return f"{counted(covered.missing, 'recording')} {were} lost with a process"
    return "a process that listed it died"
