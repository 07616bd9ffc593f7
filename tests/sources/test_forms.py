"""Input forms: folders, files and manifests are listed, or refused with a one-line message."""

import os
import tracemalloc
import zipfile

import fsspec
import pandas as pd
import pytest
from recordings import write_manifest

from ser_core import sources
from ser_core.errors import CorpusError, RecordingError, Status
from ser_core.sources.forms import list_pages, open_recording, open_source
from ser_core.storage import listing
from ser_core.storage.listing import Entry, list_files
from ser_core.storage.reading import Stopwatch


def listed(uri):
    """The recordings of an input with the columns of its manifest."""
    rows = []
    for page in open_source(str(uri)).pages():
        columns = page.columns.to_pylist() if page.columns else [{}] * len(page.recordings)
        for recording, extra in zip(page.recordings, columns, strict=True):
            reference = {name: getattr(recording, name) for name in ("uri", "size", "file_id")}
            rows.append({"path": recording.path, **reference, **extra})
    return pd.DataFrame(rows, columns=None if rows else ["path"])


def refusal(uri):
    with pytest.raises(CorpusError) as caught:
        list(list_pages(str(uri), open_source(str(uri))))
    message = str(caught.value)
    assert message.startswith(f"--input {uri}: ")
    assert "\n" not in message
    return message


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


# ---- folders and files ---------------------------------------------------------------------------


def test_a_folder(folder):
    table = listed(folder)
    assert sorted(table["path"]) == sorted(str(folder / name) for name in EXPECTED)
    assert list(table["uri"]) == list(table["path"])
    assert set(table["size"]) == {5}
    assert table["file_id"].is_unique


