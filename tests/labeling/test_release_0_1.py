"""An output of release 0.1 is continued without labelling anything again."""

import json
from datetime import UTC, datetime, timedelta

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ser_core.labeling import release_0_1
from ser_core.labeling.label_store import LabelStore
from ser_core.labeling.plan import make_plan
from ser_core.schema import output_schema
from ser_core.sources.interface import Page
from ser_core.sources.recording import Recording

LABELS = ("angry", "sad")
START = datetime(2026, 1, 1, tzinfo=UTC)
NONE = pa.schema([])
MISSING_IN_0_1 = ("uri", "precision")


def write_0_1(folder, recordings, status="ok", hours=0, devices=("cpu fp32",)):
    """A part and a report as release 0.1 left them."""
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
    report = {"by_device": dict.fromkeys(devices, count)}
    (folder / "_runs" / f"{status}-{hours}.json").write_text(json.dumps(report))


FOLDER = [Recording(f"/c/{n}.wav", 1, "v") for n in range(3)]
MANIFEST = [Recording(f"/c/{n}.wav", 1, "v", name=f"{n}.wav") for n in range(3)]


def take_over(folder, recordings, precision="auto"):
    """What a run does before and after it labels; what it would label."""
    store = LabelStore(str(folder), LABELS, NONE)
    with store.claimed():
        plan = make_plan([Page(recordings)], NONE, store.done("m1", precision))
        if plan.known_to_0_1:
            store.adopt(pa.concat_tables(plan.known_to_0_1))
        store.compact()
    return plan.to_do


@pytest.mark.parametrize("recordings", [FOLDER, MANIFEST], ids=["folder", "manifest"])
def test_nothing_is_labelled_again(tmp_path, recordings):
    write_0_1(tmp_path, recordings[:2])
    write_0_1(tmp_path, recordings[2:], status="decode_error")
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


def test_a_changed_file_replaces_the_row_of_its_path(tmp_path):
    write_0_1(tmp_path, MANIFEST)
    store = LabelStore(str(tmp_path), LABELS, NONE)
    with store.claimed():
        changed = Recording("/c/1.wav", 2, "v2", name="1.wav")
        row = {"path": "1.wav", "uri": changed.uri, "file_id": changed.file_id, "status": "ok"}
        row |= {"model_digest": "m1", "labeled_at": store.now()}
        store.write_part(pa.table({name: [value] for name, value in row.items()}))
        assert store.compact() == 1
    table = pd.read_parquet(tmp_path).sort_values("path")
    assert list(table["path"]) == ["0.wav", "1.wav", "2.wav"]
    assert table["file_id"].iloc[1] == changed.file_id


def test_a_manifest_of_other_recordings_with_those_names_labels_its_own(tmp_path):
    write_0_1(tmp_path, MANIFEST)
    others = [Recording(f"/d/{n}.wav", 7, "w", name=f"{n}.wav") for n in range(3)]
    assert take_over(tmp_path, others) == 3
    assert take_over(tmp_path, MANIFEST) == 0


@pytest.mark.parametrize(
    ("devices", "precision"),
    [
        (["cpu fp32"], "fp32"),
        (["NVIDIA H100 bf16"], "bf16"),
        (["cpu fp32", "cpu bf16"], None),
        ([], None),
    ],
)
def test_precision_is_what_all_reports_say(tmp_path, devices, precision):
    write_0_1(tmp_path, FOLDER[:1], devices=devices)
    store = LabelStore(str(tmp_path), LABELS, NONE)
    assert release_0_1.precision_of_reports(store.folder) == precision
    with store.claimed():
        done = store.done("m1", "fp32")
    assert done.ok.have(pa.array([FOLDER[0].file_id])).tolist() == [precision == "fp32"]


def test_killed_between_two_parts_goes_on(tmp_path, monkeypatch):
    for number, recording in enumerate(MANIFEST):
        write_0_1(tmp_path, [recording], hours=number)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(release_0_1, "move_reports", killed)
        with pytest.raises(KeyboardInterrupt):
            take_over(tmp_path, MANIFEST)
    assert take_over(tmp_path, MANIFEST, "fp32") == 0
    assert list(pd.read_parquet(tmp_path)["precision"]) == ["fp32"] * 3
