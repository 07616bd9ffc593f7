"""Parts of a corpus that differ from the rest are found, and chance is not."""

import numpy as np
import pandas as pd
import pytest

from ser_core.reporting.slices import deviations, difference_interval


def counts(values, labels) -> pd.DataFrame:
    table = pd.DataFrame({"value": values, "label": labels}).value_counts().rename("rows")
    return table.reset_index().assign(hours=1.0, mean_score=0.5)


def corpus(size=3000, speakers=30, seed=0):
    random = np.random.default_rng(seed)
    return random.integers(0, speakers, size).astype(str), random.choice(["angry", "sad"], size)


def test_the_speaker_who_differs_comes_first():
    speakers, labels = corpus()
    labels[speakers == "7"] = "angry"
    found = deviations({"speaker": counts(speakers, labels)})
    first = found.iloc[0]
    assert (first["slice"], first["value"]) == ("speaker", "7")
    assert first["of"] == (speakers == "7").sum()
    angry = found[(found["value"] == "7") & (found["label"] == "angry")].iloc[0]
    assert angry["share"] == 1
    assert angry["rest_share"] == pytest.approx((labels[speakers != "7"] == "angry").mean())
    assert angry["low"] > 0.2
    certain = found[found["low"] * found["high"] > 0]
    assert set(certain["value"]) == {"7"}


def test_chance_is_rarely_certain():
    wrong = 0
    for seed in range(100):
        found = deviations({"speaker": counts(*corpus(seed=seed))})
        wrong += bool((found["low"] * found["high"] > 0).any())
    assert wrong <= 5 + 3 * np.sqrt(5)  # 5 % of the reports, and three standard deviations


def test_a_label_that_a_slice_lacks_has_a_row():
    found = deviations({"day": counts(["a", "a", "b"], ["angry", "angry", "sad"])})
    assert len(found) == 4
    row = found[(found["value"] == "b") & (found["label"] == "angry")].iloc[0]
    assert (row["rows"], row["of"], row["share"], row["rest_share"]) == (0, 1, 0, 1)
    assert np.isnan(row["mean_score"])


def test_nothing_divides_the_corpus():
    assert deviations({}).empty


def test_intervals_are_those_of_newcombe():
    # Newcombe 1998, table II, method 10: (a), (b), (c) and (g).
    cases = [
        ((56, 70, 48, 80), (0.0524, 0.3339)),
        ((9, 10, 3, 10), (0.1705, 0.8090)),
        ((6, 7, 2, 7), (0.0582, 0.8062)),
        ((10, 10, 0, 20), (0.6791, 1.0)),
    ]
    for (a, m, b, n), expected in cases:
        found = difference_interval(*map(np.array, (a / m, m, b / n, n)), 0.05)
        assert [float(end) for end in found] == pytest.approx(expected, abs=1e-4)
