"""Labels in DuckDB: derived columns, and the columns that divide a corpus."""

import numpy as np
import pytest
from label_folders import label_rows, random_scores, write_labels

from ser_core.labeling.current_rows import open_labels
from ser_core.reporting.label_table import database, load, uncertainty


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
    assert found["folder"].tolist() == ["calls/monday", "s3://bucket"]
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
    assert loaded(connection, tmp_path / "labels", rows).slices == ("folder", "speaker", "agent")


def test_slices_that_were_asked_for(connection, tmp_path):
    rows = label_rows(["a", "b"], random_scores(2), manifest={"unique": ["x", "y"]})
    assert loaded(connection, tmp_path / "l", rows, slice_by=("unique",)).slices == ("unique",)


def test_a_view_of_some_rows(connection, tmp_path):
    table = loaded(connection, tmp_path / "labels", label_rows(["a", "b"], random_scores(2)))
    assert table.where("path = 'b'", "selected").num_rows == 1
    assert table.num_rows == 2
