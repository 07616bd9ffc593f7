"""Output folders on disk and on object stores: files are written completely or not at all."""

import errno
import os
import threading
import uuid
from functools import partial
from typing import ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from ser_core.errors import OutputError, RunError
from ser_core.storage.filesystem import call_once
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
    for write, error in (folder.write, RunError), (folder.create, OutputError):
        with pytest.raises(error, match=r"a could not be written \(Access Denied\.\)"):
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


class Renaming(MemoryFileSystem):
    """A remote file system without atomic writes, as that of SFTP is."""

    protocol = "renaming"
    store: ClassVar = {}
    pseudo_dirs: ClassVar = [""]


@pytest.fixture
def renaming(monkeypatch):
    fsspec.register_implementation("renaming", Renaming, clobber=True)
    monkeypatch.setattr(Renaming, "store", {})
    return Folder("renaming://host/out")


def hang(monkeypatch, folder, method):
    """Lets a method of the file system hang until the test ends."""
    ended = threading.Event()
    monkeypatch.setattr(folder.fs, method, lambda *_, **__: ended.wait())
    return ended


@pytest.mark.parametrize("method", ["makedirs", "pipe_file", "mv"])
def test_a_write_that_hangs_ends_at_the_deadline(renaming, monkeypatch, method, deadline):
    ended = hang(monkeypatch, renaming, method)
    with pytest.raises(RunError, match=f"a could not be written .*answer within {deadline:g} s"):
        renaming.write("a", b"1")
    ended.set()


@pytest.mark.parametrize("method", ["makedirs", "pipe_file", "info"])
def test_creating_ends_at_the_deadline(renaming, monkeypatch, method, deadline):
    monkeypatch.setattr(call_once, "__defaults__", (deadline,))
    renaming.write("a", b"1")  # that creating looks at `info`
    ended = hang(monkeypatch, renaming, method)
    if method == "info":
        with pytest.raises(RunError, match="no complete answer"):
            renaming.create("a", b"2")
    else:  # that it has not been written is all that is known
        assert not renaming.create("a", b"2")
    ended.set()
    assert renaming.read("a") == b"1"


def test_a_rename_that_failed_in_passing_is_repeated_with_its_write(renaming, monkeypatch):
    mv, calls = renaming.fs.mv, []

    def carried_out_but_failed_once(*paths):
        mv(*paths)
        calls.append(paths)
        if len(calls) == 1:
            raise OSError("connection lost")

    monkeypatch.setattr(renaming.fs, "mv", carried_out_but_failed_once)
    renaming.write("a", b"1")
    assert len(calls) == 2
    assert renaming.names() == ["a"]
    assert renaming.read("a") == b"1"


# ---- whether it can be written -------------------------------------------------------------------


def test_a_probe_writes_a_mebibyte_and_leaves_nothing(folder, monkeypatch):
    written, put = [], folder._put

    def recorded(name, data):
        written.append((name, len(data)))
        put(name, data)

    monkeypatch.setattr(folder, "_put", recorded)
    folder.probe()
    ((name, size),) = written
    assert size == 1 << 20
    assert name.startswith(".")
    assert folder.names() == []


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), OutputError),
        (OSError(errno.EROFS, "Read-only file system"), OutputError),
        (FileNotFoundError("The specified bucket does not exist"), OutputError),
        (OSError(errno.ENOSPC, "No space left on device"), RunError),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), RunError),
        (TimeoutError("no answer"), RunError),
    ],
)
def test_a_refusal_is_told_from_a_failure(folder, monkeypatch, refusal, error):
    """The first needs another command, the second only another time."""

    def refuse(*_):
        raise refusal

    for name in ("_put", "_put_new"):
        monkeypatch.setattr(folder, name, refuse)
    for call in folder.probe, partial(folder.create, "claim", b"mine"):
        with pytest.raises((OutputError, RunError)) as caught:
            call()
        assert type(caught.value) is error
        assert str(refusal) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_removed_is_a_one_line_error(folder, monkeypatch):
    def refuse(_):
        raise PermissionError("Access\nDenied.")

    monkeypatch.setattr(folder.fs, "rm_file", refuse)
    with pytest.raises(RunError, match=r"a could not be removed \(Access Denied\.\)"):
        folder.remove("a")
    with pytest.raises(OutputError):
        folder.probe()


