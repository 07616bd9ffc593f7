"""Outputs of release 0.1 are continued without labelling anything again."""

import json
from datetime import UTC, datetime, timedelta

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ser_core.labeling import parts
from ser_core.labeling.label_store import LabelStore
from ser_core.labeling.plan import plan_page
from ser_core.labeling.release_0_1 import Upgrade
from ser_core.schema import output_schema
from ser_core.sources.interface import Page
from ser_core.sources.recording import Recording

LABELS = ("angry", "sad")
START = datetime(2026, 1, 1, tzinfo=UTC)
NONE = pa.schema([])
MISSING_IN_0_1 = ("uri", "precision")


def write_0_1(
    folder, recordings, status="ok", hours=0, devices=("cpu fp32",), source="/c/calls.csv"
):
    """Writes a part and a report in the format of release 0.1."""
    full = output_schema(LABELS, NONE).remove_metadata()
    schema = pa.schema([field for field in full if field.name not in MISSING_IN_0_1])
    count, ok = len(recordings), status == "ok"
    columns = {
        "path": [recording.path for recording in recordings],
        "file_id": [recording.file_id_of_0_1 for recording in recordings],
        "label": ["sad" if ok else None] * count,
        "status": [status] * count,
        "model": ["m1"] * count,
        "model_digest": ["m1"] * count,
        "labeled_at": [START + timedelta(hours=hours)] * count,
    }
    arrays = [pa.array(columns.get(f.name, [None] * count), f.type) for f in schema]
    (folder / "_runs").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(arrays, schema=schema), folder / f"part-{status}-{hours}.parquet")
    report = {"by_device": dict.fromkeys(devices, count), "config": {"input": source}}
    (folder / "_runs" / f"{status}-{hours}.json").write_text(json.dumps(report))


FOLDER = [Recording(f"/c/{n}.wav", 1, "v") for n in range(3)]
MANIFEST = [Recording(f"/c/{n}.wav", 1, "v", name=f"{n}.wav") for n in range(3)]


def take_over(folder, recordings, precision="auto"):
    """Does what a run does besides labelling; returns how many recordings it would label."""
    store = LabelStore(str(folder), LABELS, NONE)
    with store.claimed():
        plan, _ = plan_page(Page(recordings), NONE, store.index("m1", precision))
        if plan.known_to_0_1:
            store.upgrade(pa.concat_tables(plan.known_to_0_1))
        store.compact()
    return plan.to_do


def write_row(store, recording, status="ok"):
    """Writes the row of a recording, as a run would."""
    row = {"path": recording.path, "uri": recording.uri, "file_id": recording.file_id}
    row |= {"status": status, "model_digest": "m1", "labeled_at": store.now()}
    store.write_part(pa.table({name: [value] for name, value in row.items()}))


def rows_of(folder):
    table = pd.read_parquet(folder).sort_values(["path", "uri"])
    columns = (table[name].astype(object).fillna("-") for name in ("uri", "file_id", "status"))
    return list(zip(*columns, strict=True))


@pytest.mark.parametrize("recordings", [FOLDER, MANIFEST], ids=["folder", "manifest"])
@pytest.mark.parametrize("source", ["/c", "/c/calls.csv", "calls.csv"])
def test_nothing_is_labelled_again(tmp_path, recordings, source):
    write_0_1(tmp_path, recordings[:2], source=source)
    write_0_1(tmp_path, recordings[2:], status="decode_error", source=source)
    for _ in range(2):
        assert take_over(tmp_path, recordings, precision="fp32") == 0
        table = pd.read_parquet(tmp_path).sort_values("path")
        assert list(table["path"]) == [recording.path for recording in recordings]
        assert list(table["uri"]) == [recording.uri for recording in recordings]
        assert list(table["file_id"]) == [recording.file_id for recording in recordings]
        assert list(table["precision"].astype(object).fillna("-")) == ["fp32", "fp32", "-"]
    assert sorted(path.name for path in (tmp_path / "__runs").iterdir()) == [
        "decode_error-0.json",
        "ok-0.json",
    ]
    assert not (tmp_path / "_runs").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.txt", b"looks good"),
        ("notes.json", b"looks good"),
        ("list.json", b"[1]"),
        ("deep.json", b"[" * 100_000),
        ("other.json", b'{"by_device": 5, "config": null}'),
        ("binary.json", b"\xff\xfe"),
    ],
)
def test_what_is_not_a_report_stays_and_changes_nothing(tmp_path, name, content):
    write_0_1(tmp_path, MANIFEST)
    (tmp_path / "_runs" / name).write_bytes(content)
    assert take_over(tmp_path, MANIFEST, precision="fp32") == 0
    assert (tmp_path / "_runs" / name).read_bytes() == content
    assert [path.name for path in (tmp_path / "__runs").iterdir()] == ["ok-0.json"]


