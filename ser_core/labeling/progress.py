"""How a run is getting on: counts, a bar or lines, a table at the end; it labels nothing."""

import threading
import time
from collections import Counter, defaultdict
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

from ser_core.audio.constants import SEGMENT_SECONDS
from ser_core.console import say
from ser_core.errors import Status
from ser_core.schema import CLASSIFY_STAGES, DECODE_STAGES, DEVICE, seconds_spent

_LINE_SECONDS = 10.0  # between two lines where there is no terminal


@dataclass
class Tally:
    """What a run has done so far.

    Attributes:
        total: recordings to label in this run.
        whole: whether recordings are heard to their end.
        status: recordings by status.
        label: labelled recordings by label.
        device: labelled recordings by device and precision.
        audio_seconds: the recordings' whole length.
        heard_seconds: what the model heard of it.
        stage_seconds: what each stage took, over all processes; see `schema.seconds_spent`.
    """

    total: int
    whole: bool = False
    status: Counter[str] = field(default_factory=Counter)
    label: Counter[str] = field(default_factory=Counter)
    device: Counter[str] = field(default_factory=Counter)
    audio_seconds: float = 0.0
    heard_seconds: float = 0.0
    stage_seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    started: float = field(default_factory=time.monotonic)
    first_row: float | None = None

    @property
    def done(self) -> int:
        """Recordings with a row, failed ones among them."""
        return self.status.total()

    @property
    def failed(self) -> int:
        """Recordings whose row is not ``ok``."""
        return self.done - self.status[Status.OK]

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.started

    def add(self, labeled: pa.Table, rows: pa.Table) -> None:
        """Counts rows: as the pipeline gave them, and as they go to the output."""
        self.first_row = self.first_row or time.monotonic()
        for counter, column in ((self.status, rows["status"]), (self.label, rows["label"])):
            counter.update(column.drop_null().to_pylist())
        self.device.update(labeled[DEVICE.name].drop_null().to_pylist())
        duration = rows["duration"]
        heard = (
            duration
            if self.whole
            else pc.min_element_wise(duration, SEGMENT_SECONDS, skip_nulls=False)
        )
        self.audio_seconds += pc.sum(duration).as_py() or 0.0
        self.heard_seconds += pc.sum(heard).as_py() or 0.0
        for stage in (*DECODE_STAGES, *CLASSIFY_STAGES):
            self.stage_seconds[stage] += pc.sum(labeled[seconds_spent(stage).name]).as_py() or 0

    def line(self) -> str:
        """Where the run stands, in one line."""
        rate = self.done / self.elapsed
        left = (self.total - self.done) / rate if self.done else None
        where = ", ".join(self.device) or "starting"
        return (
            f"{where}: {self.done:,} of {self.total:,} recordings, {self.failed:,} failed, "
            f"{rate:,.1f} files/s, {self.audio_seconds / 3600:,.2f} h of audio, "
            f"{self.heard_seconds / self.elapsed:,.0f} × real time, "
            f"{_clock(left) if left is not None else 'unknown'} left"
        )

    def report(self) -> dict[str, Any]:
        """The counts and rates that go into the run's JSON."""
        elapsed = self.elapsed
        labelling = time.monotonic() - self.first_row if self.first_row else 0.0
        return {
            "recordings": self.done,
            "by_status": dict(self.status),
            "by_label": dict(self.label),
            "by_device": dict(self.device),
            "audio_hours": self.audio_seconds / 3600,
            "heard_hours": self.heard_seconds / 3600,
            "compute_hours": self.stage_seconds["compute"] / 3600,
            "stage_seconds": dict(self.stage_seconds),
            "elapsed_seconds": elapsed,
            "seconds_to_first_row": elapsed - labelling,
            "files_per_second": self.done / elapsed,
            "times_real_time": self.heard_seconds / elapsed,
        }


class Display:
    """A bar on a terminal, elsewhere a line every few seconds, both on standard error."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._console = Console(stderr=True)
        self._stopped = threading.Event()
        self._lines = threading.Thread(target=self._print_lines, daemon=True)
        self._bar = Progress(
            SpinnerColumn(),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._task = self._bar.add_task("starting", total=tally.total)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar.start()
        else:
            self._lines.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._bar.stop()
        else:
            self._stopped.set()
            self._lines.join()

    def update(self) -> None:
        """Shows the tally as it is now."""
        tally = self._tally
        rate = tally.done / tally.elapsed
        speed = tally.heard_seconds / tally.elapsed
        words = f"{tally.failed:,} failed · {rate:,.1f} files/s · {speed:,.0f} × real time"
        self._bar.update(self._task, completed=tally.done, description=words)

    def _print_lines(self) -> None:
        while not self._stopped.wait(_LINE_SECONDS):
            say(self._tally.line())
        say(self._tally.line())


def print_summary(tally: Tally, output: str) -> None:
    """The table at the end of a run, on standard output."""
    table = Table("what", "recordings", title=None)
    for status, count in tally.status.most_common():
        table.add_row(status, f"{count:,}")
    table.add_section()
    for label, count in tally.label.most_common():
        table.add_row(label, f"{count:,}")
    console = Console(soft_wrap=True)
    console.print(table)
    console.print(
        f"{tally.done:,} recordings, {tally.audio_seconds / 3600:,.2f} h of audio, "
        f"in {_clock(tally.elapsed)}: {tally.done / tally.elapsed:,.1f} files/s, "
        f"{tally.heard_seconds / tally.elapsed:,.0f} × real time",
        highlight=False,
    )
    console.print(f"labels: {output}", highlight=False, markup=False)


def _clock(seconds: float) -> str:
    """A duration for reading.

    >>> _clock(3725)
    '1:02:05'
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
