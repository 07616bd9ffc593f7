"""`jobs.report`: from a folder of labels to a page and two tables."""

import json
from datetime import UTC, date, datetime

import numpy as np
import pandas as pd
import pytest
from label_folders import WHEN, label_rows, random_scores, write_labels
from pydantic import ValidationError
from recordings import speech_like, write_audio

from ser_core.errors import CheckError, OutputError, UsageError
from ser_core.reporting import job
from ser_core.reporting.config import ReportConfig
from ser_core.reporting.job import report_labels

COUNT = 60


@pytest.fixture
def labels(tmp_path):
    return write_labels(tmp_path / "labels", rows())


def rows(count=COUNT, **columns):
    manifest = {"speaker": [f"s{i % 4}" for i in range(count)]}
    paths = [f"{i}.wav" for i in range(count)]
    return label_rows(paths, random_scores(count), manifest=manifest, **columns)


def report(labels, output, **settings):
    return report_labels(ReportConfig(labels=str(labels), output=str(output), **settings))


def test_a_report(labels, tmp_path, capsys):
    output = tmp_path / "report"
    summary = report(labels, output, audio=False)
    assert json.loads((output / "summary.json").read_text()) == summary
    assert summary["rows"] == COUNT
    assert "http://" not in (output / "index.html").read_text()
    table = pd.read_parquet(output / "summary.parquet")
    overall = table[table["slice"].isna()]
    assert overall.set_index("label")["rows"].to_dict() == {
        row["label"]: row["rows"] for row in summary["by_label"]
    }
    speakers = table[table["slice"] == "speaker"]
    assert speakers.groupby("value")["rows"].sum().to_dict() == dict.fromkeys(
        ["s0", "s1", "s2", "s3"], COUNT // 4
    )
    assert str(table["made_at"].dtype) == "datetime64[us, UTC]"
    printed = capsys.readouterr().out
    assert "without a label: 0 of 60 recordings" in printed
    assert f"page: {output}/index.html" in printed


def test_superseded_rows_do_not_count(tmp_path):
    old, new = rows(), rows(20, labeled_at=WHEN + pd.Timedelta(days=1))
    labels = write_labels(tmp_path / "labels", old, new)
    assert report(labels, tmp_path / "report", audio=False)["rows"] == COUNT


def test_players(tmp_path):
    paths = [str(write_audio(tmp_path / f"{i}.wav", speech_like(1, seed=i))) for i in range(2)]
    paths.append(str(tmp_path / "gone.wav"))
    labels = write_labels(tmp_path / "labels", label_rows(paths, random_scores(3)))
    report(labels, tmp_path / "report", examples=3)
    page = (tmp_path / "report" / "index.html").read_text()
    assert page.count('src="data:audio/mpeg;base64,') == 2 * 2  # least sure, and surest
    assert "gone.wav" in page
    report(labels, tmp_path / "silent", audio=False)
    assert "data:audio" not in (tmp_path / "silent" / "index.html").read_text()


def test_what_is_shown_is_escaped(tmp_path):
    bad = "<script>alert(1)</script>.wav"
    labels = write_labels(tmp_path / "labels", label_rows([bad, "b"], [[np.nan] * 3, [1, 0, 0]]))
    report(labels, tmp_path / "report", audio=False)
    assert "<script>alert" not in (tmp_path / "report" / "index.html").read_text()


def test_drift_from_a_baseline(labels, tmp_path):
    other = write_labels(tmp_path / "other", rows(sampling_rate=8000))
    settings = {"baseline": str(labels), "audio": False}
    summary = report(other, tmp_path / "report", **settings)
    assert summary["drift"]["drifted"] == ["sampling_rate"]
    with pytest.raises(CheckError, match=r"--fail-on-drift: 1 of \d+ comparisons show drift"):
        report(other, tmp_path / "failing", fail_on_drift=True, **settings)
    assert (tmp_path / "failing" / "index.html").exists()
    report(labels, tmp_path / "same", fail_on_drift=True, **settings)


def test_drift_since_a_date(tmp_path):
    later = rows(labeled_at=WHEN + pd.Timedelta(days=1), sampling_rate=8000)
    paths = pd.Series([f"new-{i}.wav" for i in range(COUNT)])
    for name in ("path", "uri"):
        later = later.set_column(later.column_names.index(name), name, [paths.tolist()])
    labels = write_labels(tmp_path / "labels", rows(), later)
    summary = report(labels, tmp_path / "report", since="2026-01-02", audio=False)
    assert (summary["rows"], summary["drift"]["baseline_rows"]) == (COUNT, COUNT)
    assert summary["drift"]["drifted"] == ["sampling_rate"]


def test_the_runs_of_the_folder(labels, tmp_path):
    run = {"started_at": "2026-01-01T00:00:00+00:00", "recordings": 60, "config": {"input": ["a"]}}
    (labels / "__runs").mkdir()
    (labels / "__runs" / "20260101T000000Z-abc.json").write_text(json.dumps(run))
    (labels / "__runs" / "claim.json").write_text("{}")
    (found,) = report(labels, tmp_path / "report", audio=False)["runs"]
    assert (found["run"], found["input"]) == ("20260101T000000Z-abc", "a")


