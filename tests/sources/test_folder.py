"""A folder or prefix as input: which files are recordings, and how they are identified."""

import os
import tracemalloc

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from misbehaving_store import BUCKET

from ser_core.errors import CorpusError, RunError
from ser_core.sources.forms import open_recording, open_source
from ser_core.sources.interface import InputOptions
from ser_core.storage import listing
from ser_core.storage.listing import Entry
from ser_core.storage.reading import Stopwatch

EXPECTED = ["a.wav", "deep/er/b.FLAC", "名 字+#%.mp3"]


def test_a_folder(folder, listed):
    table = listed(folder)
    assert sorted(table["path"]) == sorted(str(folder / name) for name in EXPECTED)
    assert list(table["uri"]) == list(table["path"])
    assert set(table["size"]) == {5}
    assert table["file_id"].is_unique


def test_a_relative_folder_gives_absolute_paths(folder, monkeypatch, listed):
    monkeypatch.chdir(folder.parent)
    assert sorted(listed("corpus/")["path"]) == sorted(str(folder / name) for name in EXPECTED)
    assert sorted(listed(f"file://{folder}")["path"]) == sorted(listed(folder)["path"])


def test_an_fsspec_uri(folder, listed):
    fs = fsspec.filesystem("memory")
    fs.put(str(folder), "/corpus", recursive=True)
    paths = sorted(listed("memory://corpus")["path"])
    assert paths == sorted(f"memory:///corpus/{name}" for name in EXPECTED)


def test_file_id_changes_with_the_content(folder, listed):
    before = listed(folder).set_index("path")["file_id"]
    (folder / "a.wav").write_bytes(b"123456")
    os.utime(folder / "deep/er/b.FLAC", ns=(1, 1))
    after = listed(folder).set_index("path")["file_id"]
    changed = {path for path in before.index if before[path] != after[path]}
    assert changed == {str(folder / "a.wav"), str(folder / "deep/er/b.FLAC")}


def test_names_that_are_not_utf8_are_listed_and_opened(folder):
    os.close(os.open(os.fsencode(folder) + b"/\xd6\xd0.wav", os.O_CREAT))
    recordings = [r for page in open_source([str(folder)]).pages() for r in page.recordings]
    (odd,) = [recording for recording in recordings if recording.size == 0]
    assert odd.uri.encode()  # has no surrogates
    with open_recording(odd, Stopwatch()) as handle:
        assert handle.read() == b""


def test_places_that_could_not_be_looked_into_come_last(folder, refusal):
    (folder / "nas").symlink_to("/nowhere")
    *pages, last = open_source([str(folder)]).pages()
    assert sum(len(page.recordings) for page in pages) == len(EXPECTED)
    assert all(page.recordings and not page.unseen and not page.skipped for page in pages)
    assert (last.recordings, last.unseen) == ([], (str(folder / "nas"),))
    for name in ("a.wav", "deep/er/b.FLAC", "名 字+#%.mp3"):
        (folder / name).unlink()
    message = refusal(folder, RunError)
    assert f"there are no recordings, and {folder}/nas cannot be looked into" in message


def test_the_listing_is_streamed(monkeypatch):
    """Memory does not grow with the number of files."""

    def names(*_, **__):
        yield from (Entry(f"/data/{n:09}.wav", 5, "1") for n in range(100_000))

    monkeypatch.setattr(listing, "_scan", names)
    source = open_source(["/data"])
    tracemalloc.start()
    assert sum(len(page.recordings) for page in source.pages()) == 100_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10e6  # bytes; a list of them all takes 27 MB


# ---- names that are not those of audio files -----------------------------------------------------


def skipped(*uris, **options):
    *_, last = open_source([*map(str, uris)], InputOptions(**options)).pages()
    return dict(last.skipped)


