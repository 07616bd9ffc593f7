"""Rows of a folder → the same recordings, labelled by the model card's script, and compared."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ser_core.errors import RecordingError
from ser_core.models.card import DURATION, Card
from ser_core.sources.lookup import look_up
from ser_core.sources.recording import Recording
from ser_core.verification.comparison import Compared, compare
from ser_core.verification.origin import Cutting
from ser_core.verification.recordings import load, local_files
from ser_core.verification.segments import expected_scores

Row = dict[str, Any]

_MOST_SECONDS = 1800.0  # of one file, which librosa holds in memory several times over


@dataclass(frozen=True)
class Skipped:
    """A row that could not be compared.

    Attributes:
        path: as in the row.
        reason: why, in words that rows share.
        detail: what this one adds.
    """

    path: str
    reason: str
    detail: str = ""


def label_again(
    rows: Sequence[Row], cuttings: Mapping[str, Cutting], card: Card
) -> Iterator[Compared | Skipped]:
    """Labels the recordings of rows once more, one after the other, and compares.

    Args:
        rows: of the output.
        cuttings: how the rows of each `model_digest` were cut.
        card: the model card's script.

    Yields:
        The outcome of each row, in no particular order.
    """
    of_recording: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        of_recording[row["uri"]].append(row)
    there: dict[str, Recording] = {}
    for identity, recording in look_up(of_recording).items():
        kept = []
        for row in of_recording[identity]:
            problem = _problem(row, recording, cuttings[row["model_digest"]])
            if problem is None:
                kept.append(row)
            else:
                yield problem
        if kept and isinstance(recording, Recording):
            of_recording[identity], there[identity] = kept, recording
    for identities, path in local_files(there):
        same_file = [row for each in identities for row in of_recording[each]]
        for each_channel in (False, True):
            some = [row for row in same_file if (row["channel"] is not None) == each_channel]
            if some:
                yield from _label_file(some, path, cuttings, card)


def _problem(row: Row, recording: Recording | RecordingError, cutting: Cutting) -> Skipped | None:
    """Why a row cannot be compared, as far as can be told without its file."""
    if isinstance(recording, RecordingError):
        return Skipped(row["path"], "cannot be read now", str(recording))
    of_0_1 = replace(recording, name=row["path"]).file_id_of_0_1
    if row["file_id"] not in (recording.file_id, of_0_1):
        return Skipped(row["path"], "the file has changed since it was labelled")
    needed = _seconds_needed(row, cutting) or row["duration"]
    if needed is not None and needed > _MOST_SECONDS:
        most = f"{_MOST_SECONDS / 60:.0f} minutes"
        return Skipped(row["path"], f"the card's script would hold more than {most} in memory")
    return None


def _label_file(
    rows: Sequence[Row],
    path: Path | RecordingError,
    cuttings: Mapping[str, Cutting],
    card: Card,
) -> Iterator[Compared | Skipped]:
    """The rows of one file, all of its mix or all of single channels."""
    needed = [_seconds_needed(row, cuttings[row["model_digest"]]) for row in rows]
    seconds = None if None in needed else max(each for each in needed if each is not None)
    if isinstance(path, RecordingError):
        yield from (Skipped(row["path"], "cannot be read now", str(path)) for row in rows)
        return
    try:
        waveform = load(path, rows[0]["channel"] is None, seconds)
    except RecordingError as error:
        yield from (Skipped(row["path"], "librosa cannot read it", str(error)) for row in rows)
        return
    for row in rows:
        cutting = cuttings[row["model_digest"]]
        channel = waveform[row["channel"] or 0]
        stretch = row["start"] or 0.0, row["end"]  # null for a whole recording
        scores = expected_scores(channel, stretch, cutting, card.scores_of)
        yield compare(row, scores, card.labels)


def _seconds_needed(row: Row, cutting: Cutting) -> float | None:
    """How much of the file's beginning a row needs; None for all of it."""
    if cutting.rows == "recording" and cutting.segments == "first":
        return (row["start"] or 0.0) + DURATION
    seconds: float | None = row["end"]
    return seconds
