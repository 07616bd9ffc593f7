"""Truth and predictions → numbers; it knows neither files nor the names of classes.

Classes are integers from 0. A prediction of -1 means that there is none: an error of the true
class. scikit-learn and scipy belong to the extra ``report``, hence the imports within functions.
"""

from typing import NamedTuple

import numpy as np

from ser_core.settings import SEED

BINS = 15  # of equal width; Guo et al. 2017, "On Calibration of Modern Neural Networks"
_RESAMPLES = 2_000
_MOST_DRAWN = 5_000_000  # counts at once, of 8 bytes
_INTERVAL = (2.5, 97.5)  # percentiles
_TEMPERATURES = (0.05, 20.0)  # bounds of the fit


def accuracy(truth: np.ndarray, prediction: np.ndarray) -> float:
    """The share of recordings whose prediction is correct.

    Args:
        truth: classes, shape ``(num_recordings,)``.
        prediction: classes or -1, same shape.
    """
    return float(np.mean(truth == prediction))


def uar(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Unweighted average recall: the mean recall of the classes in truth.

    Args:
        truth: classes, shape ``(num_recordings,)``.
        prediction: classes or -1, same shape.

    >>> uar(np.array([0, 0, 0, 1]), np.array([0, 0, 0, 0]))
    0.5
    """
    from sklearn.metrics import recall_score

    # Not balanced_accuracy_score, which warns of predictions that are not in truth.
    labels = np.unique(truth)
    return float(recall_score(truth, prediction, labels=labels, average="macro", zero_division=0))


def macro_f1(truth: np.ndarray, prediction: np.ndarray) -> float:
    """The mean F1 of the classes in truth.

    Args:
        truth: classes, shape ``(num_recordings,)``.
        prediction: classes or -1, same shape.
    """
    from sklearn.metrics import f1_score

    labels = np.unique(truth)
    return float(f1_score(truth, prediction, labels=labels, average="macro", zero_division=0))


class ClassScores(NamedTuple):
    """Scores of each class, float64 arrays of shape ``(num_classes,)``.

    Attributes:
        recall: NaN for a class that is not in truth.
        precision: NaN for a class that is never predicted.
        f1: NaN for a class that is not in truth.
    """

    recall: np.ndarray
    precision: np.ndarray
    f1: np.ndarray


def class_scores(truth: np.ndarray, prediction: np.ndarray, num_classes: int) -> ClassScores:
    """Recall, precision and F1 of each class.

    Args:
        truth: classes, shape ``(num_recordings,)``.
        prediction: classes or -1, same shape.
        num_classes: the number of classes.
    """
    from sklearn.metrics import precision_recall_fscore_support

    precision, recall, f1, support = precision_recall_fscore_support(
        truth, prediction, labels=range(num_classes), zero_division=np.nan
    )
    return ClassScores(recall, precision, np.where(support > 0, f1, np.nan))


def confusion_matrix(truth: np.ndarray, prediction: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts of each pair of true and predicted class.

    Args:
        truth: classes, shape ``(num_recordings,)``.
        prediction: classes or -1, same shape.
        num_classes: the number of classes.

    Returns:
        int64, shape ``(num_classes, num_classes + 1)``: rows are the truth, columns the
        predictions; the last column counts recordings without a prediction.

    >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, -1]), 2)
    array([[1, 1, 0],
           [0, 0, 1]])
    """
    from sklearn.metrics import confusion_matrix as square_matrix

    counts: np.ndarray = square_matrix(truth, prediction, labels=[*range(num_classes), -1])
    return counts[:-1]


# ---- many confusion matrices at once -------------------------------------------------------------


class Summary(NamedTuple):
    """Metrics of confusion matrices, an array of the leading shape each."""

    accuracy: np.ndarray
    uar: np.ndarray
    macro_f1: np.ndarray


def summarize(confusion: np.ndarray) -> Summary:
    """Accuracy, UAR and macro F1 from confusion matrices.

    By hand, as scikit-learn computes them from one pair of label vectors per call, and a bootstrap
    needs those of thousands of matrices.

    Args:
        confusion: shape ``(…, num_classes, num_classes + 1)``, as ``confusion_matrix`` returns it;
            each matrix counts at least one recording.
    """
    correct = np.diagonal(confusion, axis1=-2, axis2=-1)
    actual, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)[..., :-1]
    absent = np.where(actual > 0, 1.0, np.nan)  # leaves a class that is not in truth out of means
    recall = correct / np.maximum(actual, 1) * absent
    f1 = 2 * correct / np.maximum(actual + predicted, 1) * absent
    return Summary(
        correct.sum(axis=-1) / actual.sum(axis=-1),
        np.nanmean(recall, axis=-1),
        np.nanmean(f1, axis=-1),
    )


