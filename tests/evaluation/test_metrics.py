"""The numbers are scikit-learn's, or those of the definition."""

import numpy as np
import pytest
import sklearn.metrics
from scipy.optimize import minimize_scalar

from ser_core.evaluation import metrics

CLASSES = 5


@pytest.fixture(params=[0, 1, 2])
def guesses(request):
    """Uneven classes of which one is never in truth and one never predicted."""
    random = np.random.default_rng(request.param)
    truth = random.choice([0, 1, 2, 4], 300, p=[0.6, 0.25, 0.1, 0.05])
    prediction = np.where(random.random(300) < 0.5, truth, random.choice([0, 1, 2, 3], 300))
    prediction[prediction == 4] = 0
    return truth, prediction


def test_against_scikit_learn(guesses):
    truth, prediction = guesses
    occurring = np.unique(truth)
    options = {"labels": occurring, "average": "macro", "zero_division": 0}
    assert metrics.accuracy(*guesses) == sklearn.metrics.accuracy_score(*guesses)
    assert metrics.uar(*guesses) == pytest.approx(sklearn.metrics.recall_score(*guesses, **options))
    assert metrics.macro_f1(*guesses) == pytest.approx(
        sklearn.metrics.f1_score(*guesses, **options)
    )
    confusion = metrics.confusion_matrix(truth, prediction, CLASSES)
    expected = sklearn.metrics.confusion_matrix(truth, prediction, labels=range(CLASSES))
    assert (confusion[:, :-1] == expected).all()
    assert not confusion[:, -1].any()
    by_class = {"labels": range(CLASSES), "average": None, "zero_division": np.nan}
    for ours, theirs in (
        (metrics.recalls, sklearn.metrics.recall_score),
        (metrics.precisions, sklearn.metrics.precision_score),
    ):
        np.testing.assert_allclose(ours(confusion), theirs(*guesses, **by_class))


def test_no_prediction_is_an_error(guesses):
    truth, prediction = guesses
    missing = np.where(np.arange(len(truth)) % 3 == 0, -1, prediction)
    wrong = np.where(missing < 0, CLASSES, missing)  # a class that nobody has
    options = {"labels": np.unique(truth), "average": "macro", "zero_division": 0}
    assert metrics.accuracy(truth, missing) == sklearn.metrics.accuracy_score(truth, wrong)
    assert metrics.uar(truth, missing) == pytest.approx(
        sklearn.metrics.recall_score(truth, wrong, **options)
    )
    assert metrics.macro_f1(truth, missing) == pytest.approx(
        sklearn.metrics.f1_score(truth, wrong, **options)
    )


@pytest.fixture
def probabilities():
    """Logits that are twice too sure, and truth drawn from what they should have been."""
    random = np.random.default_rng(0)
    logits = random.normal(size=(4_000, CLASSES)) * 2
    fair = metrics.at_temperature(logits, 1.0)
    truth = np.array([random.choice(CLASSES, p=row) for row in fair])
    return 2 * logits, truth


def test_loss_against_scikit_learn(probabilities):
    logits, truth = probabilities
    scores = metrics.at_temperature(logits, 1.0)
    np.testing.assert_allclose(scores.sum(axis=1), 1)
    expected = sklearn.metrics.log_loss(truth, scores, labels=range(CLASSES))
    assert metrics.cross_entropy(scores, truth) == pytest.approx(expected)
    assert np.isfinite(metrics.cross_entropy(np.array([[1.0, 0.0]], np.float32), np.array([1])))


def test_temperature_against_scipy(probabilities):
    logits, truth = probabilities

    def loss(temperature):
        return metrics.cross_entropy(metrics.at_temperature(logits, temperature), truth)

    best = minimize_scalar(loss, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-8}).x
    assert metrics.fit_temperature(logits, truth) == pytest.approx(best, abs=1e-4)
    assert best == pytest.approx(2, abs=0.15)  # what the logits were made with
    log_scores = np.log(metrics.at_temperature(logits, 1.0))
    assert metrics.fit_temperature(log_scores, truth) == pytest.approx(best, abs=1e-4)


def test_temperature_calibrates(probabilities):
    logits, truth = probabilities
    error = []
    for temperature in (1.0, metrics.fit_temperature(logits, truth)):
        scores = metrics.at_temperature(logits, temperature)
        correct = scores.argmax(axis=1) == truth
        error.append(metrics.expected_calibration_error(scores.max(axis=1), correct))
    assert error[0] > 0.1
    assert error[1] < 0.03


def test_temperature_stays_in_bounds():
    logits = np.eye(3) * 5
    assert metrics.fit_temperature(logits, np.arange(3)) == pytest.approx(0.05, rel=1e-3)
    assert metrics.fit_temperature(logits, np.array([1, 2, 0])) == pytest.approx(20, rel=1e-3)


def test_calibration_error_by_hand():
    confidence = np.array([0.95, 0.99, 1.0, 0.61, 0.65])
    correct = np.array([True, True, False, True, False])
    # Bins of 1/15: [14/15, 1] holds three, [9/15, 10/15) holds two.
    expected = 3 / 5 * abs(2 / 3 - 0.98) + 2 / 5 * abs(1 / 2 - 0.63)
    assert metrics.expected_calibration_error(confidence, correct) == pytest.approx(expected)
    bins = metrics.reliability(confidence, correct)
    assert bins.recordings.tolist() == [0] * 9 + [2] + [0] * 4 + [3]
    assert bins.accuracy[14] == pytest.approx(2 / 3)


def brute_force(truth, prediction, groups, measure):
    """The bootstrap as the textbook has it: draw groups, put their recordings together, measure."""
    random = np.random.default_rng(1)
    rows = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    drawn = []
    for _ in range(1_000):
        picked = np.concatenate([rows[i] for i in random.integers(len(rows), size=len(rows))])
        drawn.append(measure(truth[picked], prediction[picked]))
    return np.percentile(drawn, [2.5, 97.5])


def test_interval_over_speakers(guesses):
    truth, prediction = guesses
    speakers = np.arange(300) // 25
    prediction = np.where(speakers < 4, 0, prediction)  # who is heard matters
    confusions = np.stack(
        [
            metrics.confusion_matrix(truth[speakers == s], prediction[speakers == s], 5)
            for s in range(12)
        ]
    )
    found = metrics.interval_over_groups(confusions)
    for name in ("accuracy", "uar", "macro_f1"):
        expected = brute_force(truth, prediction, speakers, getattr(metrics, name))
        np.testing.assert_allclose(found[name], expected, atol=0.02)


def test_interval_over_recordings(guesses):
    found = metrics.interval_over_recordings(metrics.confusion_matrix(*guesses, 5))
    for name in ("accuracy", "uar", "macro_f1"):
        expected = brute_force(*guesses, np.arange(300), getattr(metrics, name))
        np.testing.assert_allclose(found[name], expected, atol=0.02)
