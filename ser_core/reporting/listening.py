"""A table of labels → the recordings to listen to; it opens none."""

from dataclasses import dataclass
from typing import Any

from ser_core.errors import Status
from ser_core.reporting.label_table import LabelTable, records
from ser_core.sources.recording import Recording

# To decode these again takes as long, or as much memory, as it did before.
_COSTLY = frozenset({Status.TIMEOUT, Status.CRASHED, Status.TOO_LARGE})
_COLUMNS = 'path, uri, start, "end", channel, label, score, margin, error'


@dataclass(frozen=True)
class Listening:
    """Recordings of one kind.

    Attributes:
        title: of the kind.
        meaning: why to listen to them.
        recordings: ``path``, ``identity`` of the recording or segment, ``text``.
        playable: whether it makes sense to decode them again.
    """

    title: str
    meaning: str
    recordings: list[dict[str, Any]]
    playable: bool = True


def to_listen(table: LabelTable, drift: dict[str, Any] | None, most: int) -> list[Listening]:
    """Those whose label changed, the least sure, the surest of each label, the failed.

    Args:
        table: of labels.
        drift: as `summarize_drift` returns it, if they were compared.
        most: recordings of each kind.
    """
    if not most:
        return []
    kinds = [
        (
            "Least sure",
            "Two classes are nearly as probable. If you cannot decide either, nothing is wrong.",
            "label is not null order by margin",
        )
    ]
    for label in table.classes:
        meaning = "The highest scores of this label. If these are wrong, others probably are, too."
        kinds.append((f"Surest {label}", meaning, f"label = {_text(label)} order by score desc"))
    groups = [
        _changed(drift["changed_recordings"][:most] if drift else []),
        *(Listening(title, meaning, _found(table, query, most)) for title, meaning, query in kinds),
    ]
    for status in sorted(set(Status) - {Status.OK}):
        found = _found(table, f"status = '{status}' order by error", most)
        title, meaning = f"Failed: {status}", f"Their status is {status}."
        groups.append(Listening(title, meaning, found, status not in _COSTLY))
    return [group for group in groups if group.recordings]


def _found(table: LabelTable, query: str, most: int) -> list[dict[str, Any]]:
    found = table.frame(f"select {_COLUMNS} from {{rows}} where {query}, uri, start limit {most}")
    return [_shown(row) for row in records(found)]


def _changed(rows: list[dict[str, Any]]) -> Listening:
    recordings = [
        {
            "path": row["path"],
            "identity": segment_identity(row["uri"], row["start"], row["end"]),
            "text": f"{row['before']}, now {row['now']}{_where(row)}",
        }
        for row in rows
    ]
    meaning = "They have another label than in the baseline."
    return Listening("Changed", meaning, recordings)


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    text = row["error"]
    if row["label"] is not None:
        text = f"{row['label']} {row['score']:.3f}, margin {row['margin']:.3f}"
    return {
        "path": row["path"],
        "identity": segment_identity(row["uri"], row["start"], row["end"]),
        "text": f"{text}{_where(row)}",
    }


def _where(row: dict[str, Any]) -> str:
    """What follows the text of a row that is a part of its recording."""
    mixed = "" if row["channel"] is None else " (the clip is the mix of all)"
    return f", {place(row)}{mixed}" if place(row) else ""


def place(row: dict[str, Any]) -> str:
    """Where a row lies in its recording, in words; empty for all of it.

    >>> place({"start": 6.0, "end": 12.0, "channel": 1})
    '6.0 to 12.0 s, channel 1'
    >>> place({"start": 50.0, "end": None, "channel": None})  # to an end that is not known
    'from 50.0 s'
    """
    start, end, channel = row["start"], row["end"], row["channel"]
    words = []
    if start is not None:
        words.append(f"from {start:.1f} s" if end is None else f"{start:.1f} to {end:.1f} s")
    if channel is not None:
        words.append(f"channel {channel}")
    return ", ".join(words)


def segment_identity(uri: str, start: float | None, end: float | None) -> str:
    """The identity of a segment of a recording, by which it can be opened.

    >>> segment_identity("/a.wav", 6.0, 12.0), segment_identity("/a.wav#t=1,3", 1.0, 3.0)
    ('/a.wav#t=6,12', '/a.wav#t=1,3')
    >>> segment_identity("/day.wav", 43201.125, 43207.125)  # to the microsecond
    '/day.wav#t=43201.125,43207.125'
    """
    if start is None or end is None:
        return uri
    return Recording(uri.partition("#t=")[0], start=start, duration=end - start).identity


def _text(value: str) -> str:
    """A text in SQL."""
    return "'" + value.replace("'", "''") + "'"