@pytest.mark.parametrize("remote", [False, True])
def test_files_passed_over_because_of_their_names_are_counted(folder, remote):
    for name in ("a.txt", "b.TXT", "deep/c.tar.gz", "deep/.d.txt", "_e/f.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    (folder / "day.one").mkdir()  # folders are none
    uri = str(folder)
    if remote:
        uri = f"memory://{folder.parent.name}"
        fsspec.filesystem("memory").put(str(folder), f"/{folder.parent.name}", recursive=True)
    expected = {".txt": 2, ".tar.gz": 1, ".unknown": 1, "without an extension": 1}
    assert skipped(uri) == skipped(f"{uri}/**") == expected
    assert skipped(uri, include=["*.unknown", "wav"]) == {".txt": 2, ".tar.gz": 1}


def test_few_extensions_are_told_apart(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"x")
    for number in range(100):
        (tmp_path / f"call.{number:04}").write_bytes(b"x")
    counts = skipped(tmp_path)
    assert (len(counts), sum(counts.values()), counts["others"]) == (21, 100, 80)


def test_names_that_are_included(folder, listed):
    def names(*uris, **options):
        paths = listed(*uris, **options)["path"]
        return sorted(path.removeprefix(f"{folder}/") for path in paths)

    (folder / "deep/c.unknown").write_bytes(b"x")
    every = ["deep/c.unknown", "notes.unknown"]
    assert names(folder, include=("*.unknown",)) == sorted(EXPECTED + every)
    assert names(folder, include=("x", "deep/*.unknown")) == sorted([*EXPECTED, every[0]])
    assert names(folder, include=(".hidden*", "_e*")) == sorted(EXPECTED)
    assert names(folder / "notes.unknown", include=("*.unknown",)) == ["notes.unknown"]
    assert names(folder / "**", include=("*.unknown",)) == sorted(EXPECTED + every)


def test_a_pattern_of_names_takes_what_it_matches(folder, listed):
    """Even without the extension of an audio file; a pattern of anything goes by extension."""
    assert list(listed(folder / "*.unknown")["path"]) == [str(folder / "notes.unknown")]
    assert list(listed(folder / "no*")["path"]) == [str(folder / "notes.unknown")]
    for pattern in ("*", "?*"):
        paths = sorted(listed(folder / pattern)["path"])
        assert paths == [str(folder / "a.wav"), str(folder / "名 字+#%.mp3")]
    assert list(listed(folder / "_sp*/*.wav")["path"]) == [str(folder / "_spark/c.wav")]
    assert list(listed(folder / "dee*/**/*.FLAC")["path"]) == [str(folder / "deep/er/b.FLAC")]


def test_an_input_without_recordings_is_refused(tmp_path, refusal):
    (tmp_path / "notes").mkdir()
    assert refusal(tmp_path).endswith(": there are no recordings")
    for name in ("a.tar", "b.tar", "c.tar", "d.txt", "e.txt", "README"):
        (tmp_path / "notes" / name).write_bytes(b"x")
    remedy = (
        ": there are no recordings, but 3 .tar, 2 .txt, 1 without an extension; archives and tables"
        f" are named as in '{tmp_path}/**/*.tar', recordings by --include '*.tar'"
    )
    assert refusal(tmp_path) == f"--input {tmp_path}{remedy}"
    assert "but 3 .tar" in refusal(tmp_path / "no*/**")
    assert refusal(tmp_path / "*.flac").endswith(
        ": no file matches; a pattern of all that is below folders ends in /**"
    )
    assert "no such file or folder" in refusal(tmp_path / "nowhere/*.flac")


@pytest.mark.parametrize("names", [("full", "empty"), ("empty", "full")])
def test_each_of_several_folders_has_recordings(tmp_path, names):
    for name in names:
        (tmp_path / name).mkdir()
    (tmp_path / "full" / "a.wav").write_bytes(b"x")
    with pytest.raises(CorpusError, match=f"^--input {tmp_path}/empty: there are no recordings$"):
        list(open_source([str(tmp_path / name) for name in names]).pages())


def test_a_pattern_is_one_listing_without_a_request_per_file(monkeypatch):
    requests = []

    def counted(name, method):
        def request(self, path, *args, **how):
            requests.append(name)
            return method(self, path, *args, **how)

        monkeypatch.setattr(MemoryFileSystem, name, request)

    fs = fsspec.filesystem("memory")
    for day in range(5):
        for number in range(20):
            fs.pipe(f"/by-day/2026-11-0{day}/deep/{number}.raw", b"12345")
    for name in ("ls", "info", "glob", "find"):
        counted(name, getattr(MemoryFileSystem, name))
    (page,) = open_source(["memory://by-day/2026-*/**/*.raw"]).pages()
    assert {recording.size for recording in page.recordings} == {5}
    assert len({recording.file_id for recording in page.recordings}) == 100
    assert requests.count("ls") == 1 + 5 + 5  # one for each folder
    assert requests.count("info") == len(requests) - 11 <= 2  # to find the form of the input


def test_the_listing_of_a_pattern_is_streamed(monkeypatch):
    def names(*_, **__):
        yield from (Entry(f"/data/{n:09}.raw", 5, "1") for n in range(100_000))

    monkeypatch.setattr(listing, "_scan", names)
    source = open_source(["/data/*.raw"])
    tracemalloc.start()
    assert sum(len(page.recordings) for page in source.pages()) == 100_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10e6  # bytes


def test_a_pattern_on_s3_asks_for_no_file(store, listed):
    store.objects = {f"calls/day-{number}/{number}.raw": b"12345" for number in range(9)}
    store.objects |= {"calls/night/1.raw": b"x", "calls/day-1/_2.raw": b"x", "other/day-1": b"x"}
    table = listed(f"s3://{BUCKET}/calls/day-?/*.raw")
    assert sorted(table["uri"]) == [
        f"s3://{BUCKET}/calls/day-{number}/{number}.raw" for number in range(9)
    ]
    assert set(table["size"]) == {5}
    assert not [key for key in store.requests if key in store.objects]
