"""Files of checkpoints: whole or absent, and written as soon as storage answers again."""

import os
import pickle

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from ser_core.errors import RunError
from ser_core.storage.folder import Folder
from ser_core.training.checkpoint_storage import checkpoint_storage, read_file, write_file


class Unreliable(MemoryFileSystem):
    """A store in memory of which the first calls fail."""

    protocol = "unreliable"
    store, pseudo_dirs = {}, [""]
    failures: list[Exception] = []  # noqa: RUF012

    def put_file(self, lpath, rpath, **_):
        self._fail()
        with open(lpath, "rb") as file:
            self.pipe_file(rpath, file.read())

    def cat_file(self, path, *args, **kwargs):
        self._fail()
        return super().cat_file(path, *args, **kwargs)

    def _fail(self):
        if self.failures:
            raise self.failures.pop()


@pytest.fixture
def unreliable():
    fsspec.register_implementation("unreliable", Unreliable, clobber=True)
    Unreliable.store.clear()
    yield checkpoint_storage(Folder("unreliable://bucket/run"))
    Unreliable.failures.clear()


def test_passing_failures_are_retried(unreliable):
    filesystem, path = unreliable
    Unreliable.failures += [OSError("no answer"), ConnectionError("refused")]
    write_file(filesystem, f"{path}/weights", b"weights")
    Unreliable.failures.append(OSError("no answer"))
    assert read_file(filesystem, f"{path}/weights") == b"weights"
    assert not Unreliable.failures


def test_lasting_failures_are_not_retried(unreliable):
    filesystem, path = unreliable
    Unreliable.failures += [OSError("not reached"), PermissionError("forbidden")]
    with pytest.raises(RunError, match=r"weights could not be written \(forbidden\)"):
        write_file(filesystem, f"{path}/weights", b"weights")
    with pytest.raises(RunError, match="could not be read"):
        Unreliable.failures.clear()
        read_file(filesystem, f"{path}/missing")


def test_the_storage_can_be_sent_to_workers_and_compared(unreliable):
    filesystem, path = unreliable
    copy = pickle.loads(pickle.dumps(filesystem))
    assert copy == filesystem
    write_file(copy, f"{path}/weights", b"weights")
    assert read_file(filesystem, f"{path}/weights") == b"weights"


@pytest.mark.parametrize("size", [1, 1_000_000])  # the write fails when closing, or before
def test_a_full_disk_leaves_nothing_behind(tmp_path, size):
    filesystem, path = checkpoint_storage(Folder(str(tmp_path / "run")))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "weights.tmp").symlink_to("/dev/full")
    with pytest.raises(RunError, match=r"weights could not be written \(.*No space left"):
        write_file(filesystem, f"{path}/weights", bytes(size))
    assert os.listdir(tmp_path / "run") == []
    write_file(filesystem, f"{path}/weights", bytes(size))  # there is room again
    assert os.listdir(tmp_path / "run") == ["weights"]
    assert read_file(filesystem, f"{path}/weights") == bytes(size)
