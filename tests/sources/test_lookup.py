"""The `uri` of a row leads back to the recording that was listed, with the same `file_id`."""

import io
import json
import tarfile

import pandas as pd
import pytest
from misbehaving_store import BUCKET
from recordings import write_manifest

from ser_core.errors import RecordingError, RunError, Status
from ser_core.sources.forms import open_source, read_members
from ser_core.sources.interface import InputOptions
from ser_core.sources.lookup import look_up
from ser_core.storage.reading import Stopwatch

OPTIONS = InputOptions(allow_outside=True, include=("*.raw",))


def listed(*inputs):
    pages = open_source(list(map(str, inputs)), OPTIONS).pages()
    return {each.identity: each for page in pages for each in page.recordings}


def assert_all_are_found(recordings):
    found = look_up(recordings)
    assert found.keys() == recordings.keys()
    for identity, recording in recordings.items():
        assert found[identity].identity == identity
        assert found[identity].file_id == recording.file_id
        assert (found[identity].size, found[identity].offset) == (recording.size, recording.offset)
        assert found[identity].start == pytest.approx(recording.start, abs=1e-6)
        assert found[identity].duration == pytest.approx(recording.duration, abs=1e-6)


def shard(path, *names):
    with tarfile.open(path, "w:gz" if str(path).endswith("gz") else "w") as tar:
        for number, name in enumerate(names):
            content = bytes([number]) * 700
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def test_files_and_stretches(tmp_path):
    for name in ("a.wav", "b#t=1,2.wav", "c::d.wav", "e.wav#t=3"):
        (tmp_path / name).write_bytes(name.encode())
    rows = {
        "path": ["a.wav", "a.wav", "e.wav#t=3"],
        "offset": [0.0, 1.2345678, 0.5],
        "duration": [1.5, 2.1, None],
    }
    manifest = write_manifest(pd.DataFrame(rows), tmp_path / "calls.csv")
    recordings = listed(tmp_path) | listed(manifest)
    assert len(recordings) == 6
    assert_all_are_found(recordings)
    (tmp_path / "a.wav#t=3").write_bytes(b"a file of this name")
    (found,) = look_up([f"{tmp_path}/a.wav#t=3"]).values()
    assert (found.uri, found.start, found.size) == (f"{tmp_path}/a.wav#t=3", None, 19)


@pytest.mark.parametrize("extension", ["tar", "tar.gz"])
def test_members_of_shards(tmp_path, extension):
    names = ["x/1.wav", "x/1.json", "2.raw", "2.raw", "3#t=1,2.wav", "4::5.wav"]
    recordings = listed(shard(tmp_path / f"calls.{extension}", *names))
    assert len(recordings) == 5
    backwards = dict(reversed(recordings.items()))
    assert_all_are_found(backwards)
    found = list(look_up(backwards).values())
    contents = list(read_members(found[0].uri, found, Stopwatch()))
    assert [content[:1] for content in contents] == [b"\0", b"\2", b"\3", b"\4", b"\5"]


def test_stretches_of_members(tmp_path):
    shard(tmp_path / "audio_0.tar", "1.wav", "2.wav")
    rows = [
        {"audio_filepath": "2.wav", "shard_id": 0, "offset": start, "duration": 1.25}
        for start in (0.5, 2.0)
    ]
    manifest = tmp_path / "tarred.json"
    manifest.write_text("\n".join(map(json.dumps, rows)))
    recordings = listed(manifest)
    assert len(recordings) == 2
    assert_all_are_found(recordings)


def test_rows_of_a_table(tmp_path):
    audio = [{"bytes": bytes([n]), "path": f"{n}.wav"} for n in range(5)]
    pd.DataFrame({"audio": audio}).to_parquet(tmp_path / "calls.parquet")
    recordings = listed(tmp_path / "calls.parquet")
    assert_all_are_found(dict(list(recordings.items())[1:4]))


def test_what_is_gone(tmp_path):
    shard(tmp_path / "calls.tar", "1.wav")
    gone = ["gone.wav", "gone.wav#t=1,2", "calls.tar::2.wav", "gone.tar::1.wav"]
    found = look_up([f"{tmp_path}/{name}" for name in [*gone, "calls.tar::1.wav"]])
    for name in gone:
        error = found[f"{tmp_path}/{name}"]
        assert isinstance(error, RecordingError)
        assert error.status is Status.NOT_FOUND
    assert found[f"{tmp_path}/calls.tar::1.wav"].size == 700


def test_an_object_store(store):
    store.objects = {f"calls/{n}.wav": bytes(n + 1) for n in range(3)}
    recordings = listed(f"s3://{BUCKET}/calls")
    assert len(recordings) == 3
    assert_all_are_found(recordings)


@pytest.mark.usefixtures("deadline")
def test_storage_out_of_reach_ends_the_look_up(store):
    store.fault = lambda *_: 503
    with pytest.raises(RunError, match="cannot be reached"):
        look_up([f"s3://{BUCKET}/calls/{n}.wav" for n in range(3)])
