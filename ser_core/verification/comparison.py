"""A row's scores and the model card's: how far apart they are, and how far they may be."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ser_core.schema import score_columns

_ROWS_BEYOND = 10  # one row in so many may differ by more than is usual


class Tolerance(NamedTuple):
    """How much a row's scores may differ from the card's.

    Attributes:
        usual: nine rows of ten differ by no more than this.
        largest: and none by more than this.
    """

    usual: float
    largest: float


# In fp32 the promise of the project. The others are a multiple of what `benchmarks.precision` and
# docs/performance.md measured: in bf16, a few recordings differ by far more than the others, in the
# network of transformers as well.
TOLERANCES = {
    "fp32": Tolerance(1e-4, 1e-4),
    "fp16": Tolerance(0.01, 0.05),
    "bf16": Tolerance(0.05, 0.4),
}


class Compared(NamedTuple):
    """A row beside what the card's script says of the same recording.

    Attributes:
        path: as in the row.
        start: of its segment or stretch, s; None for a whole recording.
        precision: as in the row.
        label: the row's.
        score: the row's.
        card_label: the card's.
        card_score: the card's, of its own label.
        card_gap: between the card's scores of its own label and of the row's.
        difference: the largest of all scores.
    """

    path: str
    start: float | None
    precision: str
    label: str
    score: float
    card_label: str
    card_score: float
    card_gap: float
    difference: float


def tolerance_of(precision: str | None, stated: float | None = None) -> Tolerance:
    """What holds for rows of a precision; that of bf16 if release 0.1 did not say which.

    Args:
        precision: of the rows.
        stated: ``--tolerance``, which every row must keep.
    """
    if stated is not None:
        return Tolerance(stated, stated)
    return TOLERANCES.get(str(precision), TOLERANCES["bf16"])


def compare(row: Mapping[str, Any], card: np.ndarray, classes: Sequence[str]) -> Compared:
    """Compares a row with the card's scores.

    Args:
        row: of the output.
        card: the card's scores, shape ``(num_classes,)``.
        classes: in the order of the scores.
    """
    index = dict(zip(classes, range(len(classes)), strict=True))
    best = int(card.argmax())
    of_label = float(card[index[row["label"]]]) if row["label"] in index else 0.0
    ours = [row[name] for name in ("score", *score_columns(classes))]
    differences = np.abs(np.array(ours, float) - [of_label, *card])
    differences = np.nan_to_num(differences, nan=1.0)  # a missing score is as wrong as can be
    return Compared(
        path=row["path"],
        start=row["start"],
        precision=row["precision"] or "unknown",
        label=row["label"],
        score=row["score"],
        card_label=classes[best],
        card_score=float(card[best]),
        card_gap=float(card[best]) - of_label,
        difference=float(differences.max()),
    )


def beyond(compared: Sequence[Compared], tolerance: Tolerance) -> list[Compared]:
    """The rows of one precision that differ by more than they may, the worst first.

    A row has another label only where the card's scores of the two labels are further apart than
    both may be off.
    """
    unusual = sum(row.difference > tolerance.usual for row in compared)
    few = unusual <= math.ceil(len(compared) / _ROWS_BEYOND)
    most = tolerance.largest if few else tolerance.usual
    found = [
        row for row in compared if row.difference > most or row.card_gap > 2 * tolerance.largest
    ]
    return sorted(found, key=lambda row: row.difference, reverse=True)
