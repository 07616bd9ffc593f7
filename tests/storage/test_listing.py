"""Listing a folder: links, how early the first entry is returned, and storage that fails."""

import os
import time
from contextlib import nullcontext

import fsspec
import pytest
from misbehaving_store import BUCKET

from ser_core.storage import object_store
from ser_core.storage.filesystem import retry_transient
from ser_core.storage.listing import list_files, stat_file


@pytest.fixture
def folder(tmp_path):
    for name in ("a.wav", "deep/er/b.flac", "名 字+#%.mp3"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345")
    return tmp_path


def test_links_are_followed_once_and_dangling_links_are_listed(folder):
    (folder / "loop").symlink_to(folder)
    (folder / "gone.wav").symlink_to(folder / "nowhere")
    entries = list(list_files(str(folder), lambda _: True))
    sizes = {entry.path: entry.size for entry in entries}
    assert len(entries) == len(sizes) == 3 + 1
    assert sizes[str(folder / "gone.wav")] is None


def is_wav(path):
    return path.endswith(".wav")


def test_what_a_listing_could_not_look_into_is_named(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"x")
    (tmp_path / "gone.wav").symlink_to("/nowhere/a.wav")  # has a row
    (tmp_path / "nas").symlink_to("/nowhere")
    (tmp_path / "below").symlink_to(tmp_path / "a.wav" / "b")
    (tmp_path / "readme").symlink_to(__file__)
    unseen = []
    paths = {entry.path for entry in list_files(str(tmp_path), is_wav, unseen=unseen)}
    assert paths == {str(tmp_path / "a.wav"), str(tmp_path / "gone.wav")}
    assert sorted(unseen) == [str(tmp_path / "below"), str(tmp_path / "nas")]


def test_a_link_to_itself_hides_nothing_and_does_not_end_the_listing(tmp_path):
    for name in ("a.wav", "loop"):
        (tmp_path / name).symlink_to(name)
    (tmp_path / "long").symlink_to("x" * 300)
    unseen = []
    (entry,) = list_files(str(tmp_path), is_wav, unseen=unseen)
    assert (entry.path, entry.size, unseen) == (str(tmp_path / "a.wav"), None, [])


def test_a_forbidden_link_is_a_row_or_ends_the_listing(tmp_path, monkeypatch):
    class Forbidden:
        def __init__(self, item):
            self.name, self.path, self.is_symlink = item.name, item.path, item.is_symlink

        def stat(self):
            raise PermissionError(self.path)

    scandir = os.scandir
    monkeypatch.setattr(
        os, "scandir", lambda path: nullcontext([Forbidden(item) for item in scandir(path)])
    )
    (tmp_path / "a.wav").symlink_to("nowhere")
    (entry,) = list_files(str(tmp_path), is_wav)
    assert entry.size is None
    (tmp_path / "calls").symlink_to("nowhere")
    with pytest.raises(PermissionError):
        list(list_files(str(tmp_path), is_wav))


def test_a_folder_has_its_real_path_whatever_the_order_of_the_disk(tmp_path, monkeypatch):
    for name in ("corpus/2024", "other/deep"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.wav").write_bytes(b"x")
    corpus = tmp_path / "corpus"
    (corpus / "latest").symlink_to("2024")
    (corpus / "1").symlink_to(tmp_path / "other")
    (corpus / "0").symlink_to(tmp_path / "other" / "deep")
    (corpus / "deeper").mkdir()
    (corpus / "deeper" / "2").symlink_to(tmp_path / "other")
    scandir, found = os.scandir, []
    for reverse in (False, True):

        def in_order(path, reverse=reverse):
            return nullcontext(sorted(scandir(path), key=lambda item: item.name, reverse=reverse))

        monkeypatch.setattr(os, "scandir", in_order)
        found.append(sorted(entry.path for entry in list_files(str(corpus), is_wav)))
    assert found == [[f"{corpus}/0/a.wav", f"{corpus}/2024/a.wav"]] * 2


def test_a_listing_returns_its_first_entry(folder):
    entries = list_files(str(folder), lambda _: True)
    assert next(entries)


def test_a_folder_that_is_removed_meanwhile_does_not_end_the_listing(tmp_path):
    for name in ("1", "2", "3"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.wav").write_bytes(b"x")
    unseen = []
    entries = list_files(str(tmp_path), lambda _: True, unseen=unseen)
    seen = [next(entries).path]  # the names of the three folders have been read
    for folder in tmp_path.iterdir():
        if str(folder / "a.wav") not in seen:
            (folder / "a.wav").unlink()
            folder.rmdir()
    assert not list(entries)
    assert len(unseen) == 2


# ---- storage that fails --------------------------------------------------------------------------

BUSY_NAMES = [f"{n:03}.wav" for n in range(50)]


@pytest.mark.parametrize("status", [500, 503])
def test_a_busy_store_leaves_no_name_out_and_repeats_none(store, status, monkeypatch):
    monkeypatch.setattr(object_store, "PAGE", 10)
    store.objects, store.page_size = dict.fromkeys(BUSY_NAMES, b"x"), 10
    store.fault = lambda _, attempt: status if attempt in (2, 4, 5) else None
    entries = list(list_files(f"s3://{BUCKET}", lambda _: True))
    assert [entry.path for entry in entries] == [f"s3://{BUCKET}/{name}" for name in BUSY_NAMES]
    assert len(store.requests) == 5 + 3


@pytest.mark.parametrize("deadline", [0.5], indirect=True)
@pytest.mark.parametrize("fault", ["silent", 503])
def test_a_store_that_does_not_answer_ends_the_listing_in_time(store, deadline, fault):
    store.objects, store.page_size = dict.fromkeys(BUSY_NAMES, b"x"), 10
    store.fault = lambda _, attempt: fault if attempt > 2 else None
    started, entries = time.monotonic(), []
    with pytest.raises(OSError):  # noqa: PT011 (its type depends on the fault)
        entries.extend(list_files(f"s3://{BUCKET}", lambda _: True))
    assert time.monotonic() - started < deadline + 30  # s, and not the usual 60


class Flaky(fsspec.AbstractFileSystem):
    """A file system that fails to list one of its folders a number of times."""

    protocol = "flaky"
    failures: float = 0
    gone = False  # the folder, once its parent has been listed

    def ls(self, path, detail=True, **_):
        tree = {"top": ["top/a.wav", "top/sub"], "top/sub": ["top/sub/b.wav"]}
        if path == "top/sub" and Flaky.failures > 0:
            Flaky.failures -= 1
            raise OSError("the connection was closed")
        if path not in tree or (path == "top/sub" and Flaky.gone):
            raise FileNotFoundError(path)
        infos = [
            {"name": name, "size": 1, "type": "directory" if name in tree else "file"}
            for name in tree[path]
        ]
        return infos if detail else [info["name"] for info in infos]


@pytest.fixture
def flaky():
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    Flaky.clear_instance_cache()
    return lambda: sorted(entry.path for entry in list_files("flaky://top", lambda _: True))


def test_a_folder_that_fails_once_is_listed(flaky):
    Flaky.failures = 1
    assert flaky() == ["flaky://top/a.wav", "flaky://top/sub/b.wav"]


@pytest.mark.parametrize("deadline", [4.0], indirect=True)  # the other folder has to be listed
@pytest.mark.usefixtures("deadline")
def test_a_folder_that_cannot_be_listed_is_not_left_out(flaky):
    Flaky.failures = float("inf")
    with pytest.raises(OSError, match="connection was closed"):
        flaky()


@pytest.mark.usefixtures("flaky")
def test_a_remote_folder_that_vanishes_is_named(monkeypatch):
    monkeypatch.setattr(Flaky, "gone", True)
    monkeypatch.setattr(Flaky, "failures", 0)
    unseen = []
    (entry,) = list_files("flaky://top", lambda _: True, unseen=unseen)
    assert (entry.path, unseen) == ("flaky://top/a.wav", ["flaky://top/sub"])


@pytest.mark.usefixtures("flaky")
def test_a_missing_prefix_and_an_empty_bucket(store):
    with pytest.raises(FileNotFoundError):
        list(list_files(f"s3://{BUCKET}/nowhere", lambda _: True))
    with pytest.raises(FileNotFoundError):
        list(list_files("flaky://nowhere", lambda _: True))
    store.fault = lambda *_: 403
    with pytest.raises(PermissionError):
        list(list_files(f"s3://{BUCKET}", lambda _: True))


def test_a_file_that_cannot_be_seen(store, monkeypatch):
    store.objects = {"a.wav": b"12"}
    assert stat_file(f"s3://{BUCKET}/a.wav").size == 2
    assert stat_file(f"s3://{BUCKET}/gone.wav").size is None
    for status in (403, 404):
        store.fault = lambda *_, status=status: status
        assert stat_file(f"s3://{BUCKET}/a.wav").size is None
    store.fault = lambda *_: 503
    monkeypatch.setattr(retry_transient, "__defaults__", (0.5,))
    with pytest.raises(OSError):  # noqa: PT011 (its type depends on the fault)
        stat_file(f"s3://{BUCKET}/a.wav")
