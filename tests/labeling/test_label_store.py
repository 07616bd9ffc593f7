"""Parts appear whole, name themselves, and the folder ends with one current row per path."""

import os
from datetime import UTC, datetime, timedelta

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ser_core.errors import OutputError, RunError
from ser_core.labeling.label_store import Output, PartWriter
from ser_core.schema import output_schema

SCHEMA = output_schema(["angry", "sad"], pa.schema([("speaker", pa.string())]))
START = datetime(2026, 1, 1, tzinfo=UTC)


def rows(*names, model="m1", status="ok", hours=0, version="v1"):
    """Rows as a run would write them, `hours` after the first."""
    count = len(names)
    columns = {
        "path": list(names),
        "file_id": [f"{name}-{version}" for name in names],
        "duration": [1.5] * count,
        "label": ["sad" if status == "ok" else None] * count,
        "status": [status] * count,
        "model": [model] * count,
        "model_digest": [model] * count,
        "labeled_at": [START + timedelta(hours=hours)] * count,
        "speaker": ["007"] * count,
    }
    arrays = [pa.array(columns.get(f.name, [None] * count), f.type) for f in SCHEMA]
    return pa.table(arrays, schema=SCHEMA)


@pytest.fixture
def output(tmp_path):
    return Output(str(tmp_path / "labels"), SCHEMA)


def has(file_ids, *wanted):
    return file_ids.have(pa.chunked_array([wanted])).tolist()


def table(output):
    return pd.read_parquet(output.folder.uri).sort_values("path").reset_index(drop=True)


def test_nothing_there_is_nothing_done(output):
    assert [has(kind, "a-v1") for kind in output.done("m1")] == [[False], [False]]
    assert not os.path.exists(output.folder.uri)


def test_done_is_what_lasts_of_this_model(output):
    output.write_part(rows("a", "b"))
    output.write_part(rows("c", model="m2"))
    output.write_part(rows("d", status="decode_error"))
    output.write_part(rows("e", status="unavailable"))
    output.write_part(rows("f", status="permission_denied"))
    done = output.done("m1")
    names = [f"{name}-v1" for name in "zfedcba0"]
    assert has(done.ok, *names) == [name in ("a-v1", "b-v1") for name in names]
    assert has(done.failed, *names) == [name == "d-v1" for name in names]


def test_the_same_rows_written_again_replace_themselves(output):
    assert output.write_part(rows("a", "b")) == output.write_part(rows("b", "a", hours=3))
    assert len(table(output)) == 2
    assert output.write_part(rows("a", "b", model="m2")) != output.write_part(rows("a", "b"))


def test_settle_leaves_the_newest_row_of_each_path(output):
    output.write_part(rows("a", "b", "c"))
    output.write_part(rows("b", hours=1, version="v2"))
    output.write_part(rows("c", "d", hours=2, model="m2"))
    assert output.settle() == 2
    result = table(output)
    assert list(result["path"]) == ["a", "b", "c", "d"]
    assert list(result["file_id"]) == ["a-v1", "b-v2", "c-v1", "d-v1"]
    assert list(result["model"]) == ["m1", "m1", "m2", "m2"]
    assert output.settle() == 0


def test_killed_while_settling_leaves_rows_twice_and_never_none(output, monkeypatch):
    output.write_part(rows("a", "b"))
    output.write_part(rows("b", hours=1, version="v2"))

    def killed(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(output.folder, "remove", killed)
        with pytest.raises(KeyboardInterrupt):
            output.settle()
    assert set(table(output)["path"]) == {"a", "b"}
    assert len(table(output)) == 4
    output.settle()
    assert list(table(output)["file_id"]) == ["a-v1", "b-v2"]


def test_a_half_written_part_is_never_seen(output, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            output.write_part(rows("a"))
    (leftover,) = os.listdir(output.folder.uri)
    assert leftover.startswith(".")
    assert not leftover.endswith(".parquet")
    output.done("m1")
    assert os.listdir(output.folder.uri) == []


def test_other_columns_are_refused_before_anything_is_written(output, tmp_path):
    output.write_part(rows("a"))
    other = Output(str(tmp_path / "labels"), output_schema(["happy"], pa.schema([])))
    with pytest.raises(OutputError, match=r"score_angry, score_happy, score_sad, speaker"):
        other.done("m1")


def test_an_output_that_cannot_be_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for where in (tmp_path / "file", tmp_path / "file" / "labels"):
        with pytest.raises(OutputError, match="is not a folder"):
            Output(str(where), SCHEMA).done("m1")


def test_a_file_that_is_no_part_is_named(output):
    output.write_part(rows("a"))
    (name,) = os.listdir(output.folder.uri)
    path = os.path.join(output.folder.uri, name)
    with open(path, "r+b") as file:
        file.truncate(100)
    with pytest.raises(OutputError, match=name):
        output.done("m1")


def test_a_part_that_cannot_be_written_is_one_line_and_tried_once(output, monkeypatch):
    calls = []

    def refuse(name, _):
        calls.append(name)
        raise PermissionError("Access Denied.")

    monkeypatch.setattr(output.folder.fs, "pipe_file", refuse)
    refused = pytest.raises(RunError, match=r"--output .*could not be written \(Access Denied\.\)")
    with refused, PartWriter(output, seconds=1e-9) as writer:
        writer.add(rows("a"))
    assert len(calls) == 1


def test_writer_writes_by_time_and_at_the_end_even_of_a_failed_run(output):
    with pytest.raises(ZeroDivisionError), PartWriter(output, seconds=3600) as writer:
        writer.add(rows("a"))
        assert not os.path.exists(output.folder.uri)
        writer.add(rows("b"))
        raise ZeroDivisionError
    assert len(table(output)) == 2
    with PartWriter(output, seconds=1e-9) as writer:
        writer.add(rows("c"))
        assert len(table(output)) == 3


@pytest.mark.parametrize(
    "kind",
    [pa.large_string(), pa.dictionary(pa.int8(), pa.string()), pa.timestamp("s"), pa.uint32()],
)
def test_manifest_columns_of_any_type_resume(tmp_path, kind):
    """Parquet gives some types back as others; that must not look like another output."""
    schema = output_schema(["angry", "sad"], pa.schema([("extra", kind)]))
    values = pa.array([1], pa.int64()) if not pa.types.is_dictionary(kind) else pa.array(["x"])
    values = pa.array(["x"]) if kind == pa.large_string() else values
    output = Output(str(tmp_path / "labels"), schema)
    base = rows("a").drop_columns("speaker").append_column("extra", values.cast(kind))
    with PartWriter(output, 1e-9) as writer:
        writer.add(base)
    assert has(output.done("m1").ok, "a-v1", "a-v2") == [True, False]


def test_readers_open_the_folder_as_one_table(output, tmp_path):
    output.write_part(rows("a", "b"))
    output.write_part(rows("c", status="decode_error", hours=1))
    output.write_report("run", {"recordings": 3})
    folder = output.folder.uri
    assert len(pd.read_parquet(folder)) == 3
    count = duckdb.sql(f"select count(*), count(label) from '{folder}/*.parquet'").fetchall()
    assert count == [(3, 2)]
    assert pq.read_table(folder).schema.equals(output.schema)

    import datasets

    loaded = datasets.load_dataset(folder, split="train", cache_dir=str(tmp_path / "cache"))
    assert sorted(loaded["path"]) == ["a", "b", "c"]
