"""Metrics equal their published definitions, restated here, and cases computed by hand."""

import warnings

import numpy as np
import pytest

from ser_core.evaluation import metrics

CLASSES = 5

# Class 3 is only predicted, class 4 neither true nor predicted, and one recording has no label.
TRUTH = np.array([0, 0, 0, 1, 1, 2])
PREDICTION = np.array([0, 0, 1, 1, -1, 3])


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def by_definition(truth, prediction):
    """Accuracy, UAR and macro F1 of the classes in truth, in plain Python."""
    pairs = list(zip(truth.tolist(), prediction.tolist(), strict=True))
    recalls, f1 = [], []
    for label in set(truth.tolist()):
        hits = sum(pair == (label, label) for pair in pairs)
        recalls.append(hits / sum(t == label for t, _ in pairs))
        # 2 PR / (P + R) = 2 TP / (2 TP + FP + FN)
        f1.append(2 * hits / sum((t == label) + (p == label) for t, p in pairs))
    return {
        "accuracy": sum(t == p for t, p in pairs) / len(pairs),
        "uar": sum(recalls) / len(recalls),
        "macro_f1": sum(f1) / len(f1),
    }


@pytest.fixture(params=[0, 1])
def guesses(request):
    """Unbalanced classes; one is never in truth, one is never predicted, some have no label."""
    random = np.random.default_rng(request.param)
    truth = random.choice([0, 1, 2, 4], 300, p=[0.6, 0.25, 0.1, 0.05])
    prediction = np.where(random.random(300) < 0.5, truth, random.choice([-1, 0, 1, 2, 3], 300))
    prediction[prediction == 4] = 0
    return truth, prediction


def test_metrics_by_hand():
    assert metrics.accuracy(TRUTH, PREDICTION) == pytest.approx(3 / 6)
    assert metrics.uar(TRUTH, PREDICTION) == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert metrics.macro_f1(TRUTH, PREDICTION) == pytest.approx((4 / 5 + 2 / 4 + 0) / 3)


def test_class_scores_by_hand():
    scores = metrics.class_scores(TRUTH, PREDICTION, CLASSES)
    nan = np.nan
    np.testing.assert_allclose(scores.recall, [2 / 3, 1 / 2, 0, nan, nan])
    np.testing.assert_allclose(scores.precision, [1, 1 / 2, nan, 0, nan])
    np.testing.assert_allclose(scores.f1, [4 / 5, 2 / 4, 0, nan, nan])


