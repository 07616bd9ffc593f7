"""The progress line, the counts and the report of a run."""

import logging
import os
import re
import sys

import pyarrow as pa
import pytest

from ser_core.labeling import progress
from ser_core.labeling.plan import Plan
from ser_core.labeling.progress import RunStats, print_summary, showing
from ser_core.log import logged


def planned(total, **started):
    stats = RunStats(**started)
    stats.listing(Plan(listed=total), ended=True)
    return stats


STAGES = ("fetch", "decode", "idle", "transfer", "compute")


def add(stats, count, status="ok", label="sad", duration=2.0, segment_end=None):
    ok = status == "ok"
    labeled = pa.table(
        {
            "_num_rows": [1] * count,
            "duration": pa.array([duration if ok else None] * count, pa.float64()),
            "start": [0.0] * count,
            "_start": pa.nulls(count, pa.float64()),
            "_duration": pa.nulls(count, pa.float64()),
            "end": [segment_end if segment_end is not None else min(duration, 6.0)] * count,
            "precision": pa.array(["fp32" if ok else None] * count, pa.string()),
            "_device": ["cpu fp32"] * count,
            **{f"_{stage}_seconds": [0.25] * count for stage in STAGES},
        }
    )
    rows = pa.table(
        {
            "status": pa.array([status] * count),
            "label": pa.array([label if ok else None] * count, pa.string()),
        }
    )
    stats.add(labeled, rows)


def test_a_block_is_counted_whatever_its_pieces():
    """Recordings with and without a label are put together from tables of their own."""
    stats, words = planned(4), pa.dictionary(pa.int32(), pa.string())
    status = pa.chunked_array([["ok", "ok"], ["empty", "ok"]]).cast(words)
    label = pa.chunked_array([["sad", "angry"], [None, "sad"]]).cast(words)
    rows, blank = pa.table({"status": status, "label": label}), pa.nulls(4, pa.float64())
    seconds = {f"_{stage}_seconds": blank for stage in STAGES}
    names = ("duration", "start", "end", "_start", "_duration", "precision")
    device = pa.array(["a", None, "b", "a"])
    stats.add(
        pa.table(
            {"_num_rows": [1] * 4, "_device": device, **dict.fromkeys(names, blank), **seconds}
        ),
        rows,
    )
    assert stats.report()["by_status"] == {"ok": 3, "empty": 1}
    assert stats.report()["by_label"] == {"sad": 2, "angry": 1}
    assert stats.report()["by_device"] == {"a": 2, "b": 1}


def test_counts_and_report():
    stats = planned(10)
    add(stats, 3, duration=10.0)
    add(stats, 2, label="angry")
    add(stats, 1, status="empty")
    assert (stats.done, stats.not_ok) == (6, 1)
    report = stats.report()
    assert report["by_status"] == {"ok": 5, "empty": 1}
    assert report["by_label"] == {"sad": 3, "angry": 2}
    assert report["audio_hours"] == pytest.approx(34 / 3600)
    assert report["labeled_hours"] == pytest.approx(22 / 3600)  # at most 6 s each
    assert report["stage_seconds"] == dict.fromkeys(STAGES, 1.5)
    assert report["compute_hours"] == pytest.approx(1.5 / 3600)


def test_unreachable_recordings_are_counted():
    stats = planned(4)
    for status in ("ok", "decode_error", "not_found", "unavailable"):
        add(stats, 1, status=status)
    assert (stats.not_ok, stats.unreachable) == (3, 2)
    assert stats.report()["unreachable"] == 2


def test_whole_recordings_count_with_their_full_duration():
    stats = planned(1)
    add(stats, 1, duration=100.0, segment_end=100.0)
    assert stats.labeled_seconds == 100


