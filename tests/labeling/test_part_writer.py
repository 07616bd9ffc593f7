"""Rows reach the disk by number, by time, at the end, and after an outage of the storage."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from ser_core.errors import RunError
from ser_core.labeling import part_writer, parts
from ser_core.labeling.label_store import LabelStore
from ser_core.labeling.part_writer import PartWriter

LABELS = ("angry", "sad")
NONE = pa.schema([])
SECONDS = 30.0  # for what takes milliseconds


def rows(*names):
    columns = {"path": names, "uri": names, "file_id": names, "model_digest": ["m"] * len(names)}
    columns |= {
        "status": ["ok"] * len(names),
        "labeled_at": [pd.Timestamp(0, tz="UTC")] * len(names),
    }
    return pa.table(columns)


@pytest.fixture
def store(tmp_path):
    return LabelStore(str(tmp_path / "labels"), LABELS, NONE)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(part_writer, "_MAX_PAUSE_SECONDS", 0.01)


def written(store):
    """The paths in all parts; a name that stands twice was written twice."""
    names = [name for name in store.folder.names() if name.endswith(".parquet")]
    return sorted(p for n in names for p in pd.read_parquet(f"{store.folder.uri}/{n}")["path"])


def until(condition):
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def fail(store, monkeypatch, times=None, after_writing=False, once=None):
    """Lets writing fail, so many times or for ever, once an event has come; returns the calls."""
    calls, put = [], store.folder._put

    def failing(name, data):
        calls.append(name)
        assert once is None or once.wait(SECONDS)
        if times is not None and len(calls) > times:
            return put(name, data)
        if after_writing:
            put(name, data)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.folder, "_put", failing)
    return calls


def test_rows_are_written_by_time_though_no_further_block_comes(store):
    with PartWriter(store, seconds=0.05) as writer:
        writer.add(rows("a"))
        until(lambda: written(store) == ["a"])
        writer.add(rows("b"))
        until(lambda: written(store) == ["a", "b"])


def test_rows_wait_for_their_time_and_are_written_at_the_end_of_a_failed_run(store):
    with pytest.raises(ZeroDivisionError), PartWriter(store, seconds=3600) as writer:
        writer.add(rows("a"))
        writer.add(rows("b"))
        time.sleep(0.1)
        assert written(store) == []
        raise ZeroDivisionError
    assert written(store) == ["a", "b"]
    assert len(store.folder.names()) == 1


def test_rows_are_written_when_they_fill_a_part(store, monkeypatch):
    monkeypatch.setattr(parts, "ROWS_PER_PART", 3)
    with PartWriter(store, seconds=3600) as writer:
        for name in "abcdefgh":
            writer.add(rows(name))
        until(lambda: len(written(store)) >= 6)
    assert written(store) == list("abcdefgh")
    sizes = [len(pd.read_parquet(f"{store.folder.uri}/{n}")) for n in store.folder.names()]
    assert sorted(sizes) == [2, 3, 3]


@pytest.mark.parametrize("after_writing", [False, True], ids=["before", "after"])
def test_rows_are_kept_while_they_cannot_be_written(store, monkeypatch, capsys, after_writing):
    """Also if the storage had written the part before it failed: nothing is written twice."""
    calls = fail(store, monkeypatch, times=4, after_writing=after_writing)
    with PartWriter(store, seconds=0.01) as writer:
        writer.add(rows("a"))
        until(lambda: len(calls) >= 2)
        writer.add(rows("b"))
        until(lambda: written(store) == ["a", "b"])
    first, last = capsys.readouterr().err.splitlines()
    assert "could not be written ([Errno 28] No space left on device); trying again for 10" in first
    assert last.startswith("labels can be written again, after ")


def test_a_log_on_the_same_full_disk_does_not_end_the_writer(store, monkeypatch):
    calls = fail(store, monkeypatch, times=3)
    with open("/dev/full", "w", buffering=1) as log, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", log)
        with PartWriter(store, seconds=0.01) as writer:
            writer.add(rows("a"))
        assert (len(calls), written(store)) == (4, ["a"])
        os.dup2(os.open(os.devnull, os.O_WRONLY), log.fileno())  # so that it can be closed


def test_patience_ends_and_says_what_was_written(store, monkeypatch):
    writer = PartWriter(store, seconds=0.01, patience=0.1)
    with pytest.raises(RunError) as caught, writer:
        writer.add(rows("a", "b"))
        until(lambda: writer.written_rows == 2)
        added = threading.Event()
        fail(store, monkeypatch, once=added)
        for name in "cde":
            writer.add(rows(name))
        added.set()
        until(lambda: writer._error)
        writer.add(rows("f"))
        pytest.fail("it takes no more rows")
    assert "No space left on device" in str(caught.value)
    assert "2 rows are written, 3 are lost" in str(caught.value)
    assert written(store) == ["a", "b"]


def test_rows_that_are_left_at_the_end_and_cannot_be_written_are_an_error(store, monkeypatch):
    fail(store, monkeypatch)
    with pytest.raises(RunError, match="1 are lost"), PartWriter(store, 3600, 0.05) as writer:
        writer.add(rows("a"))


@pytest.mark.parametrize("where", ["at the end", "while adding"])
def test_storage_that_hangs_is_an_error(store, monkeypatch, where):
    hanging = threading.Event()
    monkeypatch.setattr(store, "write_part", lambda _: hanging.wait())
    monkeypatch.setattr(part_writer, "REQUEST_SECONDS", 0.05)
    if where == "while adding":
        monkeypatch.setattr(parts, "ROWS_PER_PART", 1)
        monkeypatch.setattr(part_writer, "_MAX_WAITING_PARTS", 1)
    writer = PartWriter(store, 0.01, patience=0.05)
    with pytest.raises(RunError, match=r"has not answered .* 1 are lost"), writer:
        writer.add(rows("a"))
        if where == "while adding":
            writer.add(rows("b"))
            pytest.fail("it takes no more rows")
    hanging.set()


def test_slow_storage_is_waited_for_while_it_writes(store, monkeypatch):
    monkeypatch.setattr(parts, "ROWS_PER_PART", 1)
    monkeypatch.setattr(part_writer, "REQUEST_SECONDS", 4.0)
    write_part = store.write_part

    def slow(table):
        time.sleep(0.4)
        write_part(table)

    monkeypatch.setattr(store, "write_part", slow)
    with PartWriter(store, 3600, patience=0.0) as writer:
        for name in "abcdefghijk":  # 4.4 s
            writer.add(rows(name))
    assert written(store) == list("abcdefghijk")


def test_why_the_run_stopped_is_not_hidden_by_rows_that_cannot_be_written(
    store, monkeypatch, capsys
):
    fail(store, monkeypatch)
    with pytest.raises(ZeroDivisionError), PartWriter(store, 3600, 0.05) as writer:
        writer.add(rows("a"))
        raise ZeroDivisionError
    assert "1 are lost" in capsys.readouterr().err


def test_a_bug_while_writing_is_not_tried_again(store, monkeypatch):
    calls = []

    def bug(_):
        calls.append(1)
        raise ZeroDivisionError

    monkeypatch.setattr(store, "write_part", bug)
    with pytest.raises(ZeroDivisionError), PartWriter(store, 3600) as writer:
        writer.add(rows("a"))
    assert len(calls) == 1


def test_adding_waits_while_too_many_rows_could_not_be_written(store, monkeypatch):
    monkeypatch.setattr(parts, "ROWS_PER_PART", 1)
    monkeypatch.setattr(part_writer, "_MAX_WAITING_PARTS", 3)
    may_write, write_part = threading.Event(), store.write_part

    def slow(table):
        assert may_write.wait(SECONDS)
        return write_part(table)

    monkeypatch.setattr(store, "write_part", slow)
    added = []

    def add(writer):
        for name in "abcdef":
            writer.add(rows(name))
            added.append(name)

    with PartWriter(store, seconds=0.01) as writer:
        adding = threading.Thread(target=add, args=(writer,))
        adding.start()
        until(lambda: len(added) == 3)
        adding.join(0.2)
        assert len(added) == 3
        may_write.set()
        adding.join(SECONDS)
    assert written(store) == list("abcdef")


def test_no_rows_make_no_part(store):
    with PartWriter(store, seconds=0.01) as writer:
        writer.add(rows("a").slice(0, 0))
    assert written(store) == []


WAITS_FOR_EVER = """
import signal, sys
import pyarrow as pa
sys.path.insert(0, sys.argv[2])
from test_part_writer import LABELS, NONE, LabelStore, PartWriter, rows
signal.signal(signal.SIGINT, signal.default_int_handler)
store = LabelStore(sys.argv[1], LABELS, NONE)
def refuse(*_):
    raise OSError("storage is away")
store.folder._put = refuse
try:
    with PartWriter(store, seconds=0.01) as writer:
        try:
            writer.add(rows("a"))
            signal.pause()
        finally:
            print("interrupted", flush=True)
except KeyboardInterrupt:
    print("stopped", flush=True)
"""


def test_a_second_interrupt_does_not_wait_for_the_storage(tmp_path):
    folder, output = str(Path(__file__).parent), str(tmp_path / "labels")
    command = [sys.executable, "-c", WAITS_FOR_EVER, output, folder]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert "trying again" in process.stderr.readline()
    process.send_signal(2)
    assert process.stdout.readline() == "interrupted\n"  # two at once would be one
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)  # it goes on trying to write what was labelled
    process.send_signal(2)
    out, error = process.communicate(timeout=SECONDS)
    assert (out, error, process.returncode) == ("stopped\n", "", 0)