def test_a_claim_for_which_there_is_no_room_is_not_another_writers(tmp_path, monkeypatch):
    """The name exists before its content does."""

    class Full:
        def __init__(self, path, mode):
            self.file = real_open(path, mode)
            self.name = path

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    real_open, folder = open, Folder(str(tmp_path))
    monkeypatch.setattr(
        "builtins.open",
        lambda path, mode="r", **o: (Full if mode == "xb" else real_open)(path, mode, **o),
    )
    monkeypatch.setattr(folder, "_put", lambda *_: folder._put_new("other", b""))
    with pytest.raises(RunError, match="No space left"):
        folder.create("claim", b"mine")
    assert os.listdir(tmp_path) == []


def test_a_file_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    calls, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (calls.append("fsync"), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda *paths: (calls.append("replace"), replace(*paths)))
    Folder(str(tmp_path)).write("a", b"1")
    assert calls == ["fsync", "replace"]


def test_storage_that_does_not_answer_is_not_called_unusable(monkeypatch, tmp_path):
    folder = Folder(f"memory://away-{tmp_path.name}")

    def fail(error):
        raise error

    monkeypatch.setattr(folder, "names", lambda: fail(TimeoutError("no answer")))
    with pytest.raises(RunError, match=r"cannot be reached \(no answer\)"):
        folder.why_unusable()
    monkeypatch.setattr(folder, "names", lambda: fail(PermissionError("Access Denied.")))
    assert folder.why_unusable() == "Access Denied."


class Refusing(fsspec.AbstractFileSystem):
    """A file system that connects at once, as that of SFTP does."""

    protocol = "refusing"
    cachable = False

    def __init__(self, *_, **__):
        raise Refusing.error


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        (TimeoutError("no answer"), RunError),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), RunError),
        (PermissionError("Authentication failed."), OutputError),
    ],
)
def test_storage_that_cannot_be_connected_to_is_a_one_line_error(monkeypatch, reason, error):
    fsspec.register_implementation("refusing", Refusing, clobber=True)
    monkeypatch.setattr(Refusing, "error", reason, raising=False)
    with pytest.raises((OutputError, RunError)) as caught:
        Folder("refusing://host/out")
    assert type(caught.value) is error
    assert str(caught.value) == f"refusing://host/out: cannot be reached ({reason})"


def test_temporary_files_of_a_killed_writer_are_removed(tmp_path):
    folder = Folder(str(tmp_path))
    writer = f"{uuid.uuid4().hex}.tmp"
    (tmp_path / f".part-1.parquet.{writer}").write_bytes(b"half")
    for name in (".keep", ".mine.tmp", ".part-1.parquet.0123.tmp", f"part-1.{writer}"):
        (tmp_path / name).write_bytes(b"a user's")
    (tmp_path / "part-2.parquet").write_bytes(b"whole")
    (tmp_path / "__runs").mkdir()
    (tmp_path / "__runs" / f".claim.json.{writer}").write_bytes(b"half")
    folder.remove_temporary_files()
    folder.remove_temporary_files("__runs")
    assert sorted(os.listdir(tmp_path)) == [
        ".keep",
        ".mine.tmp",
        ".part-1.parquet.0123.tmp",
        "__runs",
        f"part-1.{writer}",
        "part-2.parquet",
    ]
    assert os.listdir(tmp_path / "__runs") == []


def test_half_a_file_does_not_stay_on_a_full_disk(tmp_path, monkeypatch):
    folder = Folder(str(tmp_path / "out"))

    def full(path, data):
        with open(path, "wb") as file:
            file.write(data[:1])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(folder.fs, "pipe_file", full)
    with pytest.raises(RunError, match="No space left on device"):
        folder.write("part.parquet", b"rows")
    assert os.listdir(folder.root) == []
