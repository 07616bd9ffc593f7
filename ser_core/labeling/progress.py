"""How a run progresses: counts and rates, a line for now, tables at the end; it labels nothing."""

import logging
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table

from ser_core.console import clock, counted, phase, progress, say, show
from ser_core.errors import Status
from ser_core.labeling.plan import Plan
from ser_core.schema import (
    CLASSIFY_STAGES,
    DECODE_STAGES,
    DEVICE,
    DURATION,
    NUM_ROWS,
    START,
    stage_seconds,
)

_OUTAGE_RECORDINGS, _OUTAGE_SECONDS = 64, 300.0  # more than this out of reach end the run
_LEAST_SECONDS = 0.1  # of labelling, so that its rates are numbers
_LAST_LOOK_SECONDS = 5.0
_TICK_SECONDS = 1.0  # between two looks at the run


@dataclass
class RunStats:
    """What a run has done so far.

    Attributes:
        plan: what there is to do, as far as that is listed.
        total: recordings to label in this run; None until all are listed.
        done: recordings with rows, including failed ones.
        status: rows by status.
        label: labelled rows by label.
        device: classified segments by device and precision.
        audio_seconds: the recordings' whole duration.
        labeled_seconds: what the model got of it.
        stage_seconds: time of each stage, over all processes; see `schema.stage_seconds`.
        classifiers: how many there are to be, at first, and how many of them are ready.
        checking: whether a round has ended and what it left out is looked for.
    """

    plan: Plan = field(default_factory=Plan)
    total: int | None = None
    done: int = 0
    status: Counter[str] = field(default_factory=Counter)
    label: Counter[str] = field(default_factory=Counter)
    device: Counter[str] = field(default_factory=Counter)
    audio_seconds: float = 0.0
    labeled_seconds: float = 0.0
    stage_seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    started: float = field(default_factory=time.monotonic)
    classifiers: tuple[int, int] | None = None
    checking: bool = False
    first_row: float | None = None
    _latest_row: float | None = None
    _classifiers_since: float | None = None  # the first one is ready
    _unreached: int = 0  # recordings in a row whose storage did not answer
    _reached: float = field(default_factory=time.monotonic)

    @property
    def not_ok(self) -> int:
        """Rows that are not ``ok``; their recordings may keep an earlier label."""
        return self.status.total() - self.status[Status.OK]

    @property
    def unreachable(self) -> int:
        """Recordings whose content could not be reached; what they had before is kept."""
        return sum(count for status, count in self.status.items() if not Status(status).final)

    @property
    def outage(self) -> bool:
        """Whether nothing but recordings out of reach has come for minutes."""
        silent = time.monotonic() - self._reached
        return self._unreached >= _OUTAGE_RECORDINGS and silent >= _OUTAGE_SECONDS

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.started

    @property
    def labeling_seconds(self) -> float:
        """Seconds of labelling, without the start: from the first classifier to the latest row."""
        return self._labeling_seconds(self._latest_row)

    @property
    def files_per_second(self) -> float:
        """While labelling; 0 before."""
        return self.done / self.labeling_seconds if self.done else 0.0

    @property
    def times_real_time(self) -> float:
        """Seconds of audio that the model gets in one second, while labelling."""
        return self.labeled_seconds / self.labeling_seconds if self.done else 0.0

    @property
    def phase(self) -> str:
        """What the run is doing."""
        if self.checking:
            return "looking for recordings without a row"
        if self.first_row is not None:
            return "labelling"
        if self.classifiers is None and self.total is None:
            return "listing the input"
        ready = self.classifiers is not None and self.classifiers[1] > 0
        return "waiting for the first labels" if ready else "starting classifiers"

    def classifiers_ready(self, ready: int, seconds: float) -> None:
        """Takes over how many classifiers are ready, and for how long the first one has been."""
        most, _ = self.classifiers or (ready, 0)
        self.classifiers = max(most, ready), ready
        since = time.monotonic() - seconds
        self._classifiers_since = min(since, self._classifiers_since or since)

    def add(self, labeled: pa.Table, rows: pa.Table) -> None:
        """Counts recordings, as the pipeline returns them and as they go to the output."""
        self._latest_row = time.monotonic()
        self.first_row = self.first_row or self._latest_row
        self.done += len(labeled) - labeled[NUM_ROWS.name].null_count
        self.status.update(_counts(rows["status"]))
        self.label.update(_counts(rows["label"]))
        self.device.update(_counts(labeled[DEVICE.name]))
        if rows.num_rows and set(rows["status"].unique().to_pylist()) == {Status.UNAVAILABLE}:
            self._unreached += rows.num_rows
        else:
            self._unreached, self._reached = 0, time.monotonic()
        self.audio_seconds += pc.sum(_durations(labeled)).as_py() or 0.0
        scored = labeled.filter(labeled["precision"].is_valid())
        self.labeled_seconds += pc.sum(pc.subtract(scored["end"], scored["start"])).as_py() or 0.0
        for stage in (*DECODE_STAGES, *CLASSIFY_STAGES):
            self.stage_seconds[stage] += pc.sum(labeled[stage_seconds(stage).name]).as_py() or 0

    def listing(self, plan: Plan, ended: bool) -> None:
        """Takes over what has been listed so far."""
        self.plan, self.total = plan, plan.to_do if ended else None

    def phase_line(self) -> str:
        """The state of a run that is not labelling, in one line."""
        if self.phase == "listing the input":
            return f"{self.phase}: {counted(self.plan.listed, 'recording')} so far"
        if self.phase == "starting classifiers" and self.classifiers:
            return f"{self.phase}: {self.classifiers[1]} of {self.classifiers[0]} ready"
        return self.phase

    def line(self) -> str:
        """The state of a run that has rows, in one line."""
        seconds = self._labeling_seconds(time.monotonic())
        where = ", ".join(self.device) or "no classifier yet"
        left = "unknown time"
        if self.total is None:
            count = f"{counted(self.done, 'recording')} ({self.plan.listed:,} listed so far)"
        else:
            share = f" ({self.done / self.total:.0%})" if self.total else ""
            count = f"{self.done:,} of {counted(self.total, 'recording')}{share}"
            if self.done:
                left = clock((self.total - self.done) * seconds / self.done)
        rates = _rates(self.done / seconds, self.labeled_seconds / seconds)
        return (
            f"{where}: {count}, {self.not_ok:,} not ok, {rates}, {left} left,"
            f" {clock(self.elapsed)} elapsed"
        )

    def counts(self) -> dict[str, Any]:
        """What `line` says, for a program."""
        return {
            "listed": self.plan.listed,
            "listing_ended": self.total is not None,
            "by_status": dict(self.status),
            "audio_seconds": self.audio_seconds,
            "labeled_seconds": self.labeled_seconds,
            "labeling_seconds": self._labeling_seconds(time.monotonic()),
            "elapsed_seconds": self.elapsed,
        }

    def _labeling_seconds(self, until: float | None) -> float:
        """Until a time; 0 before the first row."""
        if self.first_row is None or until is None:
            return 0.0
        begin = min(self.first_row, self._classifiers_since or self.first_row)
        return max(until - begin, _LEAST_SECONDS)

    def report(self) -> dict[str, Any]:
        """The counts and rates that go into the run's JSON."""
        first_row = None if self.first_row is None else self.first_row - self.started
        return {
            "recordings": self.done,
            "unreachable": self.unreachable,
            "by_status": dict(self.status),
            "by_label": dict(self.label),
            "by_device": dict(self.device),
            "audio_hours": self.audio_seconds / 3600,
            "labeled_hours": self.labeled_seconds / 3600,
            "compute_hours": self.stage_seconds["compute"] / 3600,
            "stage_seconds": dict(self.stage_seconds),
            "elapsed_seconds": self.elapsed,
            "seconds_to_first_row": first_row,
            "labeling_seconds": self.labeling_seconds,
            "files_per_second": self.files_per_second,
            "times_real_time": self.times_real_time,
        }