def test_a_relative_folder_gives_absolute_paths(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert sorted(listed("corpus/")["path"]) == sorted(str(folder / name) for name in EXPECTED)
    assert sorted(listed(f"file://{folder}")["path"]) == sorted(listed(folder)["path"])


def test_an_fsspec_uri(folder):
    fs = fsspec.filesystem("memory")
    fs.put(str(folder), "/corpus", recursive=True)
    paths = sorted(listed("memory://corpus")["path"])
    assert paths == sorted(f"memory:///corpus/{name}" for name in EXPECTED)


def test_links_are_followed_once_and_dangling_links_are_listed(folder):
    (folder / "loop").symlink_to(folder)
    (folder / "gone.wav").symlink_to(folder / "nowhere")
    table = listed(folder).set_index("path")
    assert len(table) == len(EXPECTED) + 1
    assert pd.isna(table.loc[str(folder / "gone.wav"), "size"])


def test_file_id_changes_with_the_content(folder):
    before = listed(folder).set_index("path")["file_id"]
    (folder / "a.wav").write_bytes(b"123456")
    os.utime(folder / "deep/er/b.FLAC", ns=(1, 1))
    after = listed(folder).set_index("path")["file_id"]
    changed = {path for path in before.index if before[path] != after[path]}
    assert changed == {str(folder / "a.wav"), str(folder / "deep/er/b.FLAC")}


def test_a_single_recording(folder):
    assert list(listed(folder / "a.wav")["path"]) == [str(folder / "a.wav")]


def test_missing_and_unsupported_inputs_are_refused(folder):
    assert "no such file" in refusal(folder / "nowhere")
    assert "no such file" in refusal(folder / "nowhere.csv")
    assert "not one of: a recording" in refusal(folder / "notes.txt")


def test_names_that_are_not_utf8_are_listed_and_opened(folder):
    os.close(os.open(os.fsencode(folder) + b"/\xd6\xd0.wav", os.O_CREAT))
    recordings = [r for page in open_source(str(folder)).pages() for r in page.recordings]
    (odd,) = [recording for recording in recordings if recording.size == 0]
    assert odd.uri.encode()  # has no surrogates
    with open_recording(odd, Stopwatch()) as handle:
        assert handle.read() == b""


def test_the_listing_is_streamed(monkeypatch):
    """Memory does not grow with the number of files."""

    def names(*_, **__):
        yield from (Entry(f"/data/{n:09}.wav", 5, "1") for n in range(100_000))

    monkeypatch.setattr(listing, "_scan", names)
    source = open_source("/data")
    tracemalloc.start()
    assert sum(len(page.recordings) for page in source.pages()) == 100_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10e6  # bytes; a list of them all takes 27 MB


def test_a_listing_returns_its_first_entry(folder):
    entries = list_files(str(folder), lambda _: True)
    assert next(entries)


# ---- manifests -----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_manifest(folder, suffix):
    frame = pd.DataFrame(
        {
            "speaker": ["007", "8", "九", "x"],
            "path": ["a.wav", str(folder / "deep/er/b.FLAC"), "名 字+#%.mp3", "gone.wav"],
            "take": [1, 2, 3, 4],
        }
    )
    table = listed(write_manifest(frame, folder / f"calls{suffix}"))
    assert list(table["path"]) == list(frame["path"])  # as in the manifest
    absolute = [str(folder / name) for name in (*frame["path"][:3], "gone.wav")]
    assert list(table["uri"]) == absolute
    assert list(table["speaker"]) == list(frame["speaker"])
    assert list(table["take"]) == ([*"1234"] if suffix == ".csv" else [1, 2, 3, 4])
    assert list(table["size"][:3]) == [5, 5, 5]  # relative to the manifest
    assert pd.isna(table["size"][3])


def test_all_spellings_of_a_path_have_one_identity(folder):
    names = ["a.wav", "./a.wav", "deep/../a.wav", str(folder / "a.wav"), f"file://{folder}/a.wav"]
    (by_folder,) = [row for row in listed(folder).itertuples() if row.path.endswith("a.wav")]
    for name in names:
        (row,) = listed(
            write_manifest(pd.DataFrame({"path": [name]}), folder / "m.csv")
        ).itertuples()
        assert (row.path, row.uri, row.file_id) == (name, by_folder.uri, by_folder.file_id)


def test_equal_relative_paths_in_two_folders_are_two_recordings(tmp_path):
    uris = []
    for day in ("monday", "tuesday"):
        (tmp_path / day).mkdir()
        (tmp_path / day / "1.wav").write_bytes(b"same")
        os.utime(tmp_path / day / "1.wav", ns=(1, 1))
        manifest = write_manifest(pd.DataFrame({"path": ["1.wav"]}), tmp_path / day / "m.csv")
        uris += [(row.path, row.uri, row.file_id) for row in listed(manifest).itertuples()]
    assert uris[0][0] == uris[1][0] == "1.wav"
    assert uris[0][1] != uris[1][1]
    assert uris[0][2] != uris[1][2]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_invalid_manifests_are_refused(tmp_path, suffix):
    path = tmp_path / f"m{suffix}"
    assert "no column `path` (file)" in refusal(
        write_manifest(pd.DataFrame({"file": ["a.wav"]}), path)
    )
    twice = pd.DataFrame({"path": ["a.wav", "b.wav", "a.wav"]})
    assert refusal(write_manifest(twice, path)).endswith("has a recording twice: a.wav")
    twice = pd.DataFrame({"path": ["a.wav", "b.wav", "x/../a.wav"]})
    assert refusal(write_manifest(twice, path)).endswith("twice: a.wav and x/../a.wav")
    null = pd.DataFrame({"path": ["a.wav", None], "x": ["1", "2"]})
    if suffix != ".csv":  # which has no nulls, only empty text
        assert "a row has no path" in refusal(write_manifest(null, path))
    path.write_bytes(b"\xff\xfe\x00 not a table \x00" * 9)
    assert refusal(path)
    path.write_bytes(b"")
    assert refusal(path)


def test_a_manifest_with_two_path_columns_is_refused(tmp_path):
    (tmp_path / "m.csv").write_text("path,path\na.wav,b.wav\n")
    assert "more than one column `path`" in refusal(tmp_path / "m.csv")


# ---- a new form ----------------------------------------------------------------------------------

ZIP_FORM = '''
"""Zip archives as ``--input``."""

import io
import zipfile
from contextlib import contextmanager

import pyarrow as pa

from ser_core.errors import RecordingError, Status
from ser_core.sources.interface import Page
from ser_core.sources.recording import Recording
from ser_core.storage.listing import is_file
from ser_core.storage.reading import open_file


DESCRIPTION = "a zip archive"


def recognizes(uri):
    return uri.endswith(".zip") and is_file(uri)


def open_source(uri):
    return ZipSource(uri)


class ZipSource:
    columns = pa.schema([])

    def __init__(self, uri):
        self.uri = uri

    def pages(self):
        with open_file(self.uri) as handle, zipfile.ZipFile(handle) as archive:
            yield Page([
                Recording(self.uri, info.file_size, f"{info.CRC}", member=info.filename)
                for info in archive.infolist()
            ])


@contextmanager
def open_member(recording, stopwatch):
    with open_file(recording.uri, None, stopwatch) as handle, zipfile.ZipFile(handle) as archive:
        try:
            yield io.BytesIO(archive.read(recording.member))
        except KeyError:
            raise RecordingError(Status.NOT_FOUND, "no longer in the archive") from None
'''


@pytest.fixture
def with_zip_form(tmp_path, monkeypatch):
    """Adds a module to the package and changes nothing else."""
    (tmp_path / "forms").mkdir()
    (tmp_path / "forms" / "zipped.py").write_text(ZIP_FORM)
    monkeypatch.setattr(sources, "__path__", [*sources.__path__, str(tmp_path / "forms")])


@pytest.mark.usefixtures("with_zip_form")
def test_a_new_form_is_one_module(tmp_path):
    archive = tmp_path / "calls.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("1.wav", b"one")
        file.writestr("2.wav", b"two")
    recordings = [r for page in open_source(str(archive)).pages() for r in page.recordings]
    assert [recording.path for recording in recordings] == [
        f"{archive}::1.wav",
        f"{archive}::2.wav",
    ]
    assert len({recording.file_id for recording in recordings}) == 2
    with open_recording(recordings[1], Stopwatch()) as handle:
        assert handle.read() == b"two"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("1.wav", b"one")
    with (
        pytest.raises(RecordingError) as caught,
        open_recording(recordings[1], Stopwatch()),
    ):
        pass
    assert caught.value.status is Status.NOT_FOUND


def test_at_most_one_form_recognizes_an_input(folder):
    from ser_core.sources import file, manifest
    from ser_core.sources import folder as folders

    write_manifest(pd.DataFrame({"path": ["a.wav"]}), folder / "m.csv")
    for uri, expected in (
        (folder, folders),
        (folder / "a.wav", file),
        (folder / "m.csv", manifest),
        (folder / "notes.txt", None),
        (folder / "nowhere", folders),
    ):
        forms = [form for form in (file, folders, manifest) if form.recognizes(str(uri))]
        assert forms == ([expected] if expected else [])
