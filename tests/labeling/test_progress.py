"""The progress line, the counts and the report of a run."""

import os
import sys

import pyarrow as pa
import pytest

from ser_core.labeling import progress
from ser_core.labeling.plan import Plan
from ser_core.labeling.progress import Display, RunStats, print_summary


def planned(total):
    stats = RunStats()
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
    stats = planned(1200)
    assert stats.line().startswith("starting: 0 of 1,200 recordings (0%), 0 not ok")
    add(stats, 300)
    monkeypatch.setattr(RunStats, "elapsed", 100.0)
    assert stats.line() == (
        "cpu fp32: 300 of 1,200 recordings (25%), 0 not ok, 3.0 files/s, 0.17 h of audio, "
        "6 × real time, 0:05:00 left"
    )


def test_lines_are_printed_without_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.001)
    stats = planned(5)
    with Display(stats) as display:
        add(stats, 5)
        display.update()
        printed = ""
        while printed.count("5 of 5 recordings") < 2:  # the thread prints repeatedly
            printed += capsys.readouterr().err


def test_a_bar_is_shown_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    stats = planned(5)
    with Display(stats) as display:
        add(stats, 5)
        display.update()
    assert "5/5" in capsys.readouterr().err


def test_a_terminal_that_is_gone_does_not_end_the_run(monkeypatch):
    controller, terminal = os.openpty()
    with open(terminal, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        with Display(planned(5)) as display:
            os.close(controller)
            display.update()
        os.dup2(os.open(os.devnull, os.O_WRONLY), terminal)  # so that it can be closed


def test_the_summary(monkeypatch, capsys):
    stats = planned(5)
    add(stats, 3)
    add(stats, 2, status="unavailable")
    monkeypatch.setattr(RunStats, "elapsed", 10.0)
    print_summary(stats, "/labels [a]")
    out, error = capsys.readouterr()
    counts = [line.strip("│┃ ").split() for line in out.splitlines() if "│" in line]
    assert [(name, number) for name, _, number in counts] == [
        ("ok", "3"),
        ("unavailable", "2"),
        ("sad", "3"),
    ]
    assert out.splitlines()[-2:] == [
        "5 recordings, 0.00 h of audio, in 0:00:10: 0.5 files/s, 1 × real time",
        "labels: /labels [a]",
    ]
    assert error.startswith("2 recordings could not be reached; ")


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
