"""What guessing reaches, which figures are compared with; it knows neither files nor names.

A guess does not depend on the recording: it names class k with probability q(k). The share p(k) of
the recordings is of class k in truth, where there are K classes.
"""

import numpy as np

from ser_core.evaluation.metrics import BINS
from ser_core.settings import SEED

_DRAWS = 1_000
_OUTCOMES = 20_000_000  # drawn at most: about half a second
_FEWEST_DRAWS = 20  # with a million recordings, they hardly differ


def chance_of_uar(truth: np.ndarray) -> float:
    """The UAR of a guess, and of any guess among the classes in truth: 1 / K.

    Class k has the expected recall q(k), and these sum to 1.

    Args:
        truth: classes, shape ``(num_recordings,)``.

    >>> chance_of_uar(np.array([0, 0, 0, 4]))
    0.5
    """
    return 1 / len(np.unique(truth))


def chance_of_macro_f1(truth: np.ndarray) -> float:
    """The macro F1 of the best guess, which names classes as often as they occur: 1 / K.

    Of the expected counts, class k has F1 = 2 p(k) q(k) / (p(k) + q(k)), whose sum over classes is
    concave in q and highest at q = p, where F1 = p(k). Naming each class equally often has less.

    Args:
        truth: classes, shape ``(num_recordings,)``.
    """
    return chance_of_uar(truth)


def chance_of_accuracy(truth: np.ndarray) -> tuple[float, int]:
    """The accuracy of the best guess, which always names the most frequent class, and that class.

    Args:
        truth: classes, shape ``(num_recordings,)``.

    >>> chance_of_accuracy(np.array([0, 2, 2, 2]))
    (0.75, 2)
    """
    counts = np.bincount(truth)
    return float(counts.max() / len(truth)), int(counts.argmax())


def calibrated_error(confidence: np.ndarray, seed: int = SEED) -> tuple[float, float]:
    """The ECE of a perfectly calibrated model, which is not 0: its mean and 95th percentile.

    Such a model's predictions are correct with the probability that is their confidence, so
    outcomes are drawn from it (consistency resampling; Bröcker and Smith 2007, "Increasing the
    Reliability of Reliability Diagrams").

    Args:
        confidence: the highest score of each recording, shape ``(num_recordings,)``.
        seed: of the draws.
    """
    random, count = np.random.default_rng(seed), len(confidence)
    in_bin = np.minimum((confidence * BINS).astype(int), BINS - 1)
    errors = []
    for _ in range(int(np.clip(_OUTCOMES // count, _FEWEST_DRAWS, _DRAWS))):
        correct = random.random(count) < confidence
        errors.append(np.abs(np.bincount(in_bin, correct - confidence, BINS)).sum() / count)
    return float(np.mean(errors)), float(np.percentile(errors, 95))
