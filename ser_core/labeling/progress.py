"""How a run progresses: counts, a bar or lines, a table at the end; it labels nothing."""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from ser_core.console import say, show
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
_REFRESH_SECONDS = 1.0  # between two looks at the listing
_LINE_SECONDS = 10.0  # between two lines where there is no terminal


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
    first_row: float | None = None
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

    def add(self, labeled: pa.Table, rows: pa.Table) -> None:
        """Counts recordings, as the pipeline returns them and as they go to the output."""
        self.first_row = self.first_row or time.monotonic()
        self.done += len(labeled) - labeled[NUM_ROWS.name].null_count
        for counter, column in ((self.status, rows["status"]), (self.label, rows["label"])):
            counter.update(column.drop_null().to_pylist())
        if rows.num_rows and set(rows["status"].unique().to_pylist()) == {Status.UNAVAILABLE}:
            self._unreached += rows.num_rows
        else:
            self._unreached, self._reached = 0, time.monotonic()
        self.device.update(labeled[DEVICE.name].drop_null().to_pylist())
        self.audio_seconds += pc.sum(_durations(labeled)).as_py() or 0.0
        scored = labeled.filter(labeled["precision"].is_valid())
        self.labeled_seconds += pc.sum(pc.subtract(scored["end"], scored["start"])).as_py() or 0.0
        for stage in (*DECODE_STAGES, *CLASSIFY_STAGES):
            self.stage_seconds[stage] += pc.sum(labeled[stage_seconds(stage).name]).as_py() or 0

    def listing(self, plan: Plan, ended: bool) -> None:
        """Takes over what has been listed so far."""
        self.plan, self.total = plan, plan.to_do if ended else None

    def line(self) -> str:
        """The state of the run in one line."""
        rate = self.done / self.elapsed
        where = ", ".join(self.device) or "starting"
        if self.total is None:
            count = f"{self.done:,} recordings ({self.plan.listed:,} listed so far)"
        else:
            share = f" ({self.done / self.total:.0%})" if self.total else ""
            count = f"{self.done:,} of {self.total:,} recordings{share}"
        left = "unknown"
        if self.done and self.total is not None:
            left = clock((self.total - self.done) / rate)
        return (
            f"{where}: {count}, {self.not_ok:,} not ok, "
            f"{rate:,.1f} files/s, {self.audio_seconds / 3600:,.2f} h of audio, "
            f"{self.labeled_seconds / self.elapsed:,.0f} × real time, {left} left"
        )

    def report(self) -> dict[str, Any]:
        """The counts and rates that go into the run's JSON."""
        elapsed = self.elapsed
        labeling = time.monotonic() - self.first_row if self.first_row else 0.0
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
            "elapsed_seconds": elapsed,
            "seconds_to_first_row": elapsed - labeling,
            "files_per_second": self.done / elapsed,
            "times_real_time": self.labeled_seconds / elapsed,
        }


def _durations(labeled: pa.Table) -> pa.ChunkedArray:
    """Of each recording, s, in its last row: of the file, or of the stretch of it."""
    start, duration = labeled[START.name], labeled["duration"]
    stretch = pc.coalesce(labeled[DURATION.name], pc.subtract(duration, start))
    return pc.if_else(pc.and_(start.is_valid(), duration.is_valid()), stretch, duration)


class Display:
    """A bar on a terminal, elsewhere a line every few seconds, both on standard error."""

    def __init__(self, stats: RunStats, refresh: Callable[[], None] = lambda: None) -> None:
        """Shows nothing yet.

        Args:
            stats: what is shown.
            refresh: called before they are shown, once in a while.
        """
        self._stats = stats
        self._refresh = refresh
        self._refreshed = time.monotonic()
        console = Console(stderr=True)
        self._has_bar = console.is_terminal  # asked now: a terminal may go away
        self._stopped = threading.Event()
        self._lines = threading.Thread(target=self._print_lines, daemon=True)
        self._bar = Progress(
            SpinnerColumn(),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._bar.add_task("starting", total=stats.total)

    def __enter__(self) -> Self:
        if self._has_bar:
            self._bar.start()
        else:
            self._lines.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._has_bar:
            with suppress(OSError):  # a terminal that is gone must not end the run
                self._bar.stop()
        else:
            self._stopped.set()
            self._lines.join()

    def update(self) -> None:
        """Shows the statistics as they are now."""
        stats = self._stats
        if self._has_bar and time.monotonic() - self._refreshed > _REFRESH_SECONDS:
            self._refresh()
            self._refreshed = time.monotonic()
        rate = stats.done / stats.elapsed
        speed = stats.labeled_seconds / stats.elapsed
        description = f"{stats.not_ok:,} not ok · {rate:,.1f} files/s · {speed:,.0f} × real time"
        if stats.total is None:
            description = f"{stats.plan.listed:,} listed so far · {description}"
        self._bar.update(
            self._task, description=description, completed=stats.done, total=stats.total
        )

    def _print_lines(self) -> None:
        while not self._stopped.wait(_LINE_SECONDS):
            self._refresh()
            say(self._stats.line())
        say(self._stats.line())


def print_summary(stats: RunStats, output: str) -> None:
    """The table at the end of a run, on standard output; what to look after, on standard error."""
    table = Table("what", "rows", title=None)
    for status, count in stats.status.most_common():
        table.add_row(status, f"{count:,}")
    table.add_section()
    for label, count in stats.label.most_common():
        table.add_row(label, f"{count:,}")
    show(
        table,
        f"{stats.done:,} recordings, {stats.audio_seconds / 3600:,.2f} h of audio, "
        f"in {clock(stats.elapsed)}: {stats.done / stats.elapsed:,.1f} files/s, "
        f"{stats.labeled_seconds / stats.elapsed:,.0f} × real time",
        f"labels: {output}",
    )
    if stats.unreachable:
        say(
            f"{stats.unreachable:,} recordings could not be reached; labels that they have are"
            " kept, and the next run tries them again"
        )


def clock(seconds: float) -> str:
    """A duration for reading.

    >>> clock(3725)
    '1:02:05'
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
