"""What a run would do, and how long it may take: ``--dry-run``; it writes nothing."""

import math
import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from rich.table import Table

from ser_core.console import clock, counted, phase, show
from ser_core.errors import RecordingError, first_few
from ser_core.labeling.pipeline import connected
from ser_core.labeling.plan import Plan
from ser_core.labeling.preparation import Run
from ser_core.labeling.resources import Resources, choose_resources
from ser_core.schema import MEMBER, SIZE
from ser_core.sources.decoder import Decoder
from ser_core.sources.file_decoder import Decoded
from ser_core.sources.recording import Recording, recordings_of

_SAMPLE, _SAMPLE_WHOLE = 32, 8  # recordings that are decoded, to their end if need be
MOST_NAMED = 10  # places that cannot be listed
_TIMED_SEGMENTS = 8  # that are classified
_FIRST_BYTES = 1 << 20  # that the first 6 s of a recording take, at most
_SEGMENTS_PER_GPU = 2_400.0  # per second: an H200 with 16 cores and WAV files, gpu.json


def describe(run: Run) -> Plan:
    """Prints what there is to do, and estimates from a sample how long it takes.

    Returns:
        What there is to do.

    Raises:
        CorpusError: the input cannot be listed, or is empty.
    """
    plan, look = _look(run)
    table = Table("", "", show_header=False)
    table.add_row("recordings", f"{plan.listed:,}" + (" or more" if plan.limited else ""))
    table.add_row("done", f"{plan.done:,}")
    again = f" ({plan.again:,} of them again: changed, or labelled in another way)"
    table.add_row("to label", f"{plan.to_do:,}{again if plan.again else ''}")
    if plan.skipped:
        table.add_row("passed over by name", f"{plan.skipped.total():,}")
    if plan.unseen:
        table.add_row(
            "cannot be listed", f"{len(plan.unseen):,}: {first_few(plan.unseen, MOST_NAMED)}"
        )
    if plan.to_do:
        _add_estimates(table, run, plan, look)
    show(table)
    return plan


class _Look:
    """What a look at the whole plan keeps of it.

    Attributes:
        num_bytes: of all files, each read once whatever the number of its stretches.
        recordings: some, drawn at random.
    """

    def __init__(self, whole: bool) -> None:
        self.num_bytes = 0.0
        self._most_bytes = np.inf if whole else _FIRST_BYTES
        self._size = _SAMPLE_WHOLE if whole else _SAMPLE
        self._random = np.random.default_rng(0)
        self._keys = np.empty(0)  # the recordings with the smallest ones are the sample
        self._rows: list[pa.Table] = []

    def add(self, planned: pa.Table) -> None:
        """Takes a page of the plan, of at least one row."""
        files = planned.group_by(["uri", MEMBER.name]).aggregate([(SIZE.name, "max")])
        sizes = files[f"{SIZE.name}_max"].fill_null(0).to_numpy()
        self.num_bytes += float(np.minimum(sizes, self._most_bytes).sum())
        keys = self._random.random(len(planned))
        first = np.argsort(keys)[: self._size]
        rows = [*self._rows, *(planned.slice(int(row), 1) for row in first)]
        keys = np.concatenate([self._keys, keys[first]])
        first = np.argsort(keys)[: self._size]
        self._keys, self._rows = keys[first], [rows[row] for row in first]

    @property
    def recordings(self) -> list[Recording]:
        return recordings_of(pa.concat_tables(self._rows))


def _look(run: Run) -> tuple[Plan, _Look]:
    plan, index, look = Plan(), run.index(), _Look(run.decoder.how.whole)
    for _, planned in run.planned(run.pages(), index, plan):
        for growing in (plan.identity_hashes, plan.to_do_hashes, plan.known_to_0_1):
            growing.clear()  # nobody asks for them
        if len(planned):
            look.add(planned)
    return plan, look


@dataclass
class _Sample:
    """What was found in recordings from all over the plan.

    Attributes:
        recordings: how many they are.
        segments: of all of them.
        timed: the waveforms of the first few segments.
        durations: of those that tell, s.
        errors: how many have no label, by status.
    """

    recordings: int
    segments: int = 0
    timed: list[np.ndarray] = field(default_factory=list)
    durations: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    def add(self, recording: Recording, decoded: Decoded) -> None:
        self.segments += len(decoded.segments)
        missing = _TIMED_SEGMENTS - len(self.timed)
        self.timed += [segment.waveform for segment in decoded.segments[:missing]]
        if isinstance(decoded.result, RecordingError):
            self.errors[decoded.result.status.value] += 1
        elif decoded.result is not None:
            duration = recording.duration or decoded.result.duration
            self.durations += [duration] if duration is not None else []


def _add_estimates(table: Table, run: Run, plan: Plan, look: _Look) -> None:
    phase("decoding a sample")
    sample = _decode_sample(run, look.recordings)
    phase("starting Ray")
    whole = run.decoder.how.whole
    with connected(run.config.verbose):
        resources = choose_resources(plan.to_do, plan.segments if whole else plan.to_do)
    segments = sample.segments / sample.recordings * plan.to_do
    seconds = segments / _segments_per_second(run, resources, sample.timed)
    hours = "unknown"
    if sample.durations:
        hours = f"about {np.mean(sample.durations) * plan.to_do / 3600:,.2f} h"
    where = f"{resources.classifiers:,} {'GPUs' if resources.on_gpu else 'CPU cores'}"
    failed = ", ".join(f"{count} {status}" for status, count in sample.errors.items())
    table.add_row("audio", hours)
    table.add_row("segments", f"about {math.ceil(segments):,}")
    table.add_row("to read", f"about {look.num_bytes / 1e9:,.2f} GB")
    time_left = f"about {clock(seconds)} on {where}" if seconds else "unknown"
    table.add_row("time to classify", time_left)
    table.add_row(
        "sample",
        counted(sample.recordings, "recording") + (f", of which {failed}" if failed else ""),
    )


def _decode_sample(run: Run, recordings: list[Recording]) -> _Sample:
    sample = _Sample(len(recordings))
    with Decoder(run.decoder) as decoder:
        for decoded in decoder.decode(recordings):
            sample.add(recordings[decoded.recording], decoded)
    return sample


def _segments_per_second(run: Run, resources: Resources, timed: list[np.ndarray]) -> float:
    """Of all classifiers together; on CPUs, one is timed here."""
    if resources.on_gpu:
        return resources.classifiers * _SEGMENTS_PER_GPU
    phase("timing a classifier")
    config = run.config
    from ser_core.models.classifier import Classifier  # only here: torch takes seconds

    classifier = Classifier(run.checkpoint, config.precision, config.batch_size, num_threads=1)
    if not timed:
        return math.inf
    classifier.scores(timed[:1])  # the first one is slow
    started = time.perf_counter()
    classifier.scores(timed)
    return resources.classifiers * len(timed) / (time.perf_counter() - started)
