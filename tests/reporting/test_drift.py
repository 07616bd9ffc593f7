"""Drift is found where there is some, and not where there is none."""

import numpy as np
import pandas as pd
import pytest
from label_folders import WHEN, label_rows, random_scores

from ser_core.reporting.changes import changes
from ser_core.reporting.drift import (
    _chi_squared,
    _pooled,
    compare,
    jensen_shannon_distance,
    population_stability_index,
    summarize_drift,
)

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


def test_only_one_speaker_changed(table_of):
    speakers = np.array(SPEAKERS)
    scores = random_scores(COUNT)
    scores[speakers == "s3"] = [0.98, 0.01, 0.01]
    changed = label_rows([f"{i}.wav" for i in range(COUNT)], scores, manifest={"speaker": SPEAKERS})
    found = drifted(compare(table_of(corpus()), table_of(changed)))
    assert ("label", "speaker", "s3") in found
    assert not any(value not in (None, "s3") for _, _, value in found)


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


def test_drift_of_one_part_does_not_speak_for_the_corpus(table_of):
    scores = random_scores(COUNT)
    scores[np.array(SPEAKERS) == "s3"] = [0.98, 0.01, 0.01]
    changed = label_rows([f"{i}.wav" for i in range(COUNT)], scores, manifest={"speaker": SPEAKERS})
    before = label_rows(
        [f"{i}.wav" for i in range(COUNT)], random_scores(COUNT), manifest={"speaker": SPEAKERS}
    )
    summary = summarize_drift(table_of(before), table_of(changed), "before")
    assert summary["drifted"] == ["label of speaker s3"]
    assert summary["verdict"] == "in part"


def test_many_rare_values_are_no_evidence():
    random = np.random.default_rng(0)
    drawn = [np.bincount(random.integers(0, 900, 1000), minlength=900) for _ in range(2)]
    assert _chi_squared(*(counts.astype(float) for counts in drawn)) > 0.01
    few, many = np.array([400.0, 1, 0, 1]), np.array([400.0, 0, 1, 1])
    assert _pooled(np.stack([few, many])).tolist() == [[400, 2], [400, 2]]


def test_the_index_and_the_distance_by_hand():
    baseline, current = np.array([60, 40]), np.array([30, 70])
    p, q = (baseline + 0.5) / 101, (current + 0.5) / 101
    expected = sum((q - p) * np.log(q / p))
    assert population_stability_index(baseline, current) == pytest.approx(expected)
    p, q = baseline / 100, current / 100
    middle = (p + q) / 2
    divergence = sum(p * np.log2(p / middle) + q * np.log2(q / middle)) / 2
    assert jensen_shannon_distance(baseline, current) == pytest.approx(np.sqrt(divergence))
    assert jensen_shannon_distance(baseline, baseline * 3) == 0


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
