"""Truth and predictions → numbers; it knows no file, and no class by its name.

Classes are integers from 0, and -1 is a recording without a prediction: an error of its class.
"""

from typing import NamedTuple

import numpy as np

BINS = 15  # of the confidence, equally wide: Guo et al. 2017, "On Calibration of Modern …"
_RESAMPLES = 2_000
_INTERVAL = (2.5, 97.5)  # percentiles of the resamples
_TEMPERATURES = (0.05, 20.0)


def confusion_matrix(truth: np.ndarray, prediction: np.ndarray, num_classes: int) -> np.ndarray:
    """How often a class was taken for which.

    Args:
        truth: classes, shape ``(num_recordings,)``.
        prediction: classes or -1, of the same shape.
        num_classes: how many classes there are, in truth or among the predictions.

    Returns:
        int64, shape ``(num_classes, num_classes + 1)``: rows are the truth, and the last column
        counts what has no prediction.

    >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, -1]), 2)
    array([[1, 1, 0],
           [0, 0, 1]])
    """
    columns = np.where(prediction < 0, num_classes, prediction)
    cells = truth * (num_classes + 1) + columns
    counts = np.bincount(cells, minlength=num_classes * (num_classes + 1))
    return counts.reshape(num_classes, num_classes + 1)


def recalls(confusion: np.ndarray) -> np.ndarray:
    """Of each class's recordings, the share that was recognised; NaN for a class without any.

    Args:
        confusion: shape ``(…, num_classes, num_classes + 1)``, as of ``confusion_matrix``.

    Returns:
        Shape ``(…, num_classes)``.
    """
    return _ratio(_hits(confusion), confusion.sum(axis=-1))


def precisions(confusion: np.ndarray) -> np.ndarray:
    """Of each class's predictions, the share that is right; NaN for a class never predicted."""
    return _ratio(_hits(confusion), confusion.sum(axis=-2)[..., :-1])


def f1_scores(confusion: np.ndarray) -> np.ndarray:
    """The harmonic mean of each class's precision and recall; NaN for a class not in truth."""
    total, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)[..., :-1]
    return np.where(total > 0, _ratio(2 * _hits(confusion), total + predicted), np.nan)


class Summary(NamedTuple):
    """What a confusion matrix comes down to; arrays where there were several."""

    accuracy: np.ndarray
    uar: np.ndarray
    macro_f1: np.ndarray


def summarize(confusion: np.ndarray) -> Summary:
    """Accuracy, unweighted average recall and macro F1, over the classes that occur in truth.

    Args:
        confusion: shape ``(…, num_classes, num_classes + 1)``, each with a recording at least.
    """
    accuracy = _hits(confusion).sum(axis=-1) / confusion.sum(axis=(-2, -1))
    return Summary(
        accuracy,
        np.nanmean(recalls(confusion), axis=-1),
        np.nanmean(f1_scores(confusion), axis=-1),
    )


def accuracy(truth: np.ndarray, prediction: np.ndarray) -> float:
    """The share of recordings that were recognised."""
    return float(np.mean(truth == prediction))


