"""The listing of a run, in tasks of the cluster: sources → blocks of the plan, and their tally."""

import secrets
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import pyarrow as pa
import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ser_core import cluster
from ser_core.errors import RunError, UsageError
from ser_core.labeling.plan import Plan, cut_into_blocks, plan_page
from ser_core.labeling.resources import grown
from ser_core.labeling.row_index import RowIndex
from ser_core.labeling.stopping import bug, raise_reason_to_stop, reason_of
from ser_core.schema import STOP, in_schema, plan_schema
from ser_core.sources.interface import PAGE_ROWS, Listing

# A task waits for storage most of the time, and holds 130 MB while it does.
TASKS = 32  # that list at the same time, at most
_CPUS = 0.5  # of each while nothing else runs
_LOOK_SECONDS = 5.0  # from the first work to a decision, which classifiers start after
_FEW = 0.1  # of what is listed: a nightly run, which lists to the end before it labels
_WAIT_SECONDS = 0.5


@dataclass(frozen=True)
class ListingSettings:
    """What all tasks that list have in common.

    Attributes:
        sources: each listed by one task; from `ray.put`.
        index: of what is done, in the object store.
        tally: adds up what they find.
        manifest: the manifest's own columns.
        rows: recordings in a block.
        growing_for: processes for which blocks grow (`resources.grown`); None if they do not.
        whole: whether recordings are labelled to their end.
        anywhere: whether blocks may cut what is read in one pass.
    """

    sources: "ray.ObjectRef[Sequence[Listing]]"
    index: "ray.ObjectRef[RowIndex]"
    tally: "ray.actor.ActorHandle[Tally]"
    manifest: pa.Schema
    rows: int = PAGE_ROWS
    growing_for: int | None = None
    whole: bool = False
    anywhere: bool = False


class Tally:
    """Adds up what tasks have listed, in an actor.

    A task that runs again counts once, and a source that has been listed to its end is not counted
    again by a later round, which finds part of it done.
    """

    def __init__(self) -> None:
        self._attempts: dict[int, str] = {}
        self._plans: dict[int, Plan] = {}
        self._seconds: dict[int, float] = {}
        self._ended: dict[int, str] = {}  # sources, by the attempt that listed them
        self._to_do = 0

    def add(self, number: int, attempt: str, found: Plan, seconds: float) -> int:
        """Adds a page of a source; returns how many recordings are to be labelled, about."""
        self._to_do += found.to_do  # twice if a task that died has listed it before
        if number in self._ended:
            return self._to_do
        if self._attempts.get(number) != attempt:
            self._attempts[number] = attempt
            self._plans[number], self._seconds[number] = Plan(), 0.0
        self._plans[number].add(found)
        self._seconds[number] += seconds
        return self._to_do

    def end(self, number: int, attempt: str) -> None:
        """Notes that a source has been listed to its end."""
        self._ended.setdefault(number, attempt)

    def numbers(self) -> tuple[Plan, int, float]:
        """The plan so far, without hashes; how many sources have ended; seconds of all tasks."""
        plan = replace(self.plan(), identity_hashes=[], to_do_hashes=[], known_to_0_1=[])
        return plan, len(self._ended), sum(self._seconds.values())

    def plan(self) -> Plan:
        """The plan with the hashes of all recordings: 8 bytes of each, and of each to label."""
        plan = Plan()
        for each in self._plans.values():
            plan.add(each)
        return plan

    def known_to_0_1(self) -> list[pa.Table]:
        """See `Plan`."""
        return self.plan().known_to_0_1


