"""Lines with times, as text or JSON, on standard error and in a file; nothing else in a pipe."""

import errno
import io
import json
import re
import sys

import pytest
from rich.table import Table

from ser_core import log
from ser_core.console import phase, progress, say, show
from ser_core.errors import UsageError
from ser_core.log import logged, open_log
from tests.log_lines import messages

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


def test_lines_have_times_and_levels(capsys, caplog):
    with logged(open_log(None, "text")):
        phase("loading the checkpoint")
        say("37 recordings of ftp://me:s3cr3t@host/calls")
        say("a place cannot be listed", log.logging.WARNING)
        say("two\nlines", log.logging.ERROR)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert all(re.match(f"{TIME} ", line) for line in printed.err.splitlines())
    assert messages(printed.err) == [
        "loading the checkpoint",
        "37 recordings of ftp://***@host/calls",
        "warning: a place cannot be listed",
        "error: two",
        "lines",
    ]
    assert not caplog.records  # other handlers would print them again
    say("afterwards")
    assert capsys.readouterr().err == "afterwards\n"


def test_json_is_an_object_per_line_with_the_counts(tmp_path, capsys):
    file = tmp_path / "run.jsonl"
    with logged(open_log(str(file), "json")):
        phase("labelling")
        progress("3 of 4", 3, 4, {"by_status": {"ok": 3}}, last=True)
        say("https://me:s3cr3t@host/ is away", log.logging.WARNING)
        show("4 recordings", facts={"recordings": 4})
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["event"], line["level"], line["message"]) for line in lines] == [
        ("phase", "info", "labelling"),
        ("progress", "info", "3 of 4"),
        ("message", "warning", "https://***@host/ is away"),
        ("result", "info", "4 recordings"),
    ]
    assert all(re.fullmatch(TIME, line["time"]) for line in lines)
    assert {name: lines[1][name] for name in ("done", "total", "by_status")} == {
        "done": 3,
        "total": 4,
        "by_status": {"ok": 3},
    }
    assert lines[3]["recordings"] == 4
    printed = capsys.readouterr()
    assert [json.loads(line) for line in printed.err.splitlines()] == lines[:3]
    assert printed.out == "4 recordings\n"  # the result is on standard output alone


def test_a_log_file_has_the_tables_of_a_result(tmp_path):
    file, table = tmp_path / "run.log", Table("label", "rows")
    table.add_row("sad", "4,321")
    with logged(open_log(str(file), "text")):
        show(table)
    assert re.search(rf"^{TIME} │ sad +│ 4,321 │$", file.read_text(), re.M)


def test_a_log_file_is_appended_to_and_has_warnings_of_the_libraries_and_bugs(tmp_path, capsys):
    file = tmp_path / "run.log"
    file.write_text("from the night before\n")
    handlers = open_log(str(file), "text")
    with pytest.raises(ZeroDivisionError), logged(handlers):
        log.logging.getLogger("ser_core.corpora.truth").warning("%d rows skipped", 2)
        say(str(1 / 0))
    before, *lines = file.read_text().splitlines()
    assert before == "from the night before"
    said = messages("\n".join(lines))
    assert said[:2] == ["warning: 2 rows skipped", "error: Traceback (most recent call last):"]
    assert said[-1] == "ZeroDivisionError: division by zero"
    assert messages(capsys.readouterr().err) == said[:1]  # Python prints the traceback


def test_progress_is_a_line_every_ten_seconds_at_first_and_every_minute_later(monkeypatch, capsys):
    now = 1000.0
    monkeypatch.setattr(log.time, "monotonic", lambda: now)
    due = []
    with logged(open_log(None, "text")):
        phase("labelling")
        for second in range(1, 3601):
            now += 1
            progress(str(second))
            if capsys.readouterr().err.endswith(f" {second}\n"):
                due.append(second)
        progress("the end", last=True)
    assert messages(capsys.readouterr().err) == ["the end"]
    pauses = [after - before for before, after in zip([0, *due], due, strict=False)]
    assert pauses[:9] == [10] * 9
    assert pauses == sorted(pauses)
    assert set(pauses[-40:]) == {60}


@pytest.mark.parametrize("where", ["", "missing/run.log"])
def test_a_log_file_that_cannot_be_written_is_refused(tmp_path, where):
    path = tmp_path / where
    with pytest.raises(UsageError, match=rf"^--log-file {path}: it cannot be written .*; name a "):
        open_log(str(path), "text")
    assert list(tmp_path.iterdir()) == []


class Full(io.StringIO):
    def write(self, _):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_does_not_end_the_job(monkeypatch, capfd):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", Full())
        with logged(open_log("/dev/full", "text")):
            say("a line")
    say("afterwards")
    assert capfd.readouterr().err == "afterwards\n"
