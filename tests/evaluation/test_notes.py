"""Sentences follow from the figures, and a temperature is offered only if it helps."""

import pytest

from ser_core.evaluation.notes import notes_on, warnings_of

SUMMARY = {
    "recordings": 100,
    "without_label": {},
    "labels_without_truth": 0,
    "models": ["tiny"],
    "unknown_to_model": [],
    "never_in_truth": [],
    "accuracy": 0.6,
    "uar": 0.5,
    "interval": {"over": "speakers", "speakers": 12, "uar": (0.4, 0.6)},
    "chance": {"accuracy": 0.4, "most_frequent": "sad", "uar": 0.25, "loss": 1.4, "ece_95": 0.05},
    "loss": 1.0,
    "ece": 0.2,
    "confidence": 0.8,
    "accuracy_of_labelled": 0.6,
    "with_temperature": None,
}


def noted(**changes):
    return " ".join(notes_on(SUMMARY | changes))


def test_labels_that_are_better_than_guesses():
    assert warnings_of(SUMMARY) == []


def test_labels_that_may_be_guesses():
    interval = {**SUMMARY["interval"], "uar": (0.24, 0.3)}
    (warning,) = warnings_of(SUMMARY | {"interval": interval})
    assert "(0.240 to 0.300) is not above chance (0.250)" in warning


def test_labels_that_are_worse_than_always_the_same():
    (warning,) = warnings_of(SUMMARY | {"accuracy": 0.39})
    assert "(0.390) is below that of always answering sad (0.400)" in warning


def test_a_truth_of_one_class_shows_nothing():
    chance = SUMMARY["chance"] | {"accuracy": 1, "uar": 1}
    (warning,) = warnings_of(SUMMARY | {"chance": chance})
    assert warning.startswith("Every recording is sad in truth")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "The scores are higher than they should be: 0.800 on average, where 0.600"),
        ({"confidence": 0.5, "ece": 0.15}, "The scores are lower than they should be: 0.500"),
        ({"confidence": 0.6}, "Some scores are too high and others too low, by 0.200: 0.600"),
        ({"ece": 0.05}, "0.050 is no sign of wrong scores"),
        ({"loss": 1.5}, "above that of equal scores (1.400)"),
    ],
)
def test_calibration(changes, words):
    assert words in noted(**changes)
    assert ("equal scores" in noted(**changes)) == ("loss" in changes)


def test_nothing_is_labelled():
    assert "scores" not in noted(ece=None, loss=None)


@pytest.mark.parametrize(
    ("loss", "ece", "words"),
    [
        (0.9, 0.1, "ser-batch train --calibrate stores such a temperature"),
        (0.9, 0.2, "ser-batch train --calibrate stores such a temperature"),
        (1.1, 0.1, "As the loss gets worse, it is no clear improvement"),
        (0.9, 0.3, "As the calibration error gets worse, it is no clear improvement"),
        (1.1, 0.3, "Both get worse, so do not use it"),
        (1.0001, 0.2, "It makes no difference"),
    ],
)
def test_a_temperature_is_offered_only_if_it_makes_nothing_worse(loss, ece, words):
    note = noted(with_temperature={"temperature": 2.5, "loss": loss, "ece": ece})
    assert "Temperature 2.50, fitted on validation, would change the loss from 1.000 to" in note
    assert words in note
    assert ("--calibrate" in note) == ("--calibrate" in words)
