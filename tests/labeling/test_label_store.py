"""The rules of the label store; each has a test that fails without the rule."""

import io
import json
import os
import subprocess
import sys
import time
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from functools import partial

import duckdb
import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractBufferedFile

from ser_core.errors import OutputError, RunError, Status
from ser_core.labeling import label_store
from ser_core.labeling.label_store import LabelStore
from ser_core.labeling.parts import find_parts
from ser_core.schema import classes_of
from ser_core.sources.identity_hashes import hashes
from ser_core.storage.claim import Claim

LABELS = ("angry", "sad")
SPEAKER = pa.schema([("speaker", pa.string())])
START = datetime(2026, 1, 1, tzinfo=UTC)


def rows(*names, model="m1", status="ok", hours=0, version="v1", precision="fp32", folder="/c"):
    """Rows as a run writes them, labelled `hours` after `START`."""
    count, ok = len(names), status == "ok"
    scored = status in ("ok", "not_finite")
    columns = {
        "path": names,
        "uri": [f"{folder}/{name}" for name in names],
        "file_id": [f"{folder}/{name}-{version}" for name in names],
        "duration": [1.5] * count,
        "label": ["sad" if ok else None] * count,
        "status": [status] * count,
        "model": [model] * count,
        "model_digest": [model] * count,
        "precision": [precision if scored else None] * count,
        "labeled_at": [START + timedelta(hours=hours)] * count,
        "speaker": ["007"] * count,
    }
    return pa.table({name: pa.array(values) for name, values in columns.items()})


@pytest.fixture
def store(tmp_path):
    return LabelStore(str(tmp_path / "labels"), LABELS, SPEAKER)


def table(store):
    return pd.read_parquet(store.folder.uri).sort_values(["path", "uri"]).reset_index(drop=True)


def parts(store):
    return [name for name in store.folder.names() if name.endswith(".parquet")]


def done(store, *names, model="m1", precision="auto", version="v1", retry=()):
    index = store.index(model, precision, retry)
    at = {identity: n for n, identity in enumerate(index.identity_hash)}
    identity, file_id = (
        hashes([f"/c/{name}{end}" for name in names]) for end in ("", f"-{version}")
    )
    return [
        each in at and index.file_id_hash[at[each]] == version and bool(index.is_done[at[each]])
        for each, version in zip(identity, file_id, strict=True)
    ]


# ---- what is current -----------------------------------------------------------------------------


def test_a_newer_final_row_replaces_an_older_one(store):
    store.write_part(rows("a", "b", "c"))
    store.write_part(rows("b", hours=1, version="v2"))
    store.write_part(rows("c", "d", hours=2, model="m2"))
    store.write_part(rows("a", hours=-1, version="v0"))
    assert store.compact() == 3
    result = table(store)
    assert list(result["path"]) == ["a", "b", "c", "d"]
    assert list(result["file_id"]) == ["/c/a-v1", "/c/b-v2", "/c/c-v1", "/c/d-v1"]
    assert list(result["model"]) == ["m1", "m1", "m2", "m2"]
    assert store.compact() == 0


@pytest.mark.parametrize("status", [s for s in Status if not s.final])
def test_a_transient_row_never_replaces_a_final_one(store, status):
    store.write_part(rows("a"))
    store.write_part(rows("b", status="decode_error"))
    store.write_part(rows("a", "b", "c", hours=1, status=status, version="v2"))
    store.compact()
    assert list(table(store)["status"]) == ["ok", "decode_error", status]


@pytest.mark.parametrize("status", [s for s in Status if s.final])
def test_any_final_row_replaces_a_transient_one_even_an_older_one(store, status):
    store.write_part(rows("a", status=status))
    store.write_part(rows("a", hours=1, status="unavailable"))
    store.compact()
    assert list(table(store)["status"]) == [status]


def test_the_newest_of_several_transient_rows_is_kept(store):
    store.write_part(rows("a", hours=1, status="unavailable"))
    store.write_part(rows("a", status="not_found"))
    store.compact()
    assert list(table(store)["status"]) == ["unavailable"]


def test_equal_relative_paths_in_two_folders_are_two_recordings(store):
    store.write_part(rows("1.wav", folder="/monday"))
    store.write_part(rows("1.wav", folder="/tuesday", hours=1))
    assert store.compact() == 0
    assert list(table(store)["uri"]) == ["/monday/1.wav", "/tuesday/1.wav"]


