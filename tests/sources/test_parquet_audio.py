"""Parquet files with the bytes of recordings: a row for each of theirs, whatever they are like."""

import os
from pathlib import Path

import datasets
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ser_core.errors import RecordingError, RunError, Status
from ser_core.sources import audio_table, manifest, parquet_audio
from ser_core.sources.forms import open_source, read_members
from ser_core.storage.reading import Stopwatch

CORPUS = Path(__file__).parents[2] / "examples" / "corpus"
AUDIO = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def contents(*recordings):
    return list(read_members(recordings[0].uri, recordings, Stopwatch()))


def pages_of(*uris):
    return list(open_source([*map(str, uris)]).pages())


def recordings_of(*uris):
    return [each for page in pages_of(*uris) for each in page.recordings]


def rows_of(*uris):
    return [row for page in pages_of(*uris) for row in page.columns.to_pylist()]


def unseen_of(*uris):
    return [place for page in pages_of(*uris) for place in page.unseen]


def statuses(results):
    return [r.status if isinstance(r, RecordingError) else Status.OK for r in results]


def write(path: Path, audio, kind=AUDIO, name="audio", row_group_size=None, **columns) -> Path:
    table = pa.table({name: pa.array(audio, kind), **columns})
    pages = {"data_page_size": 1, "write_batch_size": 1, "use_dictionary": False}  # of a row each
    pq.write_table(table, path, row_group_size=row_group_size, compression="none", **pages)
    return path


def recording(content: bytes, path: str | None = None):
    return {"bytes": content, "path": path}


# ---- what datasets writes ------------------------------------------------------------------------


def test_a_dataset_of_hugging_face_is_the_same_recordings_as_a_folder(tmp_path):
    files = sorted(CORPUS.rglob("*.wav"))
    classes = sorted({file.parent.name for file in files})
    plain = {
        "audio": [recording(file.read_bytes(), file.name) for file in files],
        "speaker": [f"{n:03}" for n in range(len(files))],
        "label": [classes.index(file.parent.name) for file in files],
    }
    # Audio encodes files and samples by torchcodec, and casts what is encoded already without it.
    features = datasets.Features(
        audio=datasets.Audio(decode=False),
        speaker=datasets.Value("string"),
        label=datasets.ClassLabel(names=classes),
    )
    dataset = datasets.Dataset.from_dict(plain).cast(features)
    for number in range(2):
        dataset.shard(2, number, contiguous=True).to_parquet(tmp_path / f"{number}.parquet")
    assert parquet_audio.recognizes(f"{tmp_path}/0.parquet")

    pages = pages_of(f"{tmp_path}/*.parquet")
    recordings = [each for page in pages for each in page.recordings]
    assert [each.path for each in recordings] == [file.name for file in files]
    assert [each.identity for each in recordings[:2]] == [
        f"{tmp_path}/0.parquet::{n}" for n in range(2)
    ]
    rows = [row for page in pages for row in page.columns.to_pylist()]
    assert rows == [
        {"speaker": speaker, "parquet.label": label}
        for speaker, label in zip(plain["speaker"], plain["label"], strict=True)
    ]
    read = [
        content
        for page in pages
        for content in (contents(*page.recordings) if page.recordings else [])
    ]
    assert read == [file.read_bytes() for file in files]


# ---- what is recognized --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"audio": AUDIO, "path": pa.string()}, "audio"),
        ({"speech": pa.struct({"path": pa.string(), "bytes": pa.large_binary()})}, "speech"),
        ({"other": AUDIO, "audio": AUDIO}, "audio"),
        ({"image": AUDIO, "audio": pa.binary()}, "audio"),
        ({"a": AUDIO, "b": AUDIO}, None),
        ({"id": pa.string(), "FLAC": pa.large_binary()}, "FLAC"),
        ({"path": pa.binary()}, None),
        ({"wav": pa.string()}, None),
        ({"wav": pa.binary(), "mp3": pa.binary()}, None),
        ({"audio": pa.struct({"array": pa.list_(pa.float32()), "path": pa.string()})}, None),
        ({}, None),
    ],
)
def test_which_column_holds_recordings(columns, expected):
    schema = pa.schema(columns)
    assert audio_table.audio_column(schema) == expected
    assert parquet_audio.holds_audio(schema) is (expected is not None)


