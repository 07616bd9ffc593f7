"""Labels in DuckDB: derived columns, and the columns that divide a corpus."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from label_folders import label_rows, random_scores, write_labels

from ser_core.errors import UsageError
from ser_core.labeling.current_rows import open_labels
from ser_core.reporting.label_table import database, load, uncertainty
from ser_core.reporting.summary import by_slice, summarize


@pytest.fixture
def connection():
    with database() as connection:
        yield connection


def loaded(connection, folder, *parts, **options):
    return load(connection, open_labels(str(write_labels(folder, *parts))), "labels", **options)


def test_derived_columns(connection, tmp_path):
    scores = [[0.7, 0.2, 0.1], [np.nan] * 3]
    paths = ["calls/monday/1.wav", "s3://bucket/calls.tar::tuesday/2.wav"]
    rows = label_rows(paths, scores, start=[6.0, None], end=[10.5, None], duration=[60.0, 3.0])
    table = loaded(connection, tmp_path / "labels", rows)
    found = table.frame("select * from {rows} order by path")
    assert found[table.divisors["folder"]].tolist() == ["calls/monday", "s3://bucket"]
    assert found["seconds"].tolist() == [4.5, 3.0]
    assert found["margin"].iloc[0] == pytest.approx(0.5)
    assert found["margin"].isna().iloc[1]
    assert found["entropy"].isna().iloc[1]


def test_uncertainty_between_chance_and_certainty():
    scores = np.array([[1 / 3] * 3, [1, 0, 0], [0.5, 0.5, 0]], np.float32)
    margin, entropy = uncertainty(scores)
    assert margin == pytest.approx([0, 1, 0])
    assert entropy == pytest.approx([1, 0, np.log(2) / np.log(3)], abs=1e-6)
    assert [part.tolist() for part in uncertainty(np.ones((2, 1)))] == [[1, 1], [0, 0]]


def test_columns_that_divide_a_corpus(connection, tmp_path):
    paths = [f"calls/{i % 4}/{i}.wav" for i in range(40)]
    manifest = {
        "speaker": [f"s{i % 5}" for i in range(40)],
        "constant": ["x"] * 40,
        "unique": [f"u{i}" for i in range(40)],
        "weight": [i / 7 for i in range(40)],
        "agent": [i % 3 for i in range(40)],
    }
    rows = label_rows(paths, random_scores(40), manifest=manifest)
    assert set(loaded(connection, tmp_path / "labels", rows).slices) == {
        "folder",
        "speaker",
        "agent",
    }


def test_slices_that_were_asked_for(connection, tmp_path):
    rows = label_rows(["a", "b"], random_scores(2), manifest={"unique": ["x", "y"]})
    assert [*loaded(connection, tmp_path / "l", rows, slice_by=("unique",)).slices] == ["unique"]


@pytest.mark.parametrize(("values", "divides"), [(1000, True), (1001, False)])
def test_values_are_counted_exactly(connection, tmp_path, values, divides):
    paths = [f"{i}.wav" for i in range(4 * values)]
    agents = [f"{i % values}" for i in range(len(paths))]
    rows = label_rows(paths, random_scores(len(paths)), manifest={"agent": agents})
    table = loaded(connection, tmp_path / "labels", rows)
    assert ("agent" in table.slices) == divides


def test_a_column_of_two_values_always_divides(connection, tmp_path):
    """An estimate takes some pairs of values for one or three."""
    columns = {f"c{i}": [f"{i}-a", f"{i}-b"] * 2 for i in range(500)}
    rows = label_rows(list("abcd"), random_scores(4), manifest=columns)
    assert set(columns) <= set(loaded(connection, tmp_path / "labels", rows).slices)


def test_a_stretch_without_an_end_reaches_to_that_of_its_file(connection, tmp_path):
    rows = label_rows(
        list("abc"), random_scores(3), start=[50.0, 10.0, None], end=[None, 20.0, None],
        duration=60.0,
    )  # fmt: skip
    found = loaded(connection, tmp_path / "labels", rows).frame(
        'select "end", seconds from {rows} order by path'
    )
    assert found["seconds"].tolist() == [10, 10, 60]
    assert found["end"].tolist()[:2] == [60, 20]


def test_a_column_with_too_many_values_is_refused(connection, tmp_path):
    rows = label_rows([f"{i}" for i in range(2000)], random_scores(2000))
    with pytest.raises(UsageError, match="--slice-by path: it has more than 1,000 values"):
        loaded(connection, tmp_path / "labels", rows, slice_by=("path",))


@pytest.mark.parametrize("values", [[["a"], ["b"]], [{"a": 1}, {"a": 2}], [b"\xff", b"\xfe"]])
def test_a_column_of_lists_or_bytes_is_refused(connection, tmp_path, values):
    rows = label_rows(["a", "b"], random_scores(2), manifest={"tags": values})
    assert "tags" not in loaded(connection, tmp_path / "labels", rows).slices
    with pytest.raises(UsageError, match=r"--slice-by tags: its values \(.*\) do not divide"):
        loaded(connection, tmp_path / "labels", rows, slice_by=("tags",))


@pytest.mark.parametrize(
    "name", ["folder", "bin", "rows", "seconds", "margin", "Label", "value", 'a "b"', "slice_0"]
)
def test_a_manifest_may_use_any_name(connection, tmp_path, name):
    manifest = {name: ["x", "x", "y", "y"], "Speaker": list("aabb"), "speaker": list("abab")}
    rows = label_rows([f"d/{n}" for n in "abcd"], random_scores(4), manifest=manifest)
    table = loaded(connection, tmp_path / "labels", rows)
    assert set(table.slices) == {name, "Speaker", "speaker"}
    counted = {n: by_slice(table, n).groupby("value")["rows"].sum().to_dict() for n in table.slices}
    assert counted[name] == {"x": 2, "y": 2}
    assert counted["Speaker"] == counted["speaker"] == {"a": 2, "b": 2}
    speakers = by_slice(table, "speaker").set_index("value")
    assert set(speakers.index) == {"a", "b"}
    assert summarize(table)["hours"] == pytest.approx(4 / 3600)


def test_times_count_by_their_day(connection, tmp_path):
    times = pd.to_datetime(
        ["2026-01-01 03:00", "2026-01-01 20:00", "2026-01-02 00:00", None], utc=True
    )
    rows = label_rows(list("abcd"), random_scores(4), manifest={"at": pa.array(times)})
    table = loaded(connection, tmp_path / "labels", rows)
    assert set(by_slice(table, "at")["value"]) == {"2026-01-01", "2026-01-02", ""}


def test_rows_of_release_0_1_are_known_by_their_path(connection, tmp_path):
    rows = label_rows(["a", "b"], random_scores(2), uri=[None, None])
    table = loaded(connection, tmp_path / "labels", rows)
    assert set(table.frame("select uri from {rows}")["uri"]) == {"a", "b"}


def test_a_view_of_some_rows(connection, tmp_path):
    table = loaded(connection, tmp_path / "labels", label_rows(["a", "b"], random_scores(2)))
    assert table.where("path = 'b'", "selected").num_rows == 1
    assert table.num_rows == 2
