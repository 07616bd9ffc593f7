"""NeMo's tarred manifests as input: rows name members, and stretches of them, in shards beside it.

The layout is what NeMo's `convert_to_tarred_audio_dataset.py` writes.
"""

import io
import json
import tarfile
from pathlib import Path

import pytest

from ser_core.errors import CorpusError, RecordingError, Status
from ser_core.sources import manifest, nemo_tar
from ser_core.sources.forms import open_source, read_members
from ser_core.sources.interface import InputOptions
from ser_core.storage.reading import Stopwatch

CORPUS = Path(__file__).parents[2] / "examples" / "corpus"


def write_corpus(folder: Path, rows, per_shard: int = 3) -> Path:
    """Shards of (row, content), and the manifest; a row without content is in the manifest only."""
    entries = []
    for number, (row, content) in enumerate(rows):
        shard = folder / f"audio_{number // per_shard}.tar"
        entries.append({**row, "shard_id": number // per_shard})
        with tarfile.open(shard, "a") as archive:
            if content is not None and row["audio_filepath"] not in archive.getnames():
                info = tarfile.TarInfo(row["audio_filepath"])
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    path = folder / "tarred_audio_manifest.json"
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def pages_of(*uris):
    return list(nemo_tar.open_source([*map(str, uris)], InputOptions()).pages())


def recordings_of(*uris):
    return [each for page in pages_of(*uris) for each in page.recordings]


def read(recordings):
    """What is read of members, shard by shard."""
    return [
        content
        for uri in dict.fromkeys(each.uri for each in recordings)
        for content in read_members(uri, [r for r in recordings if r.uri == uri], Stopwatch())
    ]


def row(name, **more):
    return {"audio_filepath": name, "duration": 1.0, "text": f"of {name}", **more}


def test_a_tarred_corpus_is_the_same_recordings_as_a_folder(tmp_path):
    files = sorted(CORPUS.rglob("*.wav"))
    uri = write_corpus(
        tmp_path, [(row(f"{f.parent.name}_{f.name}"), f.read_bytes()) for f in files]
    )
    assert nemo_tar.recognizes(str(uri))
    (page,) = pages_of(uri)
    assert [each.member for each in page.recordings] == [f"{f.parent.name}_{f.name}" for f in files]
    assert page.recordings[0].path == f"{tmp_path}/audio_0.tar::{page.recordings[0].member}"
    assert read(page.recordings) == [file.read_bytes() for file in files]
    assert page.columns.to_pylist() == [
        {"text": f"of {each.member}", "shard_id": number // 3}
        for number, each in enumerate(page.recordings)
    ]
    assert all(each.start is None for each in page.recordings)


def test_the_same_recordings_as_those_of_the_shards_alone(tmp_path):
    uri = write_corpus(tmp_path, [(row(f"{n}.wav"), b"x") for n in range(5)])
    pages = open_source([f"{tmp_path}/audio_*.tar"]).pages()
    shards = [each for page in pages for each in page.recordings]
    assert [each.file_id for each in recordings_of(uri)] == [each.file_id for each in shards]


def test_stretches_of_members_in_the_order_of_the_shard(tmp_path):
    rows = [(row("b.wav", offset=2.5), b"b"), (row("a.wav", offset=0), b"a")]
    rows += [(row("b.wav", offset=0.0), None), (row("a.wav", offset=None), None)]
    recordings = recordings_of(write_corpus(tmp_path, rows, per_shard=4))
    assert [(each.member, each.start, each.duration) for each in recordings] == [
        ("b.wav", 2.5, 1.0),
        ("b.wav", 0.0, 1.0),
        ("a.wav", 0.0, 1.0),
        ("a.wav", None, None),
    ]
    assert len({each.file_id for each in recordings}) == 4
    assert recordings[0].identity == f"{tmp_path}/audio_0.tar::b.wav#t=2.5,3.5"
    assert read(recordings) == [b"b", b"b", b"a", b"a"]


def test_columns_stay_with_their_recordings(tmp_path):
    rows = [(row("b.wav", offset=1), b"b"), (row("a.wav", offset=1), b"a")]
    rows += [(row("b.wav", offset=0, text="second"), None)]
    (page,) = pages_of(write_corpus(tmp_path, rows))
    assert [each["text"] for each in page.columns.to_pylist()] == ["of b.wav", "second", "of a.wav"]


def test_what_is_missing_has_a_row(tmp_path):
    rows = [(row(f"{n}.wav"), f"{n}".encode()) for n in range(7)]
    rows[1] = (rows[1][0], None)
    uri = write_corpus(tmp_path, rows)
    (tmp_path / "audio_1.tar").unlink()
    recordings = recordings_of(uri)
    assert len(recordings) == 7
    results = {
        each.member: content for each, content in zip(recordings, read(recordings), strict=True)
    }
    missing = {name for name, r in results.items() if isinstance(r, RecordingError)}
    assert missing == {"1.wav", "3.wav", "4.wav", "5.wav"}
    assert {results[name].status for name in missing} == {Status.NOT_FOUND}
    assert results["2.wav"] == b"2"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([("a", 0), ("b", 1), ("c", 0)], "sort it by `shard_id`"),
        ([("a", 0), ("a", 0)], "a recording is there twice"),
        ([("a", 0), ("b", "x")], "`shard_id` is 'x'"),
        ([("a", 0), ("", 0)], "row 2 has no path"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_refused(tmp_path, rows, words):
    lines = (json.dumps({"audio_filepath": name, "shard_id": shard}) for name, shard in rows)
    (tmp_path / "m.json").write_text("\n".join(lines))
    with pytest.raises(CorpusError) as caught:
        pages_of(tmp_path / "m.json")
    assert str(caught.value).startswith(f"--input {tmp_path}/m.json: ")
    assert words in str(caught.value)


def test_other_manifests_are_left_to_other_forms(tmp_path):
    for name, text in {
        "a.json": '{"audio_filepath": "a.wav"}\n',
        "b.jsonl": '["shard_id", "audio_filepath"]\n',
        "c.json": "",
        "d.json": "{",
        "e.csv": "shard_id,audio_filepath\n0,a.wav\n",
        "f.json": '{"shard_id": 0}',
    }.items():
        (tmp_path / name).write_text(text)
        assert not nemo_tar.recognizes(f"{tmp_path}/{name}")
        assert manifest.recognizes(f"{tmp_path}/{name}")
    (tmp_path / "g.jsonl.zst").write_bytes(b"no zstd")
    for name in ("g.jsonl.zst", "gone.json"):
        assert not nemo_tar.recognizes(f"{tmp_path}/{name}")