def interval_over_groups(
    confusions: np.ndarray, seed: int = SEED
) -> dict[str, tuple[float, float]]:
    """95 % percentile bootstrap intervals, with groups (such as speakers) resampled.

    By hand, like `interval_over_recordings`: resampling is one multinomial draw of counts, where
    ``scipy.stats.bootstrap`` would index every recording in every resample.

    Args:
        confusions: a matrix per group, shape ``(num_groups, num_classes, num_classes + 1)``.
        seed: of the resampling.

    Returns:
        Lower and upper end by field of ``Summary``.
    """
    groups, random = len(confusions), np.random.default_rng(seed)
    shares, counts = np.full(groups, 1 / groups), confusions.astype(np.float64)
    resampled, at_once = [], max(1, _MOST_DRAWN // groups)
    for start in range(0, _RESAMPLES, at_once):
        draws = random.multinomial(groups, shares, min(at_once, _RESAMPLES - start))
        resampled.append(np.tensordot(draws.astype(np.float64), counts, axes=1))
    return _interval(np.concatenate(resampled))


def interval_over_recordings(
    confusion: np.ndarray, seed: int = SEED
) -> dict[str, tuple[float, float]]:
    """95 % percentile bootstrap intervals, with recordings resampled.

    A recording counts only through its cell of the matrix, so cells are drawn.

    Args:
        confusion: shape ``(num_classes, num_classes + 1)``.
        seed: of the resampling.

    Returns:
        Lower and upper end by field of ``Summary``.
    """
    count = int(confusion.sum())
    shares = confusion.ravel() / count
    draws = np.random.default_rng(seed).multinomial(count, shares, _RESAMPLES)
    return _interval(draws.reshape(-1, *confusion.shape))


def _interval(confusions: np.ndarray) -> dict[str, tuple[float, float]]:
    summary = summarize(confusions)._asdict()
    return {name: tuple(np.percentile(v, _INTERVAL).tolist()) for name, v in summary.items()}


# ---- calibration ---------------------------------------------------------------------------------


def cross_entropy(scores: np.ndarray, truth: np.ndarray) -> float:
    """The mean negative log-likelihood of the truth, in nats.

    By hand, as scikit-learn's ``log_loss`` refuses a checkpoint with a single class.

    Args:
        scores: probabilities, shape ``(num_recordings, num_classes)``.
        truth: classes, shape ``(num_recordings,)``.
    """
    likelihood = scores[np.arange(len(truth)), truth]
    return float(-np.log(np.maximum(likelihood, np.finfo(scores.dtype).eps)).mean())


class Reliability(NamedTuple):
    """Recordings by the confidence of their prediction, arrays of shape ``(BINS,)``.

    Attributes:
        recordings: number of recordings in the bin.
        confidence: their mean confidence; NaN for an empty bin.
        accuracy: the share of correct predictions; NaN for an empty bin.
    """

    recordings: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def reliability(confidence: np.ndarray, correct: np.ndarray) -> Reliability:
    """Accuracy by confidence, in ``BINS`` bins of equal width.

    From histograms, as scikit-learn's ``calibration_curve`` does not return the counts, which the
    calibration error needs, and drops empty bins.

    Args:
        confidence: the highest score of each recording, shape ``(num_recordings,)``.
        correct: whether the prediction is correct, same shape.
    """
    confidence = np.clip(confidence.astype(np.float64), 0, 1)
    count, sum_confidence, sum_correct = (
        np.histogram(confidence, BINS, (0, 1), weights=weights)[0]
        for weights in (None, confidence, correct.astype(np.float64))
    )
    occupied = np.where(count > 0, count, np.nan)
    return Reliability(count, sum_confidence / occupied, sum_correct / occupied)


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """ECE: the mean distance of confidence and accuracy over bins, weighted by their counts.

    Guo et al. 2017, equation 3; scikit-learn has no function for it.

    Args:
        confidence: the highest score of each recording, shape ``(num_recordings,)``.
        correct: whether the prediction is correct, same shape.
    """
    bins = reliability(confidence, correct)
    gaps = np.abs(bins.accuracy - bins.confidence)
    return float(np.nansum(gaps * bins.recordings) / len(confidence))


def fit_temperature(logits: np.ndarray, truth: np.ndarray) -> float:
    """The temperature between 0.05 and 20 with the lowest cross-entropy.

    The cross-entropy is convex in 1 / T, so it has one minimum in log T, where it is searched.

    Args:
        logits: shape ``(num_recordings, num_classes)``; log-probabilities have the same result, as
            they differ from logits by a constant per recording.
        truth: classes, shape ``(num_recordings,)``.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    logits = logits.astype(np.float64)
    rows = np.arange(len(truth))

    def loss(log_temperature: float) -> float:  # cross_entropy clips, and is flat where it does
        scaled = logits / np.exp(log_temperature)
        return float(-log_softmax(scaled, axis=1)[rows, truth].mean())

    found = minimize_scalar(
        loss, bounds=np.log(_TEMPERATURES), method="bounded", options={"xatol": 1e-6}
    )
    return float(np.exp(found.x))


def at_temperature(logits: np.ndarray, temperature: float) -> np.ndarray:
    """The probabilities of logits divided by a temperature, same shape and type as the logits."""
    from scipy.special import softmax

    probabilities: np.ndarray = softmax(logits / temperature, axis=1)
    return probabilities