def test_labeled_at_is_later_than_every_existing_row(store):
    ahead = datetime.now(UTC) + timedelta(hours=1)
    store.write_part(rows("a", hours=(ahead - START) / timedelta(hours=1)))
    assert store.now() > ahead
    written = rows("a", version="v2").drop_columns("labeled_at")
    store.write_part(written.append_column("labeled_at", pa.array([store.now()])))
    store.compact()
    assert list(table(store)["file_id"]) == ["/c/a-v2"]


def test_labeled_at_is_the_current_time_if_that_is_later(store):
    store.write_part(rows("a"))
    assert datetime.now(UTC) - store.now() < timedelta(minutes=1)


# ---- what is done --------------------------------------------------------------------------------


def test_an_empty_output_has_nothing_done(store):
    assert done(store, "a") == [False]
    assert not os.path.exists(store.folder.uri)


def test_final_rows_of_this_model_are_done(store):
    store.write_part(rows("a", "b"))
    store.write_part(rows("c", model="m2"))
    store.write_part(rows("d", status="decode_error"))
    store.write_part(rows("e", status="unavailable"))
    store.write_part(rows("f", status="permission_denied"))
    names = "zfedcba0"
    assert done(store, *names) == [name in "abd" for name in names]
    assert done(store, "a", version="v2") == [False]  # the file changed


def test_only_current_rows_are_done(store):
    """Superseded rows stay until a run completes, and must not hide what there is to do."""
    store.write_part(rows("a", "b", "c"))
    store.write_part(rows("a", hours=1, version="v2"))  # changed, and then changed back
    store.write_part(rows("b", hours=1, model="m2"))  # another model, and then this one again
    store.write_part(rows("c", hours=1, status="unavailable", version="v2"))
    assert done(store, "a", "b", "c") == [False, False, True]
    assert done(store, "a", version="v2") == [True]
    assert done(store, "b", model="m2") == [True]
    store.write_part(rows("a", hours=2, status="crashed"))
    assert done(store, "a") == [True]
    assert done(store, "a", version="v2") == [False]


@pytest.mark.parametrize(
    ("made_with", "requested", "is_done"),
    [
        ("fp32", "fp32", True),
        ("bf16", "fp32", False),
        ("fp16", "fp32", False),
        (None, "fp32", False),
        ("bf16", "auto", True),
        ("fp32", "auto", True),
        (None, "auto", True),
        ("fp32", "bf16", True),
    ],
)
def test_rows_are_done_for_a_precision(store, made_with, requested, is_done):
    store.write_part(rows("a", precision=made_with))
    store.write_part(rows("b", status="empty"))
    store.write_part(rows("c", status="not_finite", precision=made_with))
    assert done(store, "a", "b", "c", precision=requested) == [is_done, True, is_done]


def with_embeddings(store, size=4):
    return LabelStore(store.folder.uri, LABELS, SPEAKER, size)


def embedded(table, size=4):
    """Rows with embeddings, as a run with --embeddings writes them."""
    embeddings = pa.array([[0.5] * size] * len(table), pa.list_(pa.float16(), size))
    table = table.append_column("embedding_size", pa.array([size] * len(table), pa.int32()))
    return table.append_column("embedding", embeddings)


def test_rows_without_an_embedding_are_not_done_for_a_run_that_wants_them(store):
    store.write_part(rows("a", "b"))
    store.write_part(rows("c", status="empty"))
    assert done(with_embeddings(store), *"abc") == [False, False, True]
    with with_embeddings(store).claimed():
        with_embeddings(store).write_part(embedded(rows("a", hours=1)))
    assert done(with_embeddings(store), *"abc") == [True, False, True]
    assert done(store, *"abc") == [True, True, True]


def test_a_run_without_embeddings_keeps_those_that_are_there(store):
    wanting = with_embeddings(store)
    wanting.write_part(embedded(rows("a", "b")))
    later = LabelStore(store.folder.uri, LABELS, SPEAKER)
    later.write_part(rows("b", "c", hours=1, version="v2"))
    later.compact()
    result = table(later)
    assert [e is None for e in result["embedding"]] == [False, True, True]
    assert result["embedding"][0].tolist() == [0.5] * 4
    names = {tuple(pq.read_schema(f"{store.folder.uri}/{n}").names) for n in parts(store)}
    before = parts(store)
    with_embeddings(store).compact()  # the same columns in the same order: nothing is rewritten
    assert parts(store) == before
    assert len(names) == 1


