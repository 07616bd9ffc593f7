"""Drift is found where there is some, and not where there is none."""

import numpy as np
import pandas as pd
import pytest
from label_folders import WHEN, label_rows, random_scores

from ser_core.reporting.changes import changes
from ser_core.reporting.drift import MEANINGS, compare, summarize_drift

COUNT = 600
SPEAKERS = [f"s{i % 10}" for i in range(COUNT)]


def corpus(seed=0, rows=None, **columns):
    """A corpus of ten speakers; ``rows`` selects some of its recordings."""
    random = np.random.default_rng(seed)
    defaults = {
        "manifest": {"speaker": SPEAKERS},
        "duration": random.lognormal(0.6, 0.4, COUNT),
        "rms_db": random.normal(-20, 4, COUNT),
    }
    table = label_rows(
        [f"{i}.wav" for i in range(COUNT)], random_scores(COUNT, seed), **defaults | columns
    )
    return table if rows is None else table.take(np.flatnonzero(rows))


def drifted(comparisons):
    return {(c.measure, c.slice, c.value): c.verdict for c in comparisons if c.verdict != "none"}


def test_the_same_corpus_drawn_twice(table_of):
    table = table_of(corpus())
    alarms = []
    for draw in range(100):
        drawn = f"hash(path || ' {draw}') % 2"
        halves = [table.where(f"{drawn} = {half}", f"half_{draw}_{half}") for half in (0, 1)]
        alarms += drifted(compare(*halves))
    assert len(alarms) <= 3, alarms


def test_one_speaker_is_gone(table_of):
    speakers = np.array(SPEAKERS)
    found = drifted(compare(table_of(corpus()), table_of(corpus(rows=speakers != "s3"))))
    assert found == {("speaker", None, None): "large"}


def test_the_gain_was_lowered(table_of):
    quieter = np.random.default_rng(0).normal(-26, 4, COUNT)
    found = drifted(compare(table_of(corpus()), table_of(corpus(rms_db=quieter))))
    assert found == {("rms_db", None, None): "large"}


def test_the_rate_was_changed(table_of):
    found = drifted(compare(table_of(corpus()), table_of(corpus(sampling_rate=8000))))
    assert found == {("sampling_rate", None, None): "large"}


def test_a_point_mass_does_not_hide_a_shift(table_of):
    shorter = table_of(corpus(duration=np.linspace(0.5, 1.9, COUNT)))
    found = drifted(compare(table_of(corpus(duration=2.0)), shorter))
    assert ("duration", None, None) in found


def test_another_checkpoint(table_of):
    baseline, current = table_of(corpus()), table_of(label_rows_of_one_class())
    found = drifted(compare(baseline, current))
    assert found["label", None, None] == "large"
    assert found["label", "speaker", "s0"] == "large"  # each speaker's labels, too


def label_rows_of_one_class():
    scores = random_scores(COUNT)
    scores[:, 0] += 2
    return label_rows(
        [f"{i}.wav" for i in range(COUNT)],
        scores / scores.sum(axis=1, keepdims=True),
        manifest={"speaker": SPEAKERS},
        model_digest="other",
    )


def with_scores(scores, **columns):
    """The corpus with other scores: labels follow from them."""
    paths, same = [f"{i}.wav" for i in range(COUNT)], corpus()
    own = {name: same[name].to_numpy() for name in ("duration", "rms_db")}
    return label_rows(paths, scores, manifest={"speaker": SPEAKERS}, **own | columns)


def test_only_one_speaker_changed(table_of):
    scores = random_scores(COUNT)
    scores[np.array(SPEAKERS) == "s3"] = [0.98, 0.01, 0.01]
    summary = summarize_drift(table_of(corpus()), table_of(with_scores(scores)), "before")
    assert set(summary["drifted"]) == {"label of speaker s3", "score of speaker s3"}
    assert summary["verdict"] == "in part"  # it does not speak for the corpus


def test_a_date_without_a_value_in_common_is_no_drift(table_of):
    def of_day(day):
        manifest = {"day": [f"{day} {'night' if i % 2 else 'day'}" for i in range(COUNT)]}
        return table_of(corpus(manifest=manifest))

    assert drifted(compare(of_day("monday"), of_day("tuesday"))) == {}


