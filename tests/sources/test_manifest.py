"""Folders, files and manifests become tables of recordings, or are refused in one line."""

import os
import tracemalloc

import fsspec
import pandas as pd
import pyarrow as pa
import pytest
from recordings import write_manifest

from ser_core.errors import CorpusError
from ser_core.sources.manifest import file_id, open_corpus
from ser_core.storage.listing import list_files

LABELS = ("angry", "sad")


def listed(uri):
    tables = list(open_corpus(str(uri), LABELS).tables())
    return pa.concat_tables(tables).to_pandas() if tables else pd.DataFrame({"path": []})


def refusal(uri):
    with pytest.raises(CorpusError) as caught:
        list(open_corpus(str(uri), LABELS).tables())
    words = str(caught.value)
    assert words.startswith(f"--input {uri}: ")
    assert "\n" not in words
    return words


@pytest.fixture
def folder(tmp_path):
    names = ["a.wav", "deep/er/b.FLAC", "名 字+#%.mp3", "notes.txt", ".hidden.wav", "_spark/c.wav"]
    names += [".git/d.wav", "deep/_e.wav", "wav"]
    for name in names:
        path = tmp_path / "corpus" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345")
    return tmp_path / "corpus"


EXPECTED = ["a.wav", "deep/er/b.FLAC", "名 字+#%.mp3"]


def test_folder(folder):
    table = listed(folder)
    assert sorted(table["path"]) == sorted(str(folder / name) for name in EXPECTED)
    assert set(table["_size"]) == {5}
    assert table["file_id"].is_unique


def test_relative_folder_gives_absolute_paths(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert sorted(listed("corpus/")["path"]) == sorted(str(folder / name) for name in EXPECTED)
    assert sorted(listed(f"file://{folder}")["path"]) == sorted(listed(folder)["path"])


def test_fsspec_uri(folder):
    fs = fsspec.filesystem("memory")
    fs.put(str(folder), "/corpus", recursive=True)
    paths = sorted(listed("memory://corpus")["path"])
    assert paths == sorted(f"memory:///corpus/{name}" for name in EXPECTED)


def test_links_are_followed_once_and_dangling_ones_listed(folder):
    (folder / "loop").symlink_to(folder)
    (folder / "gone.wav").symlink_to(folder / "nowhere")
    table = listed(folder).set_index("path")
    assert len(table) == len(EXPECTED) + 1
    assert pd.isna(table.loc[str(folder / "gone.wav"), "_size"])


def test_file_id_changes_with_the_content(folder):
    before = listed(folder).set_index("path")["file_id"]
    (folder / "a.wav").write_bytes(b"123456")
    os.utime(folder / "deep/er/b.FLAC", ns=(1, 1))
    after = listed(folder).set_index("path")["file_id"]
    changed = {path for path in before.index if before[path] != after[path]}
    assert changed == {str(folder / "a.wav"), str(folder / "deep/er/b.FLAC")}


def test_file_ids_do_not_run_together():
    assert file_id("/a1", 2, "3") != file_id("/a", 12, "3")


def test_single_recording(folder):
    assert list(listed(folder / "a.wav")["path"]) == [str(folder / "a.wav")]


def test_what_is_not_there_or_no_recording(folder):
    assert "no such file" in refusal(folder / "nowhere")
    assert "no such file" in refusal(folder / "nowhere.csv")
    assert "neither a recording nor a manifest" in refusal(folder / "notes.txt")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_manifest(folder, suffix):
    frame = pd.DataFrame(
        {
            "speaker": ["007", "8", "九", "x"],
            "path": ["a.wav", str(folder / "deep/er/b.FLAC"), "名 字+#%.mp3", "gone.wav"],
            "take": [1, 2, 3, 4],
        }
    )
    table = listed(write_manifest(frame, folder / f"calls{suffix}"))
    assert list(table["path"]) == list(frame["path"])  # as the manifest gave them
    assert list(table["speaker"]) == list(frame["speaker"])
    assert list(table["take"]) == ([*"1234"] if suffix == ".csv" else [1, 2, 3, 4])
    assert list(table["_size"][:3]) == [5, 5, 5]  # found relative to the manifest
    assert pd.isna(table["_size"][3])


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_manifests_that_are_refused(tmp_path, suffix):
    path = tmp_path / f"m{suffix}"
    assert "no column `path` (file)" in refusal(
        write_manifest(pd.DataFrame({"file": ["a.wav"]}), path)
    )
    twice = pd.DataFrame({"path": ["a.wav", "b.wav", "a.wav"]})
    assert "has a path twice: a.wav" in refusal(write_manifest(twice, path))
    taken = pd.DataFrame({"path": ["a.wav"], "label": ["x"], "score_sad": [1.0], "_index": [1]})
    words = refusal(write_manifest(taken, path))
    assert "label, score_sad" in words.replace("_index, ", "").replace(", _index", "")
    assert "_index" in words
    null = pd.DataFrame({"path": ["a.wav", None], "x": ["1", "2"]})
    if suffix != ".csv":  # where it would be the empty text
        assert "a row has no path" in refusal(write_manifest(null, path))
    path.write_bytes(b"\xff\xfe\x00 not a table \x00" * 9)
    assert refusal(path)
    path.write_bytes(b"")
    assert refusal(path)


def test_a_column_named_path_twice(tmp_path):
    (tmp_path / "m.csv").write_text("path,path\na.wav,b.wav\n")
    assert "more than one column `path`" in refusal(tmp_path / "m.csv")


def test_a_million_names_stream(monkeypatch):
    """The listing keeps a page, not the corpus: memory does not grow with the names."""
    from ser_core.storage import listing as storage

    def names(*_, **__):
        yield from (storage.Entry(f"/data/{n:09}.wav", 5, "1") for n in range(200_000))

    monkeypatch.setattr(storage, "_scan", names)
    monkeypatch.setattr("ser_core.sources.manifest.is_file", lambda _: False)
    corpus = open_corpus("/data", LABELS)
    tracemalloc.start()
    assert sum(table.num_rows for table in corpus.tables()) == 200_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6  # bytes; the names alone are 100 a piece


def test_pages_come_before_the_listing_ends(folder):
    entries = list_files(str(folder), lambda _: True)
    assert next(entries)