def test_a_course_over_time(tmp_path):
    table = label_rows(
        ["a"] * 4, random_scores(4), start=[0.0, 6, 12, 18], end=[6.0, 12, 18, 20], duration=20.0
    )
    labels = write_labels(tmp_path / "labels", table)
    report(labels, tmp_path / "report", audio=False)
    assert "Scores of a over time" in (tmp_path / "report" / "index.html").read_text()


def test_no_row_is_left_to_report_on(labels, tmp_path):
    summary = report(labels, tmp_path / "report", since="2030-01-01", audio=False)
    assert summary["warnings"] == ["No row was made since 2030-01-01 00:00 UTC."]
    assert summary["drift"]["meaning"] == "There is nothing to compare."


def test_segments_whose_label_changed_say_which(tmp_path):
    def segments(scores):
        return label_rows(["a"] * 3, scores, start=[0.0, 6, 12], end=[6.0, 12, 18], duration=18.0)

    before = write_labels(tmp_path / "before", segments([[1, 0, 0]] * 3))
    now = write_labels(tmp_path / "now", segments([[1, 0, 0], [0, 1, 0], [1, 0, 0]]))
    report(now, tmp_path / "report", baseline=str(before), audio=False)
    page = (tmp_path / "report" / "index.html").read_text()
    table = page.split("Recordings whose label changed")[-1].split("</table>")[0]
    assert "6.0 to 12.0 s" in table
    assert "12.0 to 18.0 s" not in table


def test_the_page_says_what_divides_the_corpus(tmp_path, monkeypatch):
    monkeypatch.setattr(job, "_MOST_DEVIATIONS", 1)
    labels = write_labels(tmp_path / "labels", rows(sampling_rate=[8000, 16000] * (COUNT // 2)))
    assert report(labels, tmp_path / "report", audio=False)["divided_by"] == [
        "speaker", "sampling_rate",
    ]  # fmt: skip
    assert "Divided by speaker, sampling_rate." in (tmp_path / "report/index.html").read_text()


def test_a_report_does_not_become_a_part_of_other_labels(labels, tmp_path):
    other = write_labels(tmp_path / "other", rows())
    with pytest.raises(OutputError, match="lies in a folder of labels; choose another one"):
        report(labels, other)


def test_a_report_does_not_become_a_part_of_the_labels(labels):
    for output in (f"{labels}/", labels / "report"):
        with pytest.raises(OutputError, match="lies in a folder of labels; choose another one"):
            report(labels, output)


def test_a_column_that_is_not_there(labels, tmp_path):
    with pytest.raises(UsageError, match=r"--slice-by speakr: .* did you mean speaker"):
        report(labels, tmp_path / "report", slice_by=("speakr",))
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"baseline": "a", "since": "2026-01-01"}, "exclude each other"),
        ({"fail_on_drift": True}, "needs --baseline or --since"),
        ({"since": "yesterday"}, "it is no date, such as 2026-11-26"),
        ({"since": "2026"}, "it is no date"),
        ({"since": 0}, "it is no date"),
    ],
)
def test_settings_that_do_not_fit(settings, reason):
    with pytest.raises(ValidationError, match=reason):
        ReportConfig(labels="a", output="b", **settings)


@pytest.mark.parametrize(
    "written", ["20261126", 20261126, "2026-11-26", "2026-11-26T01:00+01:00", date(2026, 11, 26)]
)
def test_a_date_however_it_is_written(written):
    config = ReportConfig(labels="a", output="b", since=written)
    assert config.since == datetime(2026, 11, 26, tzinfo=UTC)


def test_a_column_of_numbers_divides_the_corpus_if_it_is_asked_to(tmp_path):
    table = label_rows(list("abcd"), random_scores(4), manifest={"weight": [0.5, 0.5, 1.5, 1.5]})
    labels = write_labels(tmp_path / "labels", table)
    other = write_labels(tmp_path / "other", label_rows(list("abcd"), random_scores(4)))
    settings = {"slice_by": ("weight",), "baseline": str(other), "audio": False}
    report(labels, tmp_path / "report", **settings)
    found = pd.read_parquet(tmp_path / "report" / "summary.parquet")
    assert set(found["value"].dropna()) == {"0.5", "1.5"}


def test_recordings_out_of_reach_end_no_report(tmp_path):
    uris = ["nowhere://host/a.wav", str(tmp_path / "gone.wav")]
    labels = write_labels(tmp_path / "labels", label_rows(uris, random_scores(2)))
    report(labels, tmp_path / "report")
    page = (tmp_path / "report" / "index.html").read_text()
    assert page.count("no clip: ") == 2 * 2


def test_rows_without_a_uri(tmp_path):
    table = label_rows(["a.wav", "b.wav"], random_scores(2), uri=[None, None])
    report(write_labels(tmp_path / "labels", table), tmp_path / "report")
