"""How far a row may be from the card: nine rows in ten by little, none by much."""

import numpy as np
import pytest

from ser_core.verification.comparison import Tolerance, beyond, compare, tolerance_of

CLASSES = ("sad", "happy", "angry")
LIMITS = Tolerance(0.05, 0.4)


def row(card, scores, label=None, **columns):
    scores = np.array(scores, float)
    label = label or CLASSES[int(np.nanargmax(scores))]
    values = {f"score_{name}": score for name, score in zip(CLASSES, scores, strict=True)}
    values |= {"path": "/1", "start": None, "precision": "bf16", "label": label}
    values |= {"score": float(np.nanmax(scores))} | columns
    return compare(values, np.array(card, float), CLASSES)


def off_by(difference):
    return row([0.5, 0.3, 0.2], [0.5 - difference, 0.3 + difference, 0.2])


def test_the_largest_difference_of_any_score():
    compared = row([0.5, 0.3, 0.2], [0.5, 0.34, 0.16])
    assert compared.difference == pytest.approx(0.04)
    assert (compared.label, compared.card_label, compared.card_score) == ("sad", "sad", 0.5)
    assert compared.card_gap == 0


def test_the_score_of_the_label_counts():
    assert row([0.5, 0.3, 0.2], [0.5, 0.3, 0.2], score=0.8).difference == pytest.approx(0.3)


@pytest.mark.parametrize("score", [None, np.nan])
def test_a_missing_score_differs(score):
    compared = row([0.5, 0.3, 0.2], [0.5, 0.3, 0.2], score_angry=score)
    assert compared.difference == 1
    assert beyond([compared], LIMITS) == [compared]


def test_a_score_of_zero_is_a_score():
    assert row([1.0, 0.0, 0.0], [1.0, 0.0, 0.0]).difference == 0


def test_one_row_in_ten_may_differ_by_more():
    rows = [off_by(0.01)] * 19
    assert not beyond([*rows, off_by(0.2)], LIMITS)
    assert len(beyond([*rows, *[off_by(0.2)] * 3], LIMITS)) == 0
    assert len(beyond([*rows[:17], *[off_by(0.2)] * 3], LIMITS)) == 3
    assert beyond([*rows, off_by(0.45)], LIMITS) == [off_by(0.45)]
    assert not beyond([off_by(0.2)], LIMITS)


def test_the_worst_row_comes_first():
    rows = [off_by(difference) for difference in (0.1, 0.3, 0.2)]
    assert [row.difference for row in beyond(rows, LIMITS)] == pytest.approx([0.3, 0.2, 0.1])


def test_another_label_of_scores_that_are_alike_is_none():
    limits = Tolerance(0.01, 0.02)
    assert not beyond([row([0.41, 0.39, 0.2], [0.395, 0.405, 0.2])] * 1, limits)
    other = row([0.5, 0.3, 0.2], [0.5, 0.3, 0.2], label="happy", score=0.3)
    assert beyond([other], limits) == [other]
    unknown = row([0.5, 0.3, 0.2], [0.5, 0.3, 0.2], label="bored")
    assert beyond([unknown], limits) == [unknown]


def test_tolerances():
    assert tolerance_of("fp32") == Tolerance(1e-4, 1e-4)
    assert tolerance_of(None) == tolerance_of("unknown") == tolerance_of("bf16")
    assert tolerance_of("bf16", 0.02) == Tolerance(0.02, 0.02)