def _rates(files_per_second: float, times_real_time: float) -> str:
    return f"{files_per_second:,.1f} files/s, {times_real_time:,.0f} × real time"


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    counts = column.drop_null().value_counts().to_pylist()
    return {each["values"]: each["counts"] for each in counts}


def _durations(labeled: pa.Table) -> pa.ChunkedArray:
    """Of each recording, s, in its last row: of the file, or of the stretch of it."""
    start, duration = labeled[START.name], labeled["duration"]
    stretch = pc.coalesce(labeled[DURATION.name], pc.subtract(duration, start))
    return pc.if_else(pc.and_(start.is_valid(), duration.is_valid()), stretch, duration)


@contextmanager
def showing(stats: RunStats, refresh: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Within it, a thread says every second how far the run is; see `ser_core.console.progress`.

    Args:
        stats: what is said.
        refresh: called before, to bring them up to date.
    """
    stopped = threading.Event()

    def tick() -> None:
        shown = ""
        while not stopped.wait(_TICK_SECONDS):
            refresh()
            if stats.phase != shown:
                shown = stats.phase
                phase(shown)
            _say_progress(stats)

    thread, done = threading.Thread(target=tick, daemon=True), False
    thread.start()
    try:
        yield
        done = True
    finally:
        stopped.set()
        thread.join(_LAST_LOOK_SECONDS)  # it may be waiting for a cluster that is gone
        if done:
            refresh()
        _say_progress(stats, last=True)


def _say_progress(stats: RunStats, last: bool = False) -> None:
    if stats.first_row is not None and (last or not stats.checking):
        progress(stats.line(), stats.done, stats.total, stats.counts(), last)
    elif not last:
        progress(stats.phase_line(), facts=stats.counts())


def print_summary(stats: RunStats, output: str) -> None:
    """The tables at the end of a run, on standard output; what to look after, on standard error."""
    tables = [
        _table(name, counts)
        for name, counts in (("label", stats.label), ("status", stats.status))
        if counts
    ]
    rates = _rates(stats.files_per_second, stats.times_real_time)
    show(
        *tables,
        f"{counted(stats.done, 'recording')}, {stats.audio_seconds / 3600:,.2f} h of audio, "
        f"in {clock(stats.elapsed)}",
        f"labelling took {clock(stats.labeling_seconds)} of that: {rates}",
        f"labels: {output}",
        facts=stats.report(),
    )
    if stats.unreachable:
        say(
            f"{counted(stats.unreachable, 'recording')} could not be reached; existing labels are"
            " kept, and the next run tries again",
            logging.WARNING,
        )


def _table(name: str, counts: Counter[str]) -> Table:
    table = Table()
    table.add_column(name, overflow="fold")
    for column in ("rows", "share"):
        table.add_column(column, justify="right", no_wrap=True)
    for value, count in counts.most_common():
        table.add_row(value, f"{count:,}", f"{count / counts.total():.1%}")
    return table
