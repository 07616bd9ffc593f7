"""A folder or prefix as input: which files are recordings, and how they are identified."""

import os
import tracemalloc

import fsspec

from ser_core.errors import RunError
from ser_core.sources.forms import open_recording, open_source
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
    recordings = [r for page in open_source(str(folder)).pages() for r in page.recordings]
    (odd,) = [recording for recording in recordings if recording.size == 0]
    assert odd.uri.encode()  # has no surrogates
    with open_recording(odd, Stopwatch()) as handle:
        assert handle.read() == b""


def test_places_that_could_not_be_looked_into_come_last(folder, refusal):
    (folder / "nas").symlink_to("/nowhere")
    *pages, last = open_source(str(folder)).pages()
    assert sum(len(page.recordings) for page in pages) == len(EXPECTED)
    assert all(page.recordings and not page.unseen for page in pages)
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
    source = open_source("/data")
    tracemalloc.start()
    assert sum(len(page.recordings) for page in source.pages()) == 100_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10e6  # bytes; a list of them all takes 27 MB