def test_other_files_are_left_to_other_forms(tmp_path):
    pq.write_table(pa.table({"path": ["a.wav"]}), tmp_path / "paths.parquet")
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1" + bytes(100))
    (tmp_path / "folder.parquet").mkdir()
    write(tmp_path / "x.data", [recording(b"x")])
    for name in ("paths.parquet", "damaged.parquet", "folder.parquet", "gone.parquet", "x.data"):
        assert not parquet_audio.recognizes(f"{tmp_path}/{name}")


def test_one_form_recognizes_a_parquet_file(tmp_path):
    uri = str(write(tmp_path / "a.parquet", [recording(b"x")]))
    assert parquet_audio.recognizes(uri)
    assert not manifest.recognizes(uri)


def test_recordings_in_a_column_of_bytes(tmp_path):
    uri = write(tmp_path / "a.parquet", [b"1", b"2", None], pa.large_binary(), "wav", id=[7, 8, 9])
    recordings = recordings_of(uri)
    assert [each.path for each in recordings] == [f"{uri}::{n}" for n in range(3)]
    assert rows_of(uri) == [{"id": 7}, {"id": 8}, {"id": 9}]
    assert contents(*recordings[:2]) == [b"1", b"2"]
    assert statuses(contents(recordings[2])) == [Status.EMPTY]


def test_recordings_without_any_other_column(tmp_path):
    uri = write(tmp_path / "a.parquet", [b"1", b"2"], pa.binary(), "bytes", row_group_size=1)
    assert contents(*recordings_of(uri)) == [b"1", b"2"]


# ---- columns -------------------------------------------------------------------------------------


def test_columns_keep_their_types_and_those_with_bytes_are_left_out(tmp_path):
    columns = {
        "age": pa.array([41], pa.int8()),
        "tags": pa.array([["a"]], pa.list_(pa.string())),
        "duration": pa.array([1.5]),
        "score_sad": pa.array([0.5]),
        "photo": pa.array([b"x"]),
        "clips": pa.array([[recording(b"x")]], pa.list_(AUDIO)),
    }
    uri = write(tmp_path / "a.parquet", [recording(b"x")], **columns)
    source = open_source([str(uri)])
    assert dict(zip(source.columns.names, source.columns.types, strict=True)) == {
        "age": pa.int8(),
        "tags": pa.list_(pa.string()),
        "parquet.duration": pa.float64(),
        "parquet.score_sad": pa.float64(),
    }
    assert not source.columns.metadata
    assert rows_of(uri)[0]["tags"] == ["a"]


def test_files_with_other_columns_are_read_together(tmp_path):
    one = [recording(b"x")]
    write(tmp_path / "0.parquet", one, a=pa.array([1], pa.int32()), b=["b"])
    write(tmp_path / "1.parquet", one, c=pa.array([None]), a=pa.array([2], pa.int64()))
    write(tmp_path / "2.parquet", one, c=["c"])
    assert rows_of(f"{tmp_path}/*.parquet") == [
        {"a": 1, "b": "b", "c": None},
        {"a": 2, "b": None, "c": None},
        {"a": None, "b": None, "c": "c"},
    ]


def test_a_file_whose_column_has_another_type_is_named(tmp_path):
    for name, value in (("0", "x"), ("1", 1), ("2", "y")):
        more = {"b": [1]} if name == "0" else {}
        write(tmp_path / f"{name}.parquet", [recording(b"x")], a=[value], **more)
    uris = f"{tmp_path}/*.parquet"
    assert rows_of(uris) == [{"a": "x", "b": 1}, {"a": "y", "b": None}]
    reason = "the column `a` is int64, and string in other files"
    assert unseen_of(uris) == [f"{tmp_path}/1.parquet: {reason}"]


# ---- reading -------------------------------------------------------------------------------------