def test_the_progress_line(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    stats = planned(1200, started=now)
    now += 60  # the start, which no rate includes
    stats.classifiers_ready(1, seconds=0.0)
    now += 40
    add(stats, 300)
    now += 60
    assert stats.line() == (
        "cpu fp32: 300 of 1,200 recordings (25%), 0 not ok, 3.0 files/s, 6 × real time, "
        "0:05:00 left, 0:02:40 elapsed"
    )
    report = stats.report()
    assert report["elapsed_seconds"] == 160  # from the command to now
    assert report["labeling_seconds"] == 40  # from the first classifier to the latest row
    assert report["files_per_second"] == 7.5
    assert report["times_real_time"] == 15


def test_a_line_before_all_are_listed():
    stats = RunStats()
    stats.listing(Plan(listed=7), ended=False)
    add(stats, 1)
    assert "cpu fp32: 1 recording (7 listed so far), 0 not ok" in stats.line()
    assert "unknown time left" in stats.line()


def test_one_recording_is_singular(capsys):
    stats = planned(1)
    add(stats, 1, status="unavailable")
    assert ": 1 of 1 recording (100%)" in stats.line()
    print_summary(stats, "/labels")
    printed = capsys.readouterr()
    assert "\n1 recording, " in printed.out
    assert printed.err.startswith("warning: 1 recording could not be reached")


def test_the_phases_of_a_run():
    stats = RunStats()
    assert stats.phase_line() == "listing the input: 0 recordings so far"
    stats.classifiers = (2, 0)
    assert stats.phase_line() == "starting classifiers: 0 of 2 ready"
    stats.classifiers_ready(1, seconds=0.5)
    assert (stats.phase, stats.classifiers) == ("waiting for the first labels", (2, 1))
    add(stats, 1)
    assert stats.phase == "labelling"
    stats.checking = True
    assert stats.phase_line() == "looking for recordings without a row"


class Records(logging.Handler):
    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)

    def count(self, event):
        return sum(record.event == event for record in self.records)


def test_a_run_says_its_phase_once_and_how_far_it_is_again_and_again(monkeypatch):
    monkeypatch.setattr(progress, "_TICK_SECONDS", 0.001)
    stats, records, looks = planned(5), Records(), []
    with logged([records]), showing(stats, lambda: looks.append(stats.done)):
        add(stats, 4)
        while records.count("progress") < 3:  # the thread says so repeatedly
            assert records.count("phase") <= 2
        add(stats, 1)
    assert [r.getMessage() for r in records.records if r.event == "phase"][-1:] == ["labelling"]
    last = records.records[-1]
    assert (last.last, last.facts["done"], last.facts["total"]) == (True, 5, 5)
    assert last.facts["by_status"] == {"ok": 5}
    assert looks[-1] == 5, "the last look is after the last recording"


def test_the_summary_keeps_labels_and_statuses_apart(monkeypatch, capsys):
    now = 1000.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    stats = planned(5, started=now)
    now += 8
    stats.classifiers_ready(1, seconds=0.0)
    now += 2
    add(stats, 3)
    add(stats, 2, status="unavailable")
    print_summary(stats, "/labels [a]")
    out, error = capsys.readouterr()
    assert cells(out) == [
        ["label", "rows", "share"],
        ["sad", "3", "100.0%"],
        ["status", "rows", "share"],
        ["ok", "3", "60.0%"],
        ["unavailable", "2", "40.0%"],
    ]
    assert out.splitlines()[-3:] == [
        "5 recordings, 0.00 h of audio, in 0:00:10",
        "labelling took 0:00:02 of that: 2.5 files/s, 3 × real time",
        "labels: /labels [a]",
    ]
    assert error.startswith("warning: 2 recordings could not be reached; ")


def test_a_narrow_terminal_loses_nothing_of_the_summary(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "24")
    stats = planned(12_345)
    add(stats, 12_345, label="a-label-of-some-length")
    print_summary(stats, "/labels")
    names, counts, shares = zip(*cells(capsys.readouterr().out), strict=True)
    assert "".join(names) == "labela-label-of-some-lengthstatusok"
    assert (counts.count("12,345"), shares.count("100.0%")) == (2, 2)


def cells(printed):
    """The cells of the tables, row by row."""
    lines = [line for line in printed.splitlines() if line[0] in "│┃"]
    return [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in lines]


def test_a_summary_that_nobody_reads_does_not_end_the_run(monkeypatch):
    stats = planned(3)
    add(stats, 3)
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        print_summary(stats, "/labels")
        os.dup2(os.open(os.devnull, os.O_WRONLY), write)  # so that it can be closed


def test_recordings_out_of_reach_for_minutes_are_an_outage(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    stats = planned(1000)
    add(stats, 8)
    for _ in range(8):  # while other recordings may still be on their way
        now += 60.0
        add(stats, 8, status="unavailable")
        assert stats.outage is (now >= 1480.0)
    add(stats, 1)
    assert not stats.outage
    now += 1000.0
    add(stats, 8, status="unavailable")  # a slow block is not an outage
    assert not stats.outage
    for _ in range(8):
        now += 60.0
        add(stats, 8, status="not_found")
    assert not stats.outage