def test_confusion_by_hand():
    confusion = metrics.confusion_matrix(TRUTH, PREDICTION, CLASSES)
    assert confusion.tolist() == [
        [2, 1, 0, 0, 0, 0],
        [0, 1, 0, 0, 0, 1],
        [0, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ]


def test_metrics_equal_their_definitions(guesses):
    expected = by_definition(*guesses)
    assert {name: getattr(metrics, name)(*guesses) for name in expected} == pytest.approx(expected)


def test_metrics_of_confusion_matrices_equal_those_of_predictions(guesses):
    truth, prediction = guesses
    halves = [slice(0, 150), slice(150, None)]
    stacked = np.stack(
        [metrics.confusion_matrix(truth[half], prediction[half], CLASSES) for half in halves]
    )
    summary = metrics.summarize(stacked)
    for index, half in enumerate(halves):
        found = {name: values[index] for name, values in summary._asdict().items()}
        assert found == pytest.approx(by_definition(truth[half], prediction[half]))


def test_a_recording_without_a_prediction_is_an_error_of_its_class():
    truth = np.array([0, 0, 1, 1])
    without, wrong = np.array([0, -1, 1, 1]), np.array([0, 1, 1, 1])
    assert metrics.uar(truth, without) == metrics.uar(truth, wrong) == 0.75
    # Unlike a wrong prediction, it costs the other class no precision.
    assert metrics.macro_f1(truth, without) > metrics.macro_f1(truth, wrong)


# ---- intervals -----------------------------------------------------------------------------------


def bootstrap(truth, prediction, groups):
    """The percentile bootstrap of the textbook: resample groups, pool their recordings, measure."""
    random = np.random.default_rng(1)
    rows = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    draws = []
    for _ in range(300):
        picked = np.concatenate([rows[i] for i in random.integers(len(rows), size=len(rows))])
        draws.append(by_definition(truth[picked], prediction[picked]))
    return {name: np.percentile([draw[name] for draw in draws], [2.5, 97.5]) for name in draws[0]}


def test_interval_over_speakers(guesses):
    truth, prediction = guesses
    speakers = np.arange(300) // 25
    prediction = np.where(speakers < 4, 0, prediction)  # speakers differ, so resampling them shows
    confusions = np.stack(
        [
            metrics.confusion_matrix(truth[speakers == s], prediction[speakers == s], CLASSES)
            for s in range(12)
        ]
    )
    found = metrics.interval_over_groups(confusions)
    for name, expected in bootstrap(truth, prediction, speakers).items():
        np.testing.assert_allclose(found[name], expected, atol=0.03)


def test_interval_over_recordings(guesses):
    found = metrics.interval_over_recordings(metrics.confusion_matrix(*guesses, CLASSES))
    for name, expected in bootstrap(*guesses, np.arange(300)).items():
        np.testing.assert_allclose(found[name], expected, atol=0.03)


def test_an_interval_has_a_seed():
    confusion = metrics.confusion_matrix(TRUTH, PREDICTION, CLASSES)
    first = metrics.interval_over_recordings(confusion, seed=1)
    assert first == metrics.interval_over_recordings(confusion, seed=1)
    assert first != metrics.interval_over_recordings(confusion, seed=2)


# ---- calibration ---------------------------------------------------------------------------------


def test_probabilities_by_hand():
    logits = np.array([[0, 2 * np.log(3)], [1_000, 1_000]])
    np.testing.assert_allclose(metrics.at_temperature(logits, 2), [[0.25, 0.75], [0.5, 0.5]])
    assert metrics.at_temperature(logits.astype(np.float32), 2.0).dtype == np.float32


def test_loss_by_hand():
    scores = np.array([[0.5, 0.5], [0.25, 0.75]])
    expected = -(np.log(0.5) + np.log(0.25)) / 2
    assert metrics.cross_entropy(scores, np.array([0, 0])) == pytest.approx(expected)
    impossible = np.array([[1.0, 0.0]], np.float32)
    assert 10 < metrics.cross_entropy(impossible, np.array([1])) < np.inf
    assert metrics.cross_entropy(np.ones((2, 1)), np.array([0, 0])) == 0  # a single class


@pytest.mark.parametrize("margin", [0.5, 2, 20])
def test_temperature_by_hand(margin):
    """Two classes, the same margin everywhere, 3 of 4 correct: sigmoid(margin / T) must be 3/4."""
    logits = np.tile([float(margin), 0.0], (4, 1))
    truth = np.array([0, 0, 0, 1])
    expected = margin / np.log(3)
    assert metrics.fit_temperature(logits, truth) == pytest.approx(expected, rel=1e-5)
    log_scores = np.log(metrics.at_temperature(logits, 1.0))
    assert metrics.fit_temperature(log_scores, truth) == pytest.approx(expected, rel=1e-5)
    assert metrics.fit_temperature(logits.astype(np.float32), truth) == pytest.approx(
        expected, rel=1e-5
    )


def test_temperature_stays_in_bounds():
    logits = np.eye(3) * 5
    # All correct: the colder, the better, until the loss is 0 in float64.
    assert 0.05 <= metrics.fit_temperature(logits, np.arange(3)) < 0.2
    assert metrics.fit_temperature(logits / 50, np.arange(3)) == pytest.approx(0.05, rel=1e-3)
    assert metrics.fit_temperature(logits, np.array([1, 2, 0])) == pytest.approx(20, rel=1e-3)
    # One of four is wrong, with a likelihood of 0 in float64 at any of the temperatures.
    logits = np.array([[0.1, 0], [0.1, 0], [0.1, 0], [20_000, 0]])
    fitted = metrics.fit_temperature(logits, np.array([0, 0, 0, 1]))
    assert fitted == pytest.approx(20, rel=1e-3)


def test_temperature_calibrates():
    """Truth is drawn from the probabilities of logits that the model then doubles."""
    random = np.random.default_rng(0)
    logits = random.normal(size=(4_000, CLASSES)) * 2
    probabilities = metrics.at_temperature(logits, 1.0)
    truth = (random.random((4_000, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
    truth = truth.clip(max=CLASSES - 1)
    errors = []
    fitted = metrics.fit_temperature(2 * logits, truth)
    assert fitted == pytest.approx(2, abs=0.15)
    for temperature in (1.0, fitted):
        scores = metrics.at_temperature(2 * logits, temperature)
        correct = scores.argmax(axis=1) == truth
        errors.append(metrics.expected_calibration_error(scores.max(axis=1), correct))
    assert errors[0] > 0.1
    assert errors[1] < 0.03


def test_calibration_error_by_hand():
    confidence = np.array([0.95, 0.99, 1.0, 0.61, 0.65], np.float32)
    correct = np.array([True, True, False, True, False])
    # Bins of 1/15: [14/15, 1] holds three, [9/15, 10/15) holds two.
    expected = 3 / 5 * abs(2 / 3 - 0.98) + 2 / 5 * abs(1 / 2 - 0.63)
    assert metrics.expected_calibration_error(confidence, correct) == pytest.approx(expected)
    bins = metrics.reliability(confidence, correct)
    assert bins.recordings.tolist() == [0] * 9 + [2] + [0] * 4 + [3]
    assert bins.accuracy[14] == pytest.approx(2 / 3)
    assert bins.confidence[9] == pytest.approx(0.63)
    assert np.isnan(bins.accuracy[0])