def test_a_changed_file_replaces_its_row(tmp_path):
    write_0_1(tmp_path, MANIFEST)
    changed = Recording("/c/1.wav", 2, "v2", name="1.wav")
    store = LabelStore(str(tmp_path), LABELS, NONE)
    with store.claimed():
        write_row(store, changed)
        assert store.compact() == 1
    assert [uri for uri, _, _ in rows_of(tmp_path)] == ["/c/0.wav", "/c/1.wav", "/c/2.wav"]
    assert rows_of(tmp_path)[1][1] == changed.file_id


@pytest.mark.parametrize("source", ["/c/calls.csv", "calls.csv"])
@pytest.mark.parametrize("status", ["ok", "not_found"])
def test_another_manifest_with_equal_names_has_rows_of_its_own(tmp_path, source, status):
    write_0_1(tmp_path, MANIFEST, source=source)
    others = [Recording(f"/d/{n}.wav", 7, "w", name=f"{n}.wav") for n in range(3)]
    assert take_over(tmp_path, others) == 3
    store = LabelStore(str(tmp_path), LABELS, NONE)
    with store.claimed():
        for recording in others:
            write_row(store, recording, status)
        store.compact()
    assert take_over(tmp_path, MANIFEST) == 0
    expected = [(r.uri, r.file_id, "ok") for r in MANIFEST]
    expected += [(r.uri, r.file_id, status) for r in others]
    assert sorted(rows_of(tmp_path)) == sorted(expected)


@pytest.mark.parametrize("path", ["file:///c/0.wav", "/c/./0.wav", "/c//0.wav"])
def test_odd_spellings_of_a_path_lead_to_its_uri(tmp_path, path):
    write_0_1(tmp_path, [Recording("/c/0.wav", 1, "v", name=path)])
    take_over(tmp_path, [])
    assert [uri for uri, _, _ in rows_of(tmp_path)] == ["/c/0.wav"]


@pytest.mark.parametrize(
    ("devices", "precision"),
    [
        (["cpu fp32"], "fp32"),
        (["NVIDIA H100 bf16"], "bf16"),
        (["cpu fp32", "cpu bf16"], None),
        ([], None),
    ],
)
def test_precision_is_known_if_all_reports_agree(tmp_path, devices, precision):
    write_0_1(tmp_path, FOLDER[:1], devices=devices)
    store = LabelStore(str(tmp_path), LABELS, NONE)
    assert Upgrade(store.folder).precision == precision
    with store.claimed():
        done, _ = store.index("m1", "fp32").done(FOLDER[:1])
    assert done.tolist() == [precision == "fp32"]


def test_taking_over_an_output_resumes_after_a_kill(tmp_path, monkeypatch):
    for number, recording in enumerate(MANIFEST):
        write_0_1(tmp_path, [recording], hours=number)
    monkeypatch.setattr(parts, "ROWS_PER_PART", 1)
    write_part, written = LabelStore.write_part, []

    def killed_at_the_second(store, rows):
        written.append(write_part(store, rows))
        if len(written) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LabelStore, "write_part", killed_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            take_over(tmp_path, MANIFEST)
    assert take_over(tmp_path, MANIFEST, "fp32") == 0
    assert list(pd.read_parquet(tmp_path)["precision"]) == ["fp32"] * 3
    assert [uri for uri, _, _ in rows_of(tmp_path)] == [r.uri for r in MANIFEST]