def uar(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Unweighted average recall: the mean over the classes in truth, large and small alike.

    >>> uar(np.array([0, 0, 0, 1]), np.array([0, 0, 0, 0]))
    0.5
    """
    return float(_summary(truth, prediction).uar)


def macro_f1(truth: np.ndarray, prediction: np.ndarray) -> float:
    """The mean F1 over the classes in truth."""
    return float(_summary(truth, prediction).macro_f1)


def _summary(truth: np.ndarray, prediction: np.ndarray) -> Summary:
    num_classes = int(max(truth.max(), prediction.max())) + 1
    return summarize(confusion_matrix(truth, prediction, num_classes))


def _hits(confusion: np.ndarray) -> np.ndarray:
    hits: np.ndarray = np.diagonal(confusion, axis1=-2, axis2=-1)
    return hits


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    ratio: np.ndarray = np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
    return ratio


# ---- intervals -----------------------------------------------------------------------------------


def interval_over_groups(confusions: np.ndarray, seed: int = 34) -> dict[str, tuple[float, float]]:
    """95 % intervals from drawing the groups, as speakers are, anew with replacement.

    Args:
        confusions: one matrix a group, shape ``(num_groups, num_classes, num_classes + 1)``.
        seed: of the draws.

    Returns:
        Lower and upper end by field of ``Summary`` (the percentile bootstrap).
    """
    groups = len(confusions)
    draws = np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), _RESAMPLES)
    return _interval(np.tensordot(draws, confusions, axes=1))


def interval_over_recordings(
    confusion: np.ndarray, seed: int = 34
) -> dict[str, tuple[float, float]]:
    """The same from drawing recordings: a recording is its cell, so cells are drawn."""
    count = int(confusion.sum())
    shares = confusion.ravel() / count
    draws = np.random.default_rng(seed).multinomial(count, shares, _RESAMPLES)
    return _interval(draws.reshape(-1, *confusion.shape))


def _interval(confusions: np.ndarray) -> dict[str, tuple[float, float]]:
    summary = summarize(confusions)._asdict()
    return {name: tuple(np.percentile(of, _INTERVAL).tolist()) for name, of in summary.items()}


# ---- calibration ---------------------------------------------------------------------------------


def cross_entropy(scores: np.ndarray, truth: np.ndarray) -> float:
    """The mean of −log of the probability given to the truth, in nats.

    Args:
        scores: probabilities, shape ``(num_recordings, num_classes)``.
        truth: classes, shape ``(num_recordings,)``.
    """
    given = scores[np.arange(len(truth)), truth]
    return float(-np.log(np.maximum(given, np.finfo(scores.dtype).eps)).mean())


class Reliability(NamedTuple):
    """The recordings by the confidence of their prediction, an array of ``BINS`` each.

    Attributes:
        recordings: how many are in the bin.
        confidence: their mean confidence; NaN where there are none.
        accuracy: the share of them that is right; NaN where there are none.
    """

    recordings: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def reliability(confidence: np.ndarray, correct: np.ndarray) -> Reliability:
    """How right predictions of each confidence are.

    Args:
        confidence: the highest score of each recording, shape ``(num_recordings,)``.
        correct: whether it was right, of the same shape.
    """
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    count = np.bincount(bins, minlength=BINS)
    sums = (np.bincount(bins, weights, BINS) for weights in (confidence, correct))
    return Reliability(count, *(_ratio(of, count) for of in sums))


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """The mean distance of confidence and accuracy over ``BINS`` bins, weighted by their counts.

    Args:
        confidence: the highest score of each recording, shape ``(num_recordings,)``.
        correct: whether it was right, of the same shape.
    """
    bins = reliability(confidence, correct)
    gaps = np.abs(bins.accuracy - bins.confidence)
    return float(np.nansum(gaps * bins.recordings) / len(confidence))


def fit_temperature(logits: np.ndarray, truth: np.ndarray) -> float:
    """The temperature that gives the truth the highest likelihood, between 0.05 and 20.

    The cross-entropy is convex in 1/T, and its slope there is the mean of the expected logit less
    the truth's: halve the bracket until that is 0. Logarithms of scores will do as logits, as they
    differ by a constant a recording.

    Args:
        logits: shape ``(num_recordings, num_classes)``.
        truth: classes, shape ``(num_recordings,)``.
    """
    logits = logits.astype(np.float64)
    hit = logits[np.arange(len(truth)), truth]
    cold, hot = np.log(_TEMPERATURES)
    for _ in range(50):
        middle = (cold + hot) / 2
        expected = (at_temperature(logits, float(np.exp(middle))) * logits).sum(axis=1)
        cold, hot = (middle, hot) if (expected - hit).mean() > 0 else (cold, middle)
    return float(np.exp(middle))


def at_temperature(logits: np.ndarray, temperature: float) -> np.ndarray:
    """The probabilities of logits divided by a temperature, of the same shape."""
    scaled = logits / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    probabilities: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return probabilities
