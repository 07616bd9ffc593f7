"""Output folders on disk and on object stores: files are written completely or not at all."""

import os

import pytest

from ser_core.errors import RunError
from ser_core.storage.folder import Folder


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path):
    if request.param == "local":
        return Folder(str(tmp_path / "out"))
    return Folder(f"memory://folders-{tmp_path.name}")


def test_write_replaces_and_remove_ignores_missing_files(folder):
    assert folder.names() == []
    folder.write("a.json", b"1")
    folder.write("a.json", b"2")
    folder.write("sub/b.json", b"3")
    assert folder.names() == ["a.json"]
    assert folder.names("sub") == ["b.json"]
    assert folder.read("a.json") == b"2"
    folder.remove("a.json")
    folder.remove("a.json")
    assert folder.names() == []
    with pytest.raises(FileNotFoundError):
        folder.read("a.json")


def test_create_does_not_overwrite(folder):
    assert folder.create("sub/claim", b"mine")
    assert not folder.create("sub/claim", b"theirs")
    assert folder.read("sub/claim") == b"mine"


def test_create_leaves_no_temporary_file(tmp_path):
    folder = Folder(str(tmp_path))
    folder.create("claim", b"mine")
    folder.create("claim", b"theirs")
    assert os.listdir(tmp_path) == ["claim"]


def test_a_failed_write_is_a_one_line_error(folder, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError("Access\nDenied.")

    monkeypatch.setattr(folder.fs, "pipe_file", refuse)
    monkeypatch.setattr("builtins.open", refuse)
    for write in (folder.write, folder.create):
        with pytest.raises(RunError, match=r"a could not be written \(Access Denied\.\)"):
            write("a", b"1")


def test_a_store_without_conditional_writes_can_be_claimed(tmp_path, monkeypatch):
    folder = Folder(f"memory://unconditional-{tmp_path.name}")
    pipe_file = folder.fs.pipe_file

    def unconditional(path, data, mode="overwrite"):
        if mode == "create":
            raise NotImplementedError("A header you provided implies functionality")
        pipe_file(path, data)

    monkeypatch.setattr(folder.fs, "pipe_file", unconditional)
    monkeypatch.setattr("ser_core.storage.folder._OTHER_WRITER_SECONDS", 0)
    assert folder.create("claim", b"mine")
    assert not folder.create("claim", b"theirs")
    assert folder.read("claim") == b"mine"
    folder.remove("claim")
    monkeypatch.setattr("time.sleep", lambda _: folder.write("claim", b"theirs"))
    assert not folder.create("claim", b"mine")  # the other one wrote last


def test_temporary_files_of_a_killed_writer_are_removed(tmp_path):
    folder = Folder(str(tmp_path))
    (tmp_path / ".part-1.parquet.0123.tmp").write_bytes(b"half")
    (tmp_path / ".keep").write_bytes(b"")
    (tmp_path / "part-2.parquet").write_bytes(b"whole")
    folder.remove_temporary_files()
    assert sorted(os.listdir(tmp_path)) == [".keep", "part-2.parquet"]
