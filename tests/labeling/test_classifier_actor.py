"""How often a classifier may die, and what it checks before it works."""

import numpy as np
import pytest

from ser_core.errors import RunError
from ser_core.labeling.classifier_actor import Roll, _check_scores

WORK, GIVE_UP, STOP = "work", "give up", "stop"


def starts(roll, classifier, count):
    return [roll.started(classifier) for _ in range(count)]


def test_a_classifier_that_dies_is_restarted_a_few_times():
    roll = Roll(classifiers=2)
    assert starts(roll, "a", 5) == [WORK] * 4 + [GIVE_UP]


def test_the_run_stops_once_all_have_given_up():
    roll = Roll(classifiers=2)
    assert starts(roll, "a", 5)[-1] == GIVE_UP
    assert starts(roll, "b", 5)[-1] == STOP


def test_one_bad_device_does_not_stop_the_others_however_often_it_is_replaced():
    roll = Roll(classifiers=2)
    for replacement in range(10):
        assert starts(roll, f"bad-{replacement}", 5)[-1] == GIVE_UP
        roll.finished("good")


def test_a_finished_block_forgives_earlier_deaths():
    roll = Roll(classifiers=1)
    for _ in range(10):
        assert starts(roll, "a", 4) == [WORK] * 4
        roll.finished("a")
    assert starts(roll, "a", 5)[-1] == STOP


class Scorer:
    description = "cpu bf16"

    def __init__(self, score):
        self.score = score

    def scores(self, waveforms):
        assert np.isfinite(waveforms).all()
        return np.float32([[0.5, self.score]])


def test_a_model_that_cannot_classify_noise_is_refused():
    _check_scores(Scorer(0.5))
    with pytest.raises(RunError, match=r"not finite numbers \(cpu bf16\); try --precision fp32"):
        _check_scores(Scorer(np.nan))