def start_tally() -> "ray.actor.ActorHandle[Tally]":
    """Starts a tally beside the driver, whose end would be that of the run anyway."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(Tally).remote()


def look_for_work(count: int, settings: ListingSettings, most: int) -> list[pa.Table] | None:
    """Lists sources as far as it takes to see whether there is much to do.

    Args:
        count: how many sources there are.
        settings: how they are listed.
        most: recordings that are little to do.

    Returns:
        What is to be labelled (``plan_schema``) when everything has been listed and that is
        little; None if it is more, if a good part of what was listed in some seconds is to be
        labelled, or if a process died.

    Raises:
        RunError: a source cannot be listed, or a bug.
    """
    found, recordings, deadline = list[pa.Table](), 0, 0.0
    try:
        with closing(_tables(count, settings)) as tables:
            for table in tables:
                if table is not None:
                    found.append(table)
                    recordings += len(table)
                if recordings > most:
                    return None
                if found and time.monotonic() > deadline:
                    plan, *_ = ray.get(settings.tally.numbers.remote())  # it may still be starting
                    if deadline and recordings > _FEW * plan.listed:
                        return None
                    deadline = time.monotonic() + _LOOK_SECONDS
    except RayError:
        return None
    return found


def list_here(count: int, settings: ListingSettings) -> Iterator[pa.Table]:
    """Blocks of the plan (``plan_schema``) in the driver, listed by a task for each source.

    Raises:
        RunError: a source cannot be listed, a bug, or Ray failed.
    """
    try:
        yield from (table for table in _tables(count, settings) if table is not None)
    except RayError as error:
        raise cluster.failed(error) from error


def _tables(count: int, settings: ListingSettings) -> Generator[pa.Table | None]:
    """Blocks of the plan as they come, and None after a while without one."""
    options = {"num_cpus": _CPUS, "max_retries": 1, "num_returns": "streaming"}
    task = ray.remote(**options)(list_sources)
    numbers = (pa.table({"number": [number]}) for number in range(count))
    running: list[Any] = []
    try:
        while True:
            # All at once, they would make a cluster grow only to list.
            running += [
                task.remote(each, settings) for each in islice(numbers, TASKS - len(running))
            ]
            if not running:
                return
            ready, running = ray.wait(running, timeout=_WAIT_SECONDS)
            if not ready:
                yield None
            for blocks in ready:
                if (block := next(blocks, None)) is not None:
                    running.append(blocks)
                    table = ray.get(block)
                    raise_reason_to_stop(table)
                    yield table
    finally:
        for blocks in running:
            ray.cancel(blocks)


def list_sources(numbers: pa.Table, settings: ListingSettings) -> Iterator[pa.Table]:
    """Lists sources, given by their numbers.

    Yields:
        Blocks of the plan (``plan_schema``); where the run must stop, with a column that says why.
    """
    for number in numbers["number"].to_pylist():
        try:
            yield from _blocks(number, settings)
        except (RunError, UsageError) as error:
            yield _stopped(reason_of(error), settings)
        except Exception as error:
            yield _stopped(bug(error), settings)


def _blocks(number: int, settings: ListingSettings) -> Iterator[pa.Table]:
    source, index = ray.get(settings.sources)[number], ray.get(settings.index)
    tally, attempt, started = settings.tally, secrets.token_hex(8), time.monotonic()
    for page in source.pages():
        found, table = plan_page(page, settings.manifest, index)
        to_do = tally.add.remote(number, attempt, found, time.monotonic() - started)
        if len(table):
            rows, workers = settings.rows, settings.growing_for
            rows = grown(rows, ray.get(to_do), workers) if workers else rows
            # Not "yield from": Ray sends values into generators, and a list takes none.
            blocks = cut_into_blocks(table, rows, settings.whole, settings.anywhere)
            for block in blocks:  # noqa: UP028
                yield block
        started = time.monotonic()  # the time that a block waits is not that of listing
    ray.get(tally.end.remote(number, attempt))


def _stopped(reason: str, settings: ListingSettings) -> pa.Table:
    columns: dict[str, Any] = {STOP.name: pa.array([reason])}
    return in_schema(columns, pa.schema([*plan_schema(settings.manifest), STOP]))
