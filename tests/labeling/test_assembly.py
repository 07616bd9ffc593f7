"""The rows of a recording are written together, whatever the order in which its segments come."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_core.labeling.assembly import Assembly, assembled_rows
from ser_core.schema import labeled_schema

LABELS = ("sad", "happy")
SCHEMA = labeled_schema(LABELS, pa.schema([]))


def table(rows):
    columns = {name: [row.get(name) for row in rows] for name in SCHEMA.names}
    return pa.table(columns, schema=SCHEMA)


def segment(index, start, end, sad, **more):
    scores = {"score_sad": sad, "score_happy": 1 - sad, "precision": "fp32"}
    return {"_index": index, "uri": f"/{index}", "start": start, "end": end} | scores | more


def last(num_rows, status="ok", **more):
    return {"_num_rows": num_rows, "status": status, "duration": 9.0, "quality": "quiet", **more}


def recording(index, ends, **more):
    """Segments one after another; the scores of the first are 0 and 1, of the others 1 and 0."""
    starts = [0.0, *ends[:-1]]
    pairs = zip(starts, ends, strict=True)
    rows = [segment(index, start, end, float(start > 0), **more) for start, end in pairs]
    rows[-1] |= last(len(rows))
    return rows


@settings(deadline=None, derandomize=True)
@given(
    order=st.permutations(range(12)),
    cuts=st.lists(st.integers(0, 12), max_size=4),
)
def test_recordings_are_complete_when_all_of_their_rows_have_come(order, cuts):
    rows = [
        *recording(0, [6.0, 9.0]),
        *recording(1, [4.0]),
        *recording(2, [6.0 * n for n in range(1, 10)]),
    ]
    assembly, complete, seen = Assembly(), [], []
    edges = [0, *sorted(cuts), 12]
    for start, end in pairwise(edges):
        block = [rows[position] for position in order[start:end]]
        seen += [row["_index"] for row in block]
        found = assembly.add(table(block))
        for index in found["_index"].unique().to_pylist():
            complete.append(index)
            expected = sum(row["_index"] == index for row in rows)
            assert found["_index"].to_pylist().count(index) == expected == seen.count(index)
    assert sorted(complete) == [0, 1, 2]


def test_one_row_per_recording_has_the_mean_weighted_by_length():
    rows = [*recording(5, [6.0, 9.0]), *recording(3, [4.0])]
    labeled = assembled_rows(table(rows[::-1]), LABELS, "recording")
    assert labeled["_index"].to_pylist() == [3, 5]
    np.testing.assert_allclose(labeled["score_sad"].to_numpy(), [0, 1 / 3], atol=1e-7)
    np.testing.assert_allclose(labeled["score_happy"].to_numpy(), [1, 2 / 3], atol=1e-7)
    assert labeled["start"].null_count == labeled["end"].null_count == 2
    assert labeled["status"].to_pylist() == ["ok", "ok"]
    assert labeled["duration"].to_pylist() == [9.0, 9.0]
    assert labeled["quality"].to_pylist() == ["quiet", "quiet"]


@pytest.mark.parametrize("rows_of", ["recording", "segment"])
def test_embeddings_are_averaged_as_the_scores_are(rows_of):
    rows = [*recording(5, [6.0, 9.0]), *recording(3, [4.0]), {"_index": 1} | last(1, "empty")]
    for row, embedding in zip(rows, [[3.0, 60000.0], [0.0, 65504.0], [0.1, -1.0]], strict=False):
        row["embedding"] = np.float16(embedding)
    schema = labeled_schema(LABELS, pa.schema([]), 2)
    columns = {name: [row.get(name) for row in rows[::-1]] for name in schema.names}
    labeled = assembled_rows(pa.table(columns, schema=schema), LABELS, rows_of)
    by_index = {row["_index"]: row["embedding"] for row in labeled.to_pylist()}
    assert by_index[1] is None
    assert by_index[3] == np.float16([0.1, -1.0]).tolist()
    if rows_of == "recording":
        assert by_index[5] == np.float16([2.0, (2 * 60000 + 65504) / 3]).tolist()
    else:
        assert len(labeled) == 4


def test_one_row_per_segment_knows_the_recording():
    labeled = assembled_rows(table(recording(5, [6.0, 9.0])[::-1]), LABELS, "segment")
    assert labeled["start"].to_pylist() == [0.0, 6.0]
    assert labeled["end"].to_pylist() == [6.0, 9.0]
    assert labeled["score_sad"].to_pylist() == [0, 1]
    assert labeled["status"].to_pylist() == ["ok", "ok"]
    assert labeled["duration"].to_pylist() == [9.0, 9.0]


def test_each_channel_has_its_own_row():
    rows = [segment(1, 0, 6, 1.0, channel=0), segment(1, 0, 6, 0.0, channel=1)]
    rows += [segment(1, 6, 9, 0.0, channel=0), segment(1, 6, 9, 0.0, channel=1) | last(4)]
    means = assembled_rows(table(rows), LABELS, "recording")
    assert means["channel"].to_pylist() == [0, 1]
    np.testing.assert_allclose(means["score_sad"].to_numpy(), [2 / 3, 0], atol=1e-7)
    segments = assembled_rows(table(rows), LABELS, "segment")
    keys = zip(segments["channel"].to_pylist(), segments["start"].to_pylist(), strict=True)
    assert list(keys) == [(0, 0), (0, 6), (1, 0), (1, 6)]


@pytest.mark.parametrize("rows_of", ["recording", "segment"])
def test_a_recording_that_fails_midway_has_one_row_and_no_scores(rows_of):
    rows = [segment(1, 0, 6, 1.0), {"_index": 1, "uri": "/1"} | last(2, "truncated", error="why")]
    labeled = assembled_rows(table([*rows, *recording(2, [4.0])]), LABELS, rows_of)
    by_index = {row["_index"]: row for row in labeled.to_pylist()}
    assert len(labeled) == 2
    assert by_index[1]["status"] == "truncated"
    assert by_index[1]["score_sad"] is by_index[1]["start"] is by_index[1]["end"] is None
    assert by_index[2]["status"] == "ok"


@pytest.mark.parametrize("rows_of", ["recording", "segment"])
def test_a_recording_without_speech_has_a_row(rows_of):
    silent = {"_index": 1, "uri": "/1", "speech": 0.0} | last(1, "no_speech")
    (row,) = assembled_rows(table([silent]), LABELS, rows_of).to_pylist()
    assert (row["status"], row["speech"], row["score_sad"]) == ("no_speech", 0.0, None)


def test_a_stretch_has_its_bounds_in_either_kind_of_rows():
    stretch = {"_start": 20.0, "_duration": 8.0}
    rows = [segment(1, 20, 26, 1.0, **stretch), segment(1, 26, 28, 0.0, **stretch) | last(2)]
    (row,) = assembled_rows(table(rows), LABELS, "recording").to_pylist()
    assert (row["start"], row["end"]) == (20.0, 28.0)
    assert row["score_sad"] == pytest.approx(0.75)
    segments = assembled_rows(table(rows), LABELS, "segment")
    assert segments["end"].to_pylist() == [26.0, 28.0]
    failed = {"_index": 1, "uri": "/1", **stretch} | last(1, "empty")
    (row,) = assembled_rows(table([failed]), LABELS, "recording").to_pylist()
    assert (row["start"], row["end"], row["status"]) == (20.0, 28.0, "empty")
