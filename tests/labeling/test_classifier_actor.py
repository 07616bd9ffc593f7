"""How often a classifier may die, and what it checks before it works."""

import threading

import numpy as np
import pyarrow as pa
import pytest

from ser_core.errors import CheckpointError
from ser_core.labeling import classifier_actor
from ser_core.labeling.classifier_actor import ClassifierActor, StartCounter, _check_scores
from ser_core.labeling.packing import packed, unpacked
from ser_core.models.outputs import Outputs

WORK, GIVE_UP, STOP = "work", "give up", "stop"


def starts(counter, classifier, count):
    return [counter.started(classifier) for _ in range(count)]


def test_a_classifier_that_dies_is_restarted_a_few_times():
    counter = StartCounter(classifiers=2)
    counter.started("b")
    assert starts(counter, "a", 5) == [WORK] * 4 + [GIVE_UP]


def test_the_last_one_stops_the_run():
    counter = StartCounter(classifiers=2)
    counter.started("b")
    assert starts(counter, "a", 5)[-1] == GIVE_UP
    counter.finished("b")  # long ago
    assert starts(counter, "b", 5) == [WORK] * 4 + [STOP]


def test_the_run_stops_if_replacements_die_as_well():
    counter = StartCounter(classifiers=2)
    counter.started("next")
    verdicts = [starts(counter, f"bad-{number}", 5)[-1] for number in range(6)]
    assert verdicts == [GIVE_UP] * 5 + [STOP]


def test_one_bad_device_does_not_stop_the_others_however_often_it_is_replaced():
    counter = StartCounter(classifiers=2)
    counter.started("good")
    for replacement in range(10):
        assert starts(counter, f"bad-{replacement}", 5)[-1] == GIVE_UP
        counter.finished("good")


def test_a_finished_block_forgives_earlier_deaths():
    counter = StartCounter(classifiers=1)
    for _ in range(10):
        assert starts(counter, "a", 4) == [WORK] * 4
        counter.finished("a")
    assert starts(counter, "a", 5)[-1] == STOP


class Scorer:
    description = "cpu bf16"

    def __init__(self, score):
        self.score = score

    def prepare(self, waveforms):
        return waveforms

    def compute(self, waveforms):
        assert np.isfinite(waveforms).all()
        return Outputs(np.float32([[0.5, self.score]]))


def test_a_model_that_cannot_classify_noise_is_refused():
    _check_scores(Scorer(0.5))
    with pytest.raises(
        CheckpointError, match=r"not finite numbers \(cpu bf16\); try precision fp32"
    ):
        _check_scores(Scorer(np.nan))


def test_the_clock_stops_when_no_call_is_in_progress(monkeypatch):
    clock = []
    handler = classifier_actor.faulthandler
    monkeypatch.setattr(handler, "dump_traceback_later", lambda *_, **__: clock.append("starts"))
    monkeypatch.setattr(handler, "cancel_dump_traceback_later", lambda: clock.append("stops"))
    actor = object.__new__(ClassifierActor)
    actor._counting, actor._calls = threading.Lock(), 0
    with actor._watched():
        with actor._watched():
            pass
        assert clock == ["starts"] * 3  # the call that goes on is still watched
    assert clock[-1] == "stops"


def test_the_tables_of_a_call_come_back_as_one():
    actor = object.__new__(ClassifierActor)
    actor.classify = lambda decoded: decoded.append_column("score", pa.array([0.5] * len(decoded)))
    rows = pa.concat_tables([packed(pa.table({"n": numbers})) for numbers in ([1, 2], [3])])
    (block,) = actor(rows)
    (labeled,) = unpacked(block)
    assert labeled.to_pydict() == {"n": [1, 2, 3], "score": [0.5] * 3}


def test_the_counter_knows_how_many_are_ready_and_since_when(monkeypatch):
    now = 100.0
    monkeypatch.setattr(classifier_actor.time, "monotonic", lambda: now)
    counter = StartCounter(classifiers=2)
    counter.started("a")
    assert counter.numbers() == (0, 0.0)
    counter.ready("a")
    now += 5
    counter.ready("b")
    counter.ready("a")  # started again
    assert counter.numbers() == (2, 5.0)
