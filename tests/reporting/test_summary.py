"""The numbers of a report."""

import numpy as np
import pytest
from label_folders import label_rows, random_scores

from ser_core.reporting.summary import by_slice, courses, summarize
from ser_core.schema import NO_LABEL

NONE = [np.nan] * 3


def test_counts_hours_and_shares(table_of):
    scores = [[0.9, 0.05, 0.05], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], NONE]
    table = table_of(label_rows(list("abcd"), scores, duration=[3600.0, 1800.0, 1800.0, None]))
    summary = summarize(table)
    names = ("unit", "rows", "recordings", "labeled", "failed")
    assert {name: summary[name] for name in names} == {
        "unit": "recordings", "rows": 4, "recordings": 4, "labeled": 3, "failed": 1,
    }  # fmt: skip
    assert summary["hours"] == pytest.approx(2)
    angry, happy, sad = summary["by_label"]
    assert (angry["rows"], happy["rows"], sad["rows"]) == (2, 1, 0)
    assert angry["share"] == pytest.approx(2 / 3)
    assert angry["share_of_hours"] == pytest.approx(0.75)
    assert angry["mean_score"] == pytest.approx(0.75)
    ok, failed = summary["by_status"]
    assert (ok["status"], ok["rows"], ok["examples"]) == ("ok", 3, [])
    assert failed["examples"] == [{"error": "no decoder can read it", "rows": 1, "path": "d"}]


def test_distributions_know_chance(table_of):
    summary = summarize(table_of(label_rows(list("ab"), [[0.9, 0.1, 0], NONE])))
    score = summary["distributions"]["score"]
    assert score["chance"] == pytest.approx(1 / 3)
    assert sum(score["counts"]) == 1
    assert score["counts"][45] == 1  # of 50 bins from 0 to 1
    assert summary["distributions"]["entropy"]["chance"] == 1
    assert summary["distributions"]["duration"]["chance"] is None
    assert "rms_db" not in summary["distributions"]


def test_segments_are_no_recordings(table_of):
    rows = label_rows(
        ["a", "a", "a", "b"], random_scores(4), start=[0.0, 6, 12, 0], end=[6.0, 12, 14, 3],
        duration=[14.0, 14, 14, 3],
    )  # fmt: skip
    table = table_of(rows)
    summary = summarize(table)
    assert (summary["unit"], summary["rows"], summary["recordings"]) == ("segments", 4, 2)
    assert summary["hours"] * 3600 == pytest.approx(17)
    ((path, segments),) = courses(table).items()
    assert segments["end"].tolist() == [6, 12, 14]
    assert path == "a"
    assert segments["start"].tolist() == [0, 6, 12]


def test_a_recording_without_a_labelled_segment_has_no_course(table_of):
    starts = [0.0, 6, 12] * 2
    rows = label_rows(
        ["a"] * 3 + ["b"] * 3, [*random_scores(3), *[NONE] * 3], start=starts,
        end=[start + 6 for start in starts], status=["ok"] * 3 + ["not_finite"] * 3,
    )  # fmt: skip
    assert list(courses(table_of(rows))) == ["a"]


def test_courses_of_two_recordings_with_the_same_path(table_of):
    rows = label_rows(
        ["a.wav"] * 6, random_scores(6), start=[0.0, 6, 12] * 2, end=[6.0, 12, 18] * 2,
        uri=["/x/a.wav"] * 3 + ["/y/a.wav"] * 3,
    )  # fmt: skip
    assert list(courses(table_of(rows))) == ["a.wav", "/y/a.wav"]


def test_words_of_quality(table_of):
    rows = label_rows(list("abcd"), random_scores(4), quality=["", "short", "short quiet", None])
    found = {row["word"]: row for row in summarize(table_of(rows))["quality"]}
    assert {word: row["rows"] for word, row in found.items()} == {"short": 2, "good": 1, "quiet": 1}
    assert found["short"]["share"] == pytest.approx(2 / 3)


def test_a_slice(table_of):
    manifest = {"speaker": ["eve", "eve", "bob", None]}
    scores = [[0.9, 0.1, 0], [0.8, 0.2, 0], NONE, [0, 0, 1]]
    found = by_slice(table_of(label_rows(list("abcd"), scores, manifest=manifest)), "speaker")
    counted = {(row.value, row.label): row.rows for row in found.itertuples()}
    assert counted == {("eve", "angry"): 2, ("bob", NO_LABEL): 1, ("", "sad"): 1}


def test_no_row_has_a_label(table_of):
    summary = summarize(table_of(label_rows(["a"], [NONE])))
    assert summary["labeled"] == 0
    assert "score" not in summary["distributions"]


def test_channels_are_one_recording_and_the_same_audio(table_of):
    rows = label_rows(["a", "a", "b", "b"], random_scores(4), channel=[0, 1, 0, 1], duration=60.0)
    summary = summarize(table_of(rows))
    assert (summary["unit"], summary["rows"], summary["recordings"]) == ("channels", 4, 2)
    assert summary["hours"] * 60 == pytest.approx(2)


def test_each_channel_has_its_course(table_of):
    rows = label_rows(
        ["a"] * 6, random_scores(6), start=[0.0, 6, 12] * 2, end=[6.0, 12, 14] * 2,
        channel=[0, 0, 0, 1, 1, 1],
    )  # fmt: skip
    found = courses(table_of(rows))
    assert [*found] == ["a, channel 0", "a, channel 1"]
    assert all(course["start"].tolist() == [0, 6, 12] for course in found.values())


def test_a_class_that_no_row_has_has_no_mean_score(table_of):
    (_, happy, _) = summarize(table_of(label_rows(["a"], [[1, 0, 0]])))["by_label"]
    assert (happy["rows"], happy["share"], happy["mean_score"]) == (0, 0, None)
