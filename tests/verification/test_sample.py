"""Every current label is drawn with the same probability, and no other row is."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ser_core.errors import CorpusError
from ser_core.labeling.current_rows import open_labels
from ser_core.labeling.parts import Part
from ser_core.schema import in_schema, output_schema
from ser_core.verification.sample import draw, origins

SCHEMA = output_schema(("sad", "happy"), pa.schema([]))
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def write(folder, name, paths, hours=0, **columns):
    """Rows at an hour; columns are values for all rows, or lists."""
    count = len(paths)
    values = {
        "path": paths,
        "uri": paths,
        "file_id": paths,
        "status": "ok",
        "label": "sad",
        "score": 0.9,
        "score_sad": 0.9,
        "score_happy": 0.1,
        "model": "m",
        "model_digest": "d",
        "labeled_at": NOON + timedelta(hours=hours),
    } | columns
    lists = {n: v if isinstance(v, list) else [v] * count for n, v in values.items()}
    folder.mkdir(exist_ok=True)
    pq.write_table(in_schema(lists, SCHEMA), folder / f"part-{name}.parquet")


def drawn(folder, size, seed=0, digests=("d",)):
    return [row["path"] for row in draw(open_labels(str(folder)), digests, size, seed)]


def test_rows_of_all_parts_alike(tmp_path):
    write(tmp_path, "a", [f"/a{n}" for n in range(40)])
    write(tmp_path, "b", [f"/b{n}" for n in range(10)])
    counts = dict.fromkeys("ab", 0)
    for seed in range(40):
        paths = drawn(tmp_path, 20, seed)
        assert len(set(paths)) == 20
        for path in paths:
            counts[path[1]] += 1
    assert counts["a"] == pytest.approx(640, abs=45)  # of 800; five standard deviations
    assert drawn(tmp_path, 5, 7) == drawn(tmp_path, 5, 7) != drawn(tmp_path, 5, 8)
    assert len(drawn(tmp_path, 100)) == 50


def test_only_current_labels_of_the_model(tmp_path):
    write(tmp_path, "a", ["/1", "/2", "/3", "/4", "/5"], status=["ok"] * 4 + ["empty"])
    write(tmp_path, "b", ["/1", "/2", "/6"], 1, status=["decode_error", "unavailable", "ok"])
    write(tmp_path, "c", ["/3", "/7"], 2, model_digest=["e", "e"])
    assert sorted(drawn(tmp_path, 10)) == ["/2", "/4", "/6"]
    assert sorted(drawn(tmp_path, 10, digests=("d", "e"))) == ["/2", "/3", "/4", "/6", "/7"]


def test_segments_of_one_recording_are_current_together(tmp_path):
    write(tmp_path, "a", ["/1"] * 3, start=[0.0, 6.0, 12.0], end=[6.0, 12.0, 14.0])
    write(tmp_path, "b", ["/1"] * 2, 1, start=[0.0, 6.0], end=[6.0, 13.0])
    rows = draw(open_labels(str(tmp_path)), ["d"], 10, 0)
    assert sorted((row["start"], row["end"]) for row in rows) == [(0.0, 6.0), (6.0, 13.0)]


def test_rows_of_release_0_1(tmp_path):
    write(tmp_path, "a", ["/1", "/2"], uri=[None, None])
    table = pq.read_table(tmp_path / "part-a.parquet").drop_columns(["uri", "precision", "start"])
    pq.write_table(table, tmp_path / "part-a.parquet")
    rows = draw(open_labels(str(tmp_path)), ["d"], 10, 0)
    assert {(row["uri"], row["precision"], row["start"]) for row in rows} == {
        ("/1", None, None),
        ("/2", None, None),
    }


def test_who_made_the_labels(tmp_path):
    write(tmp_path, "a", ["/1", "/2", "/3"], status=["ok", "ok", "empty"])
    write(tmp_path, "b", ["/4", "/5"], 1, model=["m", "n"], model_digest=["d", "e"])
    write(tmp_path, "c", ["/6"], 2, model="o", status="empty")
    write(tmp_path, "d", ["/1"], 3, model="n", model_digest="e")
    made_by = origins(open_labels(str(tmp_path))).set_index(["model", "model_digest"])
    assert made_by["rows"].to_dict() == {("m", "d"): 2, ("n", "e"): 2}


def test_the_newest_model_comes_first(tmp_path):
    write(tmp_path, "a", ["/1"], 2, model="new")
    write(tmp_path, "b", ["/2"] * 3, 1, model="old")
    assert origins(open_labels(str(tmp_path)))["model"].tolist() == ["new", "old"]


def test_current_rows_among_many_that_are_not(tmp_path):
    paths = [f"/{number}" for number in range(500)]
    write(tmp_path, "a", paths)
    write(tmp_path, "b", paths[3:], 1, model_digest="e")
    assert sorted(drawn(tmp_path, 3)) == ["/0", "/1", "/2"]


def test_only_parts_with_drawn_rows_are_read_in_full(tmp_path, monkeypatch):
    for name in "abc":
        write(tmp_path, name, [f"/{name}"])
    read = []
    original = Part.read
    monkeypatch.setattr(
        Part,
        "read",
        lambda part, schema, names: read.append(names) or original(part, schema, names),
    )
    drawn(tmp_path, 1)
    assert sum("score" in names for names in read) == 1


def test_only_as_many_candidates_are_kept_as_are_wanted(tmp_path, monkeypatch):
    for name in "abcdef":
        write(tmp_path, name, [f"/{name}{n}" for n in range(500)])
    kept = []
    original = np.argsort

    def argsort(values, **how):
        kept.append(len(values))
        return original(values, **how)

    monkeypatch.setattr(np, "argsort", argsort)
    drawn(tmp_path, 3)
    assert max(kept) == 500 + 3


def test_other_tables_are_refused(tmp_path):
    write(tmp_path, "a", ["/1"])
    pq.write_table(pa.table({"path": ["/1"]}), tmp_path / "other.parquet")
    with pytest.raises(
        CorpusError, match=r"--labels .*not an output of .*other.parquet has no columns"
    ):
        open_labels(str(tmp_path))
