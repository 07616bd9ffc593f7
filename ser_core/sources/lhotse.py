"""lhotse's recordings and cuts → rows with a path and a stretch; nothing they name is executed.

Its manifests are JSON: https://lhotse.readthedocs.io/en/latest/api.html (`Recording`, `MonoCut`).
"""

from typing import Any

_STRETCHES = ("MonoCut", "MultiCut")
_CUTS = (*_STRETCHES, "Cut", "MixedCut", "PaddingCut")  # `Cut` of releases before 1.0
_OF_SUPERVISIONS = ("text", "speaker", "language", "gender")
_CONSUMED = ("start", "duration", "recording", "channel", "type")  # the other columns are kept


def manifest_row(row: dict[str, Any]) -> dict[str, Any]:
    """A recording or cut of lhotse as a row of a manifest; other rows are returned as they are.

    A cut's supervisions are kept as they are. What they agree on is a column, too.

    Args:
        row: a JSON object.

    Raises:
        ValueError: why it is not one file or a stretch of one.

    >>> source = {"type": "file", "channels": [0], "source": "a.wav"}
    >>> recording = {"id": "a", "sources": [source], "sampling_rate": 16000, "channel_ids": [0]}
    >>> manifest_row(recording)
    {'path': 'a.wav', 'id': 'a'}
    >>> cut = {"id": "b", "start": 1, "duration": 2, "channel": 0, "type": "MonoCut"}
    >>> row = manifest_row(cut | {"recording": recording})
    >>> row["path"], row["start"], row["duration"], row["id"], row["recording_id"]
    ('a.wav', 1, 2, 'b', 'a')
    """
    if isinstance(row.get("sources"), list) and "sampling_rate" in row:
        return {"path": _path(row), "id": row.get("id")}
    recording = row.get("recording")
    if row.get("type") in _CUTS or (isinstance(recording, dict) and "sources" in recording):
        return _cut(row)
    return row


def _cut(row: dict[str, Any]) -> dict[str, Any]:
    """A cut as a stretch of its recording."""
    name, recording = f"the cut {row.get('id')}", row.get("recording")
    if row.get("type", "Cut") not in (*_STRETCHES, "Cut"):
        raise ValueError(f"{name} is a {row['type']}, which is not a stretch of one recording")
    if not isinstance(recording, dict):
        raise ValueError(f"{name} has no recording")
    if "start" not in row or "duration" not in row:
        raise ValueError(f"{name} has no start or no duration")
    path = _path(recording)
    channel = row.get("channel", recording.get("channel_ids"))
    if _channels(channel) != _channels(recording.get("channel_ids", channel)):
        raise ValueError(f"{name} takes some channels of several; all of them are mixed")
    supervisions = row.get("supervisions") or []
    return {
        **{key: value for key, value in row.items() if key not in _CONSUMED},
        "recording_id": recording.get("id"),
        **{key: _agreed(supervisions, key) for key in _OF_SUPERVISIONS},
        "path": path,
        "start": row["start"],
        "duration": row["duration"],
    }


def _path(recording: dict[str, Any]) -> str:
    """The file that a recording consists of."""
    name, sources = f"the recording {recording.get('id')}", recording.get("sources")
    if recording.get("transforms"):
        raise ValueError(f"{name} has transforms, which are not applied; save what they make")
    if not isinstance(sources, list) or len(sources) != 1 or not isinstance(sources[0], dict):
        raise ValueError(f"{name} does not consist of one file")
    kind, path = sources[0].get("type"), sources[0].get("source")
    if kind == "command":
        raise ValueError(f"{name} is the output of a command, which is never executed")
    if kind not in ("file", "url") or not isinstance(path, str):
        raise ValueError(f"{name} is of type {kind}, which is neither a file nor a URL")
    return path


def _channels(value: Any) -> set[str]:
    return {str(channel) for channel in (value if isinstance(value, list) else [value])}


def _agreed(supervisions: Any, key: str) -> Any:
    """A value that all supervisions share; None where they differ or there are none."""
    if not isinstance(supervisions, list) or not all(isinstance(s, dict) for s in supervisions):
        return None
    values = [supervision.get(key) for supervision in supervisions]
    return values[0] if values and values.count(values[0]) == len(values) else None
