"""What the rows of an output add up to: recordings, hours of audio, statuses and labels."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

TOTAL_COLUMNS = ("uri", "duration", "status", "label")
_STRETCH = r"#t=(?P<start>[0-9.]+)(?:,(?P<end>[0-9.]+))?$"  # as `Recording.identity` writes it


def totals(tables: Iterable[pa.Table]) -> dict[str, Any]:
    """Adds up rows of ``TOTAL_COLUMNS``, those of a recording next to each other.

    Returns:
        The rows, the recordings, the hours of audio of those whose duration is known, and the rows
        by status and by label.
    """
    status, label = Counter[str](), Counter[str]()
    recordings, seconds = 0, 0.0
    for table in tables:
        status.update(table["status"].drop_null().to_pylist())
        label.update(table["label"].drop_null().to_pylist())
        first = table.filter(_is_first(table["uri"].combine_chunks()))
        recordings += len(first)
        seconds += float(np.nansum(_durations(first)))
    return {
        "rows": status.total(),
        "recordings": recordings,
        "audio_hours": seconds / 3600,
        "by_status": dict(status),
        "by_label": dict(label),
    }


def _is_first(uri: pa.Array) -> pa.Array:
    """Whether a row is the first of its recording."""
    first = np.ones(len(uri), bool)
    differs = pc.not_equal(uri[1:], uri[:-1]).fill_null(True)  # rows of release 0.1 may lack it
    first[1:] = differs.to_numpy(zero_copy_only=False)
    return pa.array(first)


def _durations(recordings: pa.Table) -> np.ndarray:
    """Of each, s; of the stretch of the file if it is one; NaN where that is not known."""
    stretches = pc.extract_regex(recordings["uri"], _STRETCH).combine_chunks()
    start, end = (
        pc.struct_field(stretches, name).to_numpy(zero_copy_only=False) for name in ("start", "end")
    )
    whole: np.ndarray = recordings["duration"].to_numpy()
    lengths = whole.copy()
    for row in np.flatnonzero(pc.is_valid(stretches).to_numpy(zero_copy_only=False)):
        lengths[row] = (float(end[row]) if end[row] else whole[row]) - float(start[row])
    return lengths