def test_embeddings_are_stored_as_they_are_and_read_by_others(store):
    name = with_embeddings(store).write_part(embedded(rows("a", "b")))
    path = f"{store.folder.uri}/{name}"
    metadata = pq.read_metadata(path).row_group(0)
    columns = [metadata.column(n) for n in range(metadata.num_columns)]
    (column,) = [each for each in columns if each.path_in_schema.startswith("embedding.")]
    assert "PLAIN" in column.encodings
    assert not [encoding for encoding in column.encodings if "DICTIONARY" in encoding]
    assert table(store)["embedding"][1].dtype == "float16"
    assert duckdb.sql(f"select embedding from '{path}'").fetchall() == [([0.5] * 4,)] * 2


def test_embeddings_of_another_size_are_refused(store):
    with_embeddings(store).write_part(embedded(rows("a")))
    with pytest.raises(OutputError, match=r"columns of another type \(embedding\); choose another"):
        with_embeddings(store, 5)


def test_parts_with_embeddings_have_fewer_rows(store, monkeypatch):
    monkeypatch.setattr("ser_core.labeling.parts._EMBEDDING_BYTES_PER_PART", 4 * 2 * 4)
    wanting = with_embeddings(store)
    for number, name in enumerate("abcdefg"):
        wanting.write_part(embedded(rows(name, hours=number)))
    wanting.compact()
    sizes = [pq.read_metadata(f"{store.folder.uri}/{name}").num_rows for name in parts(store)]
    assert sorted(sizes) == [3, 4]


def test_statuses_to_try_again_are_not_done(store):
    for name, status in zip("abc", ["ok", "timeout", "too_large"], strict=True):
        store.write_part(rows(name, status=status))
    assert done(store, *"abc") == [True, True, True]
    assert done(store, *"abc", retry=("timeout",)) == [True, False, True]
    assert done(store, *"abc", retry=("timeout", "too_large")) == [True, False, False]


# ---- parts ---------------------------------------------------------------------------------------


def test_writing_the_same_rows_again_replaces_their_part(store):
    assert store.write_part(rows("a", "b")) == store.write_part(rows("b", "a"))
    assert len(table(store)) == 2


def test_later_rows_of_the_same_files_do_not_overwrite_a_part(store):
    """Otherwise transient rows would overwrite labels before the rules apply."""
    store.write_part(rows("a", "b"))
    store.write_part(rows("a", "b", hours=1, status="unavailable"))
    store.compact()
    assert set(table(store)["status"]) == {"ok"}


def test_small_parts_are_merged_and_large_ones_kept(store, monkeypatch):
    monkeypatch.setattr("ser_core.labeling.parts.ROWS_PER_PART", 10)
    large = store.write_part(rows(*"ABCDEFG"))
    for number, name in enumerate("hijklmnopqrs"):
        store.write_part(rows(name, hours=number))
    store.compact()
    assert large in parts(store)
    sizes = sorted(pq.read_metadata(f"{store.folder.uri}/{name}").num_rows for name in parts(store))
    assert sizes == [2, 7, 10]
    assert list(table(store)["path"]) == [*"ABCDEFG", *"hijklmnopqrs"]
    before = parts(store)
    store.compact()
    assert parts(store) == before


def test_a_kill_while_compacting_duplicates_rows_but_loses_none(store, monkeypatch):
    store.write_part(rows("a", "b"))
    store.write_part(rows("b", hours=1, version="v2"))

    def killed(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store.folder, "remove", killed)
        with pytest.raises(KeyboardInterrupt):
            store.compact()
    assert set(table(store)["path"]) == {"a", "b"}
    assert len(table(store)) > 2
    store.compact()
    assert list(table(store)["file_id"]) == ["/c/a-v1", "/c/b-v2"]