@pytest.fixture
def large(tmp_path):
    """Twelve recordings in row groups of five, read in batches of two."""
    audio = [recording(bytes([n]) * 1000, f"{n}.wav") for n in range(12)]
    return write(tmp_path / "large.parquet", audio, row_group_size=5, id=list(range(12)))


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr(audio_table, "_BATCH_BYTES", 7000)  # a page has 3 kB with its statistics


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("rows", [range(12), [0], [11], [1, 3, 4, 5, 9], [6, 6, 7]])
def test_any_rows_can_be_read(large, rows):
    recordings = recordings_of(large)
    assert contents(*(recordings[n] for n in rows)) == [bytes([n]) * 1000 for n in rows]


def test_only_the_bytes_that_are_needed_are_fetched(monkeypatch, tmp_path):
    audio = [recording(os.urandom(1 << 20), f"{n}.wav") for n in range(24)]
    spare = [os.urandom(1 << 20)] * 24
    path = write(tmp_path / "a.parquet", audio, row_group_size=12, id=list(range(24)), spare=spare)
    fs = fsspec.filesystem("memory")
    fs.put(str(path), "/rows/a.parquet")
    fetched, fetch = [], fs.cat_file
    monkeypatch.setattr(
        type(fs),
        "cat_file",
        lambda _, path, **span: fetched.append(len(data := fetch(path, **span))) or data,
    )
    recordings = recordings_of("memory://rows/a.parquet")
    assert len(recordings) == 24
    assert sum(fetched) < 20 << 20  # of 48 MiB; each of four requests fetches 4 MiB
    fetched.clear()
    assert contents(recordings[12]) == [audio[12]["bytes"]]
    assert sum(fetched) < 6 << 20


def test_sizes_add_up_to_those_of_the_file(large):
    recordings = recordings_of(large)
    assert len({each.size for each in recordings}) == 1
    assert 12_000 <= sum(each.size for each in recordings) <= large.stat().st_size


def test_file_ids_are_stable_until_the_file_changes(tmp_path):
    path = write(tmp_path / "a.parquet", [recording(b"one"), recording(b"two")])
    first = [each.file_id for each in recordings_of(path)]
    assert len(set(first)) == 2
    assert [each.file_id for each in recordings_of(path)] == first
    write(path, [recording(b"one"), recording(b"TWO")])
    assert not set(first) & {each.file_id for each in recordings_of(path)}


def test_rows_without_bytes(tmp_path):
    audio = [
        recording(b"1"),
        recording(None, "/etc/passwd"),
        recording(None),
        None,
        recording(b""),
    ]
    results = contents(*recordings_of(write(tmp_path / "a.parquet", audio)))
    expected = [Status.OK, Status.DECODE_ERROR, Status.EMPTY, Status.EMPTY, Status.OK]
    assert statuses(results) == expected
    assert results[-1] == b""  # which the decoder says
    assert "not followed" in str(results[1])


# ---- bad files -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_batches")
def test_a_damaged_row_costs_only_those_behind_it_in_its_row_group(tmp_path):
    audio = [recording(bytes([n]) * 1000) for n in range(12)]
    table = pa.table({"audio": pa.array(audio, AUDIO)})
    path = tmp_path / "a.parquet"
    options = {"compression": "zstd", "data_page_size": 1, "write_batch_size": 1}
    pq.write_table(table, path, row_group_size=5, use_dictionary=False, **options)
    uri = str(path)
    recordings = recordings_of(uri)
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    magic = b"\x28\xb5\x2f\xfd"
    page = chunk.data_page_offset
    for _ in range(4):  # to the fourth page of the second group
        page = data.index(magic, page + 1)
    data[page : page + 4] = b"\0\0\0\0"
    path.write_bytes(data)
    results = contents(*recordings)
    assert statuses(results) == [Status.OK] * 8 + [Status.DECODE_ERROR] * 2 + [Status.OK] * 2
    assert results[:8] == [each["bytes"] for each in audio[:8]]
    assert results[10:] == [each["bytes"] for each in audio[10:]]
    assert "the row group is damaged" in str(results[8])
    assert statuses(contents(*recordings[9:])) == [Status.DECODE_ERROR, Status.OK, Status.OK]


