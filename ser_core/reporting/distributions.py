"""Columns of labels → histograms, in one pass over the rows each."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ser_core.reporting.label_table import LabelTable, quoted


@dataclass(frozen=True)
class Measure:
    """A number that rows have, and how it is shown.

    Attributes:
        column: of the labels.
        title: of its distribution, with the unit.
        low: lower end of the histogram; what lies below counts there.
        high: upper end, or None for the 99th percentile.
        bins: of equal width.
        meaning: in a sentence.
    """

    column: str
    title: str
    low: float
    high: float | None
    bins: int
    meaning: str


MEASURES = (
    Measure("score", "score", 0, 1, 50, "The probability of the label."),
    Measure("margin", "margin", 0, 1, 50, "The score less that of the second most probable class."),
    Measure(
        "entropy",
        "entropy of the scores",
        0,
        1,
        50,
        "0 where one class has all of the probability, 1 where all classes have the same.",
    ),
    Measure("duration", "duration, s", 0, None, 40, "Of the whole recording."),
    Measure("rms_db", "level, dBFS", -80, 0, 40, "The root mean square of the samples."),
    Measure("peak", "peak", 0, 1, 40, "The largest sample; 1 is full scale."),
    Measure(
        "level_range_db",
        "range of the level, dB",
        0,
        80,
        40,
        "Between the loud and the quiet moments of a recording; of noise it is a few dB.",
    ),
    Measure("clipped_share", "clipped share", 0, 0.1, 40, "Of the samples."),
)


def chance(measure: str, num_classes: int) -> float | None:
    """What a model that cannot tell its classes apart would have; None if that says nothing."""
    return {"score": 1 / num_classes, "margin": 0.0, "entropy": 1.0}.get(measure)


@dataclass(frozen=True)
class Distribution:
    """A histogram and its percentiles.

    Attributes:
        edges: shape ``(num_bins + 1,)``.
        counts: shape ``(num_bins,)``.
        percentiles: by "5", "25", "50", "75" and "95", as JSON has only texts as names.
    """

    edges: np.ndarray
    counts: np.ndarray
    percentiles: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "edges": self.edges.tolist(),
            "counts": self.counts.tolist(),
            "percentiles": self.percentiles,
        }


_PERCENTILES = (5, 25, 50, 75, 95)


def distribution(table: LabelTable, measure: Measure) -> Distribution | None:
    """The distribution of a measure over the rows that have it; None if none has."""
    if not table.has(measure.column):
        return None
    shares = [*(p / 100 for p in _PERCENTILES), 0.99]
    column = quoted(measure.column)
    found = table.record(f"select approx_quantile({column}, {shares}) as q from {{rows}}")
    high = measure.high
    if high is None:
        high = max(found["q"][-1], measure.low + 1e-3)
    edges = np.linspace(measure.low, high, measure.bins + 1)
    percentiles = dict(zip(map(str, _PERCENTILES), map(float, found["q"]), strict=False))
    return Distribution(edges, histogram(table, column, edges), percentiles)


def histogram(table: LabelTable, expression: str, edges: np.ndarray) -> np.ndarray:
    """How many rows are in each bin of equal width; what lies outside is in the outermost."""
    found = table.frame(
        f"select {_bin(expression, edges)} as bin, count(*) as num_rows from {{rows}}"
        f" where {expression} is not null group by bin"
    )
    counts = np.zeros(len(edges) - 1, np.int64)
    counts[found["bin"]] = found["num_rows"]
    return counts


def histograms_by(
    table: LabelTable, column: str, expression: str, edges: np.ndarray
) -> pd.DataFrame:
    """A histogram for each value of a column: a row each, with a column for each bin in use."""
    found = table.frame(
        f"select coalesce({column}, '') as value, {_bin(expression, edges)} as bin,"
        f" count(*) as num_rows from {{rows}} where {expression} is not null group by value, bin"
    )
    return found.pivot_table(index="value", columns="bin", values="num_rows", fill_value=0)


def _bin(expression: str, edges: np.ndarray) -> str:
    """SQL for the bin that a value lies in."""
    width = float(edges[1] - edges[0])
    position = f"floor(({expression} - {float(edges[0])}) / {width})"
    return f"cast(greatest(0, least({len(edges) - 2}, {position})) as integer)"