def test_a_partially_written_part_is_never_visible(store, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            store.write_part(rows("a"))
    (leftover,) = os.listdir(store.folder.uri)
    assert leftover.startswith(".")
    assert not leftover.endswith(".parquet")
    with store.claimed():
        assert os.listdir(store.folder.uri) == ["__runs"]


class Counted(AbstractBufferedFile):
    """A file that is fetched by ranges, as from an object store."""

    def _fetch_range(self, start, end):
        CountedFileSystem.fetched += end - start
        return self.fs.store[self.path].getvalue()[start:end]


class CountedFileSystem(MemoryFileSystem):
    """Counts the bytes that are fetched from its files."""

    protocol = "counted"
    fetched = 0

    def open(self, path, mode="rb", **options):
        if mode != "rb":
            return super().open(path, mode, **options)
        return Counted(self, self._strip_protocol(path), mode, size=self.size(path), **options)


def test_only_the_columns_needed_are_fetched():
    fsspec.register_implementation("counted", CountedFileSystem, clobber=True)
    store = LabelStore("counted://labels", LABELS, SPEAKER)
    wide = rows(*(f"{n:06}" for n in range(20_000))).drop_columns("speaker")
    store.write_part(
        wide.append_column("speaker", pa.array(os.urandom(99).hex() for _ in wide["path"]))
    )
    size = sum(store.folder.fs.size(store.folder.path(name)) for name in parts(store))
    CountedFileSystem.fetched = 0
    assert store.index("m1", "auto").is_done.sum() == 20_000
    assert 0 < CountedFileSystem.fetched < size / 2


# ---- columns -------------------------------------------------------------------------------------


def test_a_footer_is_read_again_after_a_passing_failure(tmp_path, monkeypatch):
    store = LabelStore(f"memory://footers-{tmp_path.name}", LABELS, pa.schema([]))
    store.write_part(rows("a", "b"))
    opened, calls = store.folder.fs.open, []

    def fail_once(*args, **kwargs):
        calls.append(args)
        if len(calls) == 1:
            raise OSError("connection reset")
        return opened(*args, **kwargs)

    monkeypatch.setattr(store.folder.fs, "open", fail_once)
    (part,) = find_parts(store.folder)
    assert len(calls) == 2
    assert part.num_rows == 2
    assert len(calls) == 2


def test_hidden_files_are_no_parts(store):
    name = store.write_part(rows("a"))
    for hidden in (f"._{name}", "_metadata.parquet"):  # of macOS, of Spark
        store.folder.write(hidden, b"not a table")
    assert [part.name for part in find_parts(store.folder)] == [name]


def test_a_damaged_footer_is_not_read_again(store):
    store.write_part(rows("a"))
    (name,) = store.folder.names()
    content = store.folder.read(name)
    length = int.from_bytes(content[-8:-4], "little")
    store.folder.write(name, content[: -8 - length] + b"\xff" * length + content[-8:])
    with pytest.raises(OutputError, match=f"{name} is not a Parquet file"):
        find_parts(store.folder)


def test_a_part_with_damaged_pages_is_named_at_once(store):
    store.write_part(rows("a"))
    (name,) = store.folder.names()
    content = store.folder.read(name)
    length = int.from_bytes(content[-8:-4], "little")
    store.folder.write(
        name, content[:4].ljust(len(content) - 8 - length, b"\xff") + content[-8 - length :]
    )
    (part,) = find_parts(store.folder)
    started = time.monotonic()
    with pytest.raises(OutputError, match=rf"{name} is damaged \(.*\); remove it or choose"):
        part.read(store.schema)
    assert time.monotonic() - started < 30  # s, and not the 60 of requests that are retried
    with pytest.raises(OutputError, match=f"{name} is damaged"), store.claimed():
        store.index("m1", "auto")


def test_a_damaged_byte_never_passes_for_another_value(store):
    store.write_part(rows(*(str(number) for number in range(500))))
    (name,) = store.folder.names()
    content = store.folder.read(name)
    written = find_parts(store.folder)[0].read(store.schema)
    pages_end = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    noticed = 0
    for at in range(4, pages_end, pages_end // 200):
        damaged = bytearray(content)
        damaged[at] ^= 1
        store.folder.write(name, bytes(damaged))
        try:
            assert find_parts(store.folder)[0].read(store.schema).equals(written)
        except OutputError:
            noticed += 1
    assert noticed > 150  # the others are in headers, where not every byte matters


@pytest.mark.parametrize(
    ("failures", "error"), [([ConnectionError], None), ([PermissionError] * 99, RunError)]
)
def test_storage_that_fails_is_not_a_damaged_part(tmp_path, monkeypatch, failures, error):
    store = LabelStore(f"memory://pages-{tmp_path.name}", LABELS, pa.schema([]))
    store.write_part(rows("a"))
    (part,) = find_parts(store.folder)
    opened = store.folder.fs.open

    class Failing(io.BytesIO):
        def read(self, size=-1):
            if failures:
                raise failures.pop()("no answer")
            return super().read(size)

    def open_failing(*args, **kwargs):
        with opened(*args, **kwargs) as file:
            return Failing(file.read())

    monkeypatch.setattr(store.folder.fs, "open", open_failing)
    with pytest.raises(error, match="could not be read") if error else nullcontext():
        assert part.read(store.schema)["path"].to_pylist() == ["a"]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.int64(), pa.float64(), pa.list_(pa.int64()), pa.bool_()], ids=str
)
@pytest.mark.parametrize("null_first", [True, False])
def test_a_column_without_values_has_the_type_that_it_has_elsewhere(tmp_path, kind, null_first):
    def run(number, extra):
        store = LabelStore(str(tmp_path), LABELS, pa.schema([("extra", extra)]))
        with store.claimed():  # as a reader finds it while the run works
            table = rows(f"{number}").drop_columns("speaker")
            store.write_part(table.append_column("extra", pa.nulls(1, extra)))
            types = {pq.read_schema(tmp_path / name).field("extra").type for name in parts(store)}
            assert len(types) == 1
            assert len(ds.dataset(tmp_path, format="parquet").to_table()) == number + 1
            store.compact()

    kinds = [pa.null(), pa.null(), kind] if null_first else [kind, pa.null(), kind]
    for number, extra in enumerate(kinds):
        run(number, extra)
    other = pa.timestamp("s") if kind != pa.timestamp("s") else pa.string()
    with pytest.raises(OutputError, match=r"columns of another type \(extra\)"):
        LabelStore(str(tmp_path), LABELS, pa.schema([("extra", other)]))


