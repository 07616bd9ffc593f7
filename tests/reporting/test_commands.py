"""The commands of docs/reports.md run as printed, and their pages are sound in a browser."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from browser import CHROMIUM, check_page
from label_folders import WHEN, label_rows, random_scores, write_labels
from recordings import speech_like, write_audio

from jobs.command import run
from jobs.ser_batch import JOBS
from ser_core.reporting.config import ReportConfig

DOCUMENT = Path(__file__).parents[2] / "docs" / "reports.md"
COMMANDS = re.findall(r"^ser-batch report (.*)$", DOCUMENT.read_text(), re.M)
COUNT = 80


def labels(folder: Path, **columns) -> str:
    """Labels of recordings that exist, of which some failed."""
    paths = [f"{folder.parent}/calls/{i:03}.wav" for i in range(COUNT)]
    for path in map(Path, paths[:8]):
        write_audio(path, speech_like(0.5, 8000, seed=int(path.stem)), 8000)
    scores = random_scores(COUNT)
    scores[-5:] = np.nan
    manifest = {"speaker": [f"s{i % 8} <b>" for i in range(COUNT)]}
    quality = ["short quiet"] * 30 + [""] * 45 + [None] * 5
    times = [WHEN] * (COUNT // 2) + [WHEN + pd.Timedelta(days=400)] * (COUNT // 2)
    defaults = {"manifest": manifest, "quality": quality, "labeled_at": times, "rms_db": -45.0}
    return str(write_labels(folder, label_rows(paths, scores, **defaults | columns)))


@pytest.mark.parametrize("command", COMMANDS)
def test_the_documented_commands(tmp_path, monkeypatch, command):
    """As printed; what stands for the reader's own data is what this test has."""
    monkeypatch.chdir(tmp_path)
    both = labels(tmp_path / "labels"), labels(tmp_path / "may")
    arguments = command.replace("s3://bucket/labels-of-may", both[1])
    assert (
        run(ReportConfig, JOBS["report"], arguments.replace("s3://bucket/labels", both[0]).split())
        == 0
    )
    written = {path.name for path in (tmp_path / "report").iterdir()}
    assert written == {"index.html", "summary.json", "summary.parquet"}


def test_drift_ends_with_3(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["--labels", labels(tmp_path / "now", sampling_rate=8000), "--output", "report"]
    arguments += ["--baseline", labels(tmp_path / "before"), "--fail-on-drift", "--no-audio"]
    assert run(ReportConfig, JOBS["report"], arguments) == 3
    assert (tmp_path / "report" / "index.html").exists()


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
def test_the_page_in_a_browser(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["--labels", labels(tmp_path / "now", sampling_rate=8000), "--output", "report"]
    arguments += ["--baseline", labels(tmp_path / "before", labeled_at=WHEN)]
    assert run(ReportConfig, JOBS["report"], arguments) == 0
    page = (tmp_path / "report" / "index.html").read_text()
    for heading in ("What changed", "Where the labels differ", "What to listen to", "What failed"):
        assert heading in page
    assert check_page(tmp_path / "report" / "index.html") == []