def test_a_file_that_is_damaged_or_gone_does_not_stop_the_others(tmp_path, refusal):
    for n in range(3):
        write(tmp_path / f"{n}.parquet", [recording(b"x")])
    whole = (tmp_path / "1.parquet").read_bytes()
    (tmp_path / "1.parquet").write_bytes(whole[:-20])
    (tmp_path / "2.parquet").unlink()
    pq.write_table(pa.table({"path": ["a"]}), tmp_path / "3.parquet")
    uris = f"{tmp_path}/{{0,1,2,3}}.parquet"
    assert len(recordings_of(uris)) == 1
    damaged, gone, another = unseen_of(uris)
    assert damaged.startswith(f"{tmp_path}/1.parquet: the file is no Parquet file (")
    assert gone == f"{tmp_path}/2.parquet: there is no such file or folder"
    assert another == f"{tmp_path}/3.parquet: the file has no column of recordings"
    assert "\n" not in damaged
    refusal(tmp_path / "1.parquet")
    refusal(tmp_path / "2.parquet")
    empty = write(tmp_path / "4.parquet", [])
    assert "there are no recordings" in refusal(empty)


def test_a_file_with_damaged_columns_is_listed_up_to_them(tmp_path):
    ids = [f"{n}" * 50 for n in range(20)]
    table = pa.table({"audio": pa.array([recording(b"x")] * 20, AUDIO), "id": ids})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, row_group_size=10)
    good = write(tmp_path / "b.parquet", [recording(b"x")], id=["y"])
    column = pq.ParquetFile(path).metadata.row_group(1).column(2)
    data = bytearray(path.read_bytes())
    start = min(column.data_page_offset, column.dictionary_page_offset or column.data_page_offset)
    data[start : start + 40] = b"\xff" * 40
    path.write_bytes(data)
    assert recordings_of(path, good)[-1].uri == str(good)
    (place,) = unseen_of(path, good)
    assert place.startswith(f"{path}: the file is damaged behind row ")


def test_a_file_that_changes_after_it_was_listed(large):
    recordings = recordings_of(large)
    write(large, [recording(b"x")] * 3)
    assert statuses(contents(*recordings[2:])) == [Status.OK] + [Status.NOT_FOUND] * 9
    pq.write_table(pa.table({"path": ["a"]}), large)
    (result,) = parquet_audio.read_members(str(large), recordings[:1], Stopwatch())
    assert result.status is Status.DECODE_ERROR
    large.unlink()
    results = list(parquet_audio.read_members(str(large), recordings, Stopwatch()))
    assert statuses(results) == [Status.NOT_FOUND] * 12


@pytest.mark.usefixtures("deadline")
@pytest.mark.parametrize("deadline", [0.2], indirect=True)
def test_a_store_that_fails_is_told_from_a_bad_file(monkeypatch, tmp_path):
    audio = [recording(os.urandom(1 << 19)) for n in range(32)]
    write(tmp_path / "a.parquet", audio)
    fs = fsspec.filesystem("memory")
    fs.put(str(tmp_path / "a.parquet"), "/rows/b.parquet")
    uri = "memory://rows/b.parquet"
    recordings, source = recordings_of(uri), open_source([uri])
    fetch, most = fs.cat_file, 4

    def cat_file(_, path, **span):
        nonlocal most
        if most < 1:
            raise ConnectionResetError("the store has gone")
        most -= 1
        return fetch(path, **span)

    monkeypatch.setattr(type(fs), "cat_file", cat_file)
    results = list(parquet_audio.read_members(uri, recordings, Stopwatch()))
    assert results[0] == audio[0]["bytes"]
    assert statuses(results)[24:] == [Status.UNAVAILABLE] * 8  # of 16 MiB
    most = 0
    with pytest.raises(RunError, match=f"{uri}: cannot be reached"):
        list(source.pages())
    results = list(parquet_audio.read_members(uri, recordings, Stopwatch()))
    assert statuses(results) == [Status.UNAVAILABLE] * 32