def test_a_manifest_with_other_columns_adds_them(store):
    store.write_part(rows("a"))
    other = LabelStore(store.folder.uri, LABELS, pa.schema([("side", pa.int64())]))
    with other.claimed():
        more = rows("b", hours=1).drop_columns("speaker")
        other.write_part(more.append_column("side", pa.array([2])))
        other.compact()
    result = pd.read_parquet(store.folder.uri).sort_values("path")
    assert list(result["speaker"].fillna("-")) == ["007", "-"]
    assert list(result["side"].fillna(-1)) == [-1, 2]
    schemas = {pq.read_schema(f"{store.folder.uri}/{name}").to_string() for name in parts(store)}
    assert len(schemas) == 1


@pytest.mark.parametrize(
    ("labels", "manifest", "reason"),
    [
        (("happy",), SPEAKER, "has the classes angry, sad, and the model has happy"),
        (("sad", "angry"), SPEAKER, "has the classes angry, sad, and the model has sad, angry"),
        (LABELS, pa.schema([("speaker", pa.int64())]), r"columns of another type \(speaker\)"),
    ],
)
def test_an_incompatible_output_is_refused_before_anything_is_written(
    store, labels, manifest, reason
):
    store.write_part(rows("a"))
    before = os.listdir(store.folder.uri)
    with pytest.raises(OutputError, match=reason):
        LabelStore(store.folder.uri, labels, manifest)
    assert os.listdir(store.folder.uri) == before


def test_an_output_that_is_not_a_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for output in (tmp_path / "file", tmp_path / "file" / "labels"):
        with pytest.raises(OutputError, match="is not a folder"):
            LabelStore(str(output), LABELS, SPEAKER)


def test_a_foreign_parquet_file_is_named_in_the_error(store):
    name = store.write_part(rows("a"))
    path = f"{store.folder.uri}/{name}"
    pq.write_table(pa.table({"x": [1]}), path)
    with pytest.raises(OutputError, match=f"{name} was not written by jobs.label"):
        LabelStore(store.folder.uri, LABELS, SPEAKER)
    with open(path, "r+b") as file:
        file.truncate(100)
    with pytest.raises(OutputError, match=f"{name} is not a Parquet file"):
        LabelStore(store.folder.uri, LABELS, SPEAKER)


