"""The reports of a folder's runs, whatever else lies beside them."""

import json

import pytest

from ser_core.errors import RunError
from ser_core.labeling.run_reports import run_reports
from ser_core.storage.folder import Folder


@pytest.fixture
def write(tmp_path):
    """Writes a file into the folder; a report if no content is given."""

    def file(path, started_at=None, content=None):
        report = {"started_at": started_at, "config": {"input": ["calls"]}}
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(content or json.dumps(report).encode())

    return file


def names(folder):
    return list(run_reports(Folder(str(folder))))


def test_the_newest_comes_first(write, tmp_path):
    write("__runs/c.json", "2026-01-01T00:00:00+00:00")
    write("__runs/a.json", "2026-01-03T00:00:00+00:00")
    write("__runs/b.json", "2026-01-02T00:00:00+00:00")
    assert names(tmp_path) == ["a", "b", "c"]


def test_those_of_release_0_1(write, tmp_path):
    write("_runs/old.json")
    write("_runs/moved.json")
    write("__runs/moved.json", "2026-01-01T00:00:00+00:00")
    write("__runs/new.json", "2026-01-02T00:00:00+00:00")
    assert names(tmp_path) == ["new", "moved", "old"]


DAMAGED = [b"{", b"\xff\xfe{", b"[]", b"null", b"{}", b'{"config": 3}', b"[" * 100_000]


@pytest.mark.parametrize("content", DAMAGED, ids=lambda content: repr(content[:14]))
def test_a_damaged_report_is_left_out(write, tmp_path, content):
    write("__runs/b.json", content=content)
    write("__runs/a.json")
    assert names(tmp_path) == ["a"]


def test_other_files_are_not_read(write, tmp_path, monkeypatch):
    write("__runs/claim.json")
    write("__runs/notes.txt")
    monkeypatch.setattr(Folder, "read", lambda *_: pytest.fail("was read"))
    assert names(tmp_path) == []


def test_a_folder_without_reports(tmp_path):
    assert names(tmp_path) == []


def test_a_storage_that_fails(write, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("broken")

    write("__runs/a.json")
    monkeypatch.setattr(Folder, "read", fail)
    with pytest.raises(RunError, match=r"--labels .*: the run reports could not be read .*broken"):
        names(tmp_path)
