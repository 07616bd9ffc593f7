"""What is called chance is what guessing reaches when it is tried."""

import numpy as np
import pytest

from ser_core.evaluation import metrics
from ser_core.evaluation.chance import (
    calibrated_error,
    chance_of_accuracy,
    chance_of_macro_f1,
    chance_of_uar,
)

SHARES = np.array([0.5, 0.3, 0.15, 0.05])
RANDOM = np.random.default_rng(0)
TRUTH = RANDOM.choice(4, 20_000, p=SHARES)


def guesses(shares):
    return RANDOM.choice(len(shares), len(TRUTH), p=shares)


@pytest.mark.parametrize("shares", [SHARES, [0.25] * 4, [0.1, 0.1, 0.1, 0.7]])
def test_every_guess_has_this_uar(shares):
    assert metrics.uar(TRUTH, guesses(shares)) == pytest.approx(chance_of_uar(TRUTH), abs=0.02)


def test_guesses_beyond_the_truth_have_less():
    assert metrics.uar(TRUTH, guesses([0.2] * 5)) < chance_of_uar(TRUTH) - 0.03


def test_macro_f1_of_the_best_guess():
    chance = chance_of_macro_f1(TRUTH)
    assert metrics.macro_f1(TRUTH, guesses(SHARES)) == pytest.approx(chance, abs=0.01)
    for other in ([0.25] * 4, [1, 0, 0, 0], [0.6, 0.3, 0.07, 0.03]):
        assert metrics.macro_f1(TRUTH, guesses(other)) < chance


def test_accuracy_of_the_best_guess():
    chance, most_frequent = chance_of_accuracy(TRUTH)
    assert chance == metrics.accuracy(TRUTH, np.full(len(TRUTH), most_frequent))
    assert metrics.accuracy(TRUTH, guesses(SHARES)) < chance


@pytest.mark.parametrize("count", [30, 3_000])
def test_the_error_of_a_calibrated_model(count):
    """It is that of outcomes drawn from the confidence, and falls with the number of recordings."""
    confidence = RANDOM.uniform(0.25, 1, count).astype(np.float32)
    mean, highest = calibrated_error(confidence)
    errors = [
        metrics.expected_calibration_error(confidence, RANDOM.random(count) < confidence)
        for _ in range(300)
    ]
    assert mean == pytest.approx(np.mean(errors), rel=0.05)
    assert highest == pytest.approx(np.percentile(errors, 95), rel=0.1)
    assert calibrated_error(np.tile(confidence, 16))[0] == pytest.approx(mean / 4, rel=0.2)


def test_certainty_has_no_error_by_chance():
    assert calibrated_error(np.ones(10)) == (0, 0)