def test_a_handful_of_recordings_is_no_evidence(table_of):
    few = [True] * 10 + [False] * (COUNT - 10)
    assert drifted(compare(table_of(corpus()), table_of(corpus(rows=few)))) == {}


def test_nothing_to_compare_with(table_of):
    summary = summarize_drift(table_of(corpus(rows=[False] * COUNT)), table_of(corpus()), "before")
    assert summary["baseline_rows"] == 0
    assert (summary["verdict"], summary["comparisons"]) == ("none", [])
    assert summary["meaning"] == "There is nothing to compare."
    assert summary["in_both"] == 0


def test_a_night_with_a_few_stragglers_is_no_drift(table_of):
    before = {"night": ["first", "second"] * (COUNT // 2)}
    now = {"night": ["second"] * 3 + ["third"] * (COUNT - 3)}
    tables = table_of(corpus(manifest=before)), table_of(corpus(manifest=now))
    assert all("night" in table.slices for table in tables)
    assert drifted(compare(*tables)) == {}


def test_a_column_of_which_one_value_is_left(table_of):
    both = {"channel_name": ["agent", "caller", "caller"] * (COUNT // 3)}
    baseline = table_of(corpus(manifest=both))
    current = table_of(corpus(manifest={"channel_name": ["agent"] * COUNT}))
    assert "channel_name" not in current.slices
    assert drifted(compare(baseline, current)) == {("channel_name", None, None): "large"}
    compared = {(c.measure, c.value) for c in compare(baseline, current) if c.slice}
    assert {("label", "agent"), ("score", "agent"), ("duration", "agent")} == compared


def test_a_caller_who_is_one_of_many_is_no_drift(table_of):
    random = np.random.default_rng(0)
    before = {"caller": [f"c{n}" for n in random.integers(0, 100, COUNT)]}
    tonight = {"caller": [f"c{n}" for n in random.integers(0, 5, COUNT)]}
    tables = table_of(corpus(manifest=before)), table_of(corpus(manifest=tonight))
    assert ("caller", None, None) not in drifted(compare(*tables))


@pytest.mark.parametrize("measure", ["score", "duration"])
def test_a_part_whose_labels_stay(table_of, measure):
    """Nothing but the scores, or the durations, of one speaker have moved."""
    chosen, scores = np.array(SPEAKERS) == "s3", random_scores(COUNT)
    columns = {}
    if measure == "score":  # halfway to equal scores: the order stays
        scores[chosen] = 0.5 * scores[chosen] + 0.5 / 3
    else:
        columns["duration"] = corpus()["duration"].to_numpy() * np.where(chosen, 3, 1)
    current = table_of(with_scores(scores, **columns))
    summary = summarize_drift(table_of(corpus()), current, "before")
    assert summary["drifted"] == [f"{measure} of speaker s3"]
    assert all(row["meaning"] == MEANINGS[row["verdict"]] for row in summary["comparisons"])


def test_labels_that_changed(table_of):
    none = [np.nan] * 3
    old = label_rows(list("abcd"), [[0.9, 0.1, 0], [0.8, 0.2, 0], [0, 0, 1], none])
    new = label_rows(
        list("bcde"), [[0.3, 0.7, 0], none, [0, 0.4, 0.6], [1, 0, 0]],
        labeled_at=WHEN + pd.Timedelta(days=1),
    )  # fmt: skip
    found = changes(table_of(old), table_of(new))
    assert (found["in_both"], found["changed"]) == (3, 3)
    pairs = {(row["before"], row["now"]): row["rows"] for row in found["changed_by_label"]}
    assert pairs == {
        ("angry", "happy"): 1, ("sad", "decode_error"): 1, ("decode_error", "sad"): 1,
    }  # fmt: skip
    first = found["changed_recordings"][0]
    assert (first["path"], first["before"], first["now"]) == ("b", "angry", "happy")
    assert (first["score_before"], first["score_now"]) == pytest.approx((0.8, 0.7))


def test_segments_are_matched_by_their_start(table_of):
    def labeled(scores):
        return label_rows(["a", "a"], scores, start=[0.0, 6.0], end=[6.0, 12.0])

    old, new = labeled([[1, 0, 0], [0, 1, 0]]), labeled([[1, 0, 0], [0, 0, 1]])
    found = changes(table_of(old), table_of(new))
    assert (found["in_both"], found["changed"]) == (2, 1)
    assert found["changed_recordings"][0]["start"] == 6
