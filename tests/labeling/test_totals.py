"""What rows add up to: recordings and hours, whatever rows a recording has."""

import pyarrow as pa
import pytest

from ser_core.labeling.totals import totals


def table(*rows):
    """Rows of (uri, duration)."""
    uri, duration = zip(*rows, strict=True)
    count = len(rows)
    return pa.table(
        {
            "uri": pa.array(uri, pa.string()),
            "duration": pa.array(duration, pa.float64()),
            "status": ["ok"] * count,
            "label": pa.array(["sad", *[None] * (count - 1)]),
        }
    )


@pytest.mark.parametrize(
    ("rows", "recordings", "seconds"),
    [
        ([("/a", 2.0), ("/b", 3.0)], 2, 5.0),
        ([("/a", 12.0), ("/a", 12.0), ("/b", 3.0)], 2, 15.0),  # --rows segment, --channels each
        ([("/a", None), ("/b", 3.0)], 2, 3.0),  # a duration that is not known
        # A stretch is as long as itself, not as its file.
        ([("/a#t=2.5,4", 60.0), ("/a#t=4,10", 60.0), ("/b", 3.0)], 3, 10.5),
        ([("/a#t=50", 60.0)], 1, 10.0),  # to the end of the file
        ([("/a#t=50", None), ("/a#t=1,2", None)], 2, 1.0),
        ([("/odd#t=x", 2.0)], 1, 2.0),
        ([(None, 2.0), (None, 3.0)], 2, 5.0),  # release 0.1, before its manifest was listed
    ],
)
def test_recordings_and_hours(rows, recordings, seconds):
    added = totals([table(*rows)])
    assert (added["rows"], added["recordings"]) == (len(rows), recordings)
    assert added["audio_hours"] == pytest.approx(seconds / 3600)
    assert (added["by_status"], added["by_label"]) == ({"ok": len(rows)}, {"sad": 1})


def test_several_parts():
    added = totals([table(("/a", 1.0)), table(("/b", 2.0), ("/b", 2.0))])
    assert (added["rows"], added["recordings"]) == (3, 2)
    assert added["audio_hours"] == pytest.approx(3 / 3600)


def test_columns_in_chunks():
    """As a filter leaves them: the same recording on both sides of an edge is one."""
    chunks = pa.concat_tables([table(("/a", 1.0)), table(("/a", 1.0), ("/b", 2.0))])
    assert totals([chunks])["recordings"] == 2


def test_nothing():
    assert totals([])["recordings"] == 0
    assert totals([table(("/a", 1.0)).slice(0, 0)])["audio_hours"] == 0