@pytest.mark.parametrize(
    "kind",
    [pa.large_string(), pa.dictionary(pa.int8(), pa.string()), pa.timestamp("s"), pa.uint32()],
)
def test_outputs_with_manifest_columns_of_any_type_are_continued(tmp_path, kind):
    """Parquet reads some types back as others, which must not count as a difference."""
    is_text = kind == pa.large_string() or pa.types.is_dictionary(kind)
    values = pa.array(["x"]) if is_text else pa.array([1], pa.int64())
    manifest = pa.schema([("extra", kind)])
    store = LabelStore(str(tmp_path / "labels"), LABELS, manifest)
    base = rows("a").drop_columns("speaker").append_column("extra", values.cast(kind))
    store.write_part(base)
    again = LabelStore(str(tmp_path / "labels"), LABELS, manifest)
    assert again.compact() == 0
    assert done(again, "a") == [True]


def test_manifest_columns_are_never_taken_for_classes(tmp_path):
    manifest = pa.schema([("score_manual", pa.float64()), ("status_of_call", pa.string())])
    store = LabelStore(str(tmp_path / "labels"), LABELS, manifest)
    store.write_part(rows("a").drop_columns("speaker"))
    assert classes_of(ds.dataset(store.folder.uri).schema) == LABELS
    assert classes_of(LabelStore(store.folder.uri, LABELS, SPEAKER).schema) == LABELS


def test_compacting_removes_unused_dictionary_values(store):
    store.write_part(rows("a"))
    store.write_part(rows("a", hours=1, status="unavailable"))
    store.compact()
    assert list(table(store)["status"].cat.categories) == ["ok"]


# ---- concurrent runs and readers -----------------------------------------------------------------


def test_counts_equal_those_of_the_rows(store):
    assert store.counts()["rows"] == store.counts()["recordings"] == 0
    store.write_part(rows("a", "b"))
    store.write_part(rows("c", status="empty"))
    expected = {
        "rows": 3,
        "recordings": 3,
        "audio_hours": pytest.approx(3 * 1.5 / 3600),
        "by_status": {"ok": 2, "empty": 1},
        "by_label": {"sad": 2},
    }
    assert store.counts() == expected
    store.write_part(rows("a", version="v2", status="empty", hours=1))
    assert store.counts(store.current_rows()) == expected | {
        "by_status": {"ok": 1, "empty": 2},
        "by_label": {"sad": 1},
    }


def test_a_run_sees_what_another_wrote_before_it_could_claim_the_folder(store):
    waiting = LabelStore(store.folder.uri, LABELS, SPEAKER)
    store.write_part(rows("a"))
    with waiting.claimed():
        assert done(waiting, "a") == [True]


def test_a_concurrent_run_is_refused(store, monkeypatch):
    quick = partial(Claim, heartbeat_seconds=0.05, stale_seconds=60)
    monkeypatch.setattr(label_store, "Claim", quick)
    with store.claimed():
        other = LabelStore(store.folder.uri, LABELS, SPEAKER)
        with pytest.raises(OutputError, match="another run is writing there"), other.claimed():
            pass
    with other.claimed():
        pass
    assert store.folder.names("__runs") == []


def test_common_readers_open_the_folder_as_one_table(store, tmp_path):
    store.write_part(rows("a", "b"))
    store.write_part(rows("c", status="decode_error", hours=1))
    store.write_report("run", {"recordings": 3})
    folder = store.folder.uri
    with store.claimed():
        assert len(pd.read_parquet(folder)) == 3
        assert ds.dataset(folder).count_rows() == 3
        assert pq.read_table(folder).schema.names == store.schema.names
        count = duckdb.sql(f"select count(*), count(label) from '{folder}/*.parquet'").fetchall()
        assert count == [(3, 2)]
        import datasets

        cache = str(tmp_path / "cache")
        for arguments in ({"path": folder}, {"path": "parquet", "data_dir": folder}):
            loaded = datasets.load_dataset(**arguments, split="train", cache_dir=cache)
            assert sorted(loaded["path"]) == ["a", "b", "c"]
    report = json.loads(store.folder.read("__runs/run.json"))
    assert report == {"recordings": 3}


def test_the_store_imports_neither_ray_nor_torch():
    code = (
        "import sys, ser_core.labeling.label_store; sys.exit('ray' in sys.modules"
        " or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
