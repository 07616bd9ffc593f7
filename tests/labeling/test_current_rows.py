"""Jobs that read an output get the current rows, whatever its parts look like."""

import pandas as pd
import pyarrow as pa
import pytest
from label_folders import LABELS, WHEN, label_rows, random_scores, write_labels

from ser_core.errors import CorpusError
from ser_core.labeling.current_rows import open_labels

LATER = WHEN + pd.Timedelta(days=1)


def paths_of(labels, columns=("path", "labeled_at")):
    return pa.concat_tables(labels.current_rows(columns)).to_pandas()


def test_superseded_rows_are_left_out(tmp_path):
    old = label_rows(["a", "b"], random_scores(2))
    new = label_rows(["b", "c"], random_scores(2), labeled_at=LATER)
    labels = open_labels(str(write_labels(tmp_path / "labels", old, new)))
    assert labels.classes == LABELS
    found = paths_of(labels)
    assert sorted(zip(found["path"], found["labeled_at"], strict=True)) == [
        ("a", WHEN), ("b", LATER), ("c", LATER),
    ]  # fmt: skip


def test_a_transient_row_does_not_replace_a_label(tmp_path):
    old = label_rows(["a"], random_scores(1))
    new = label_rows(["a"], [[float("nan")] * 3], status="unavailable", labeled_at=LATER)
    labels = open_labels(str(write_labels(tmp_path / "labels", old, new)))
    assert paths_of(labels, ["status"])["status"].tolist() == ["ok"]


def test_columns_are_read_by_name_and_texts_as_strings(tmp_path):
    old = label_rows(["a"], random_scores(1)).drop_columns(["uri", "speech"])
    old = old.set_column(
        old.column_names.index("status"), "status", old["status"].cast(pa.string())
    )
    new = label_rows(["b"], random_scores(1), manifest={"speaker": ["eve"]})
    labels = open_labels(str(write_labels(tmp_path / "labels", old, new)))
    assert labels.manifest == ["speaker"]
    assert labels.schema.field("status").type == pa.string()
    found = paths_of(labels, ["path", "uri", "speaker", "status"]).sort_values("path")
    assert found["speaker"].tolist()[1] == "eve"
    assert found["speaker"].isna().iloc[0]
    assert found["uri"].iloc[0] == "a"  # release 0.1 had no URI: such a row is known by its path


def test_only_some_parts(tmp_path):
    parts = [label_rows([name], random_scores(1)) for name in "abc"]
    labels = open_labels(str(write_labels(tmp_path / "labels", *parts)))
    found = pa.concat_tables(labels.current_rows(["path"], [2, 0]))
    assert found["path"].to_pylist() == ["c", "a"]


def test_what_is_no_output(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(CorpusError, match=r"--labels .*empty: not an output .* no Parquet files"):
        open_labels(str(empty))
    other = write_labels(tmp_path / "other", pa.table({"path": ["a"]}))
    with pytest.raises(
        CorpusError,
        match=r"--baseline .*no columns file_id, label, status",
    ):
        open_labels(str(other), "--baseline")
