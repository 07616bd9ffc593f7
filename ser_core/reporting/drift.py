"""Two tables of labels → how much their distributions differ, and whether that is chance."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from ser_core.reporting.changes import changes
from ser_core.reporting.distances import (
    chi_squared,
    in_quantiles,
    jensen_shannon_distance,
    population_stability_index,
)
from ser_core.reporting.distributions import MEASURES, histogram, histograms_by
from ser_core.reporting.label_table import LabelTable, quoted
from ser_core.reporting.summary import by_slice

# The usual reading of the population stability index (Siddiqi 2006, "Credit Risk Scorecards").
_MODERATE, _LARGE = 0.1, 0.25
_ERROR_RATE = 0.01  # probability that two samples of one corpus differ in any of the comparisons
_FEWEST_ROWS = 20  # in each of two slices that are compared
_FINE_BINS, _FINE_BINS_OF_SLICES = 2000, 200  # from which bins that are filled evenly are made
_MOSTLY = 0.5  # of the rows have a value that both tables have, for their values to be compared
_FEW_VALUES = 20  # of a column in the baseline: each would be missed
_MEASURES_OF_SLICES = ("score", "duration")
_LOG_SCALE = frozenset({"duration"})
_VERDICTS = ("none", "moderate", "large")
MEANINGS = {
    "none": "No drift: the difference is small, or samples of one corpus differ as much by chance.",
    "in part": "Drift in part of the corpus: labels, scores or durations of some parts have moved.",
    "moderate": "Moderate drift: the distribution has moved; look at it before you rely on trends.",
    "large": "Large drift: these are different recordings, or labels of a different kind.",
}


@dataclass(frozen=True)
class Comparison:
    """A distribution in the baseline and now.

    Attributes:
        measure: what is compared: a column.
        slice: the column that divides the corpus; None for all of it.
        value: of that column.
        baseline_rows: that have the measure.
        rows: that have it now.
        psi: population stability index.
        js: Jensen-Shannon distance, base 2: 0 for equal distributions, 1 for disjoint ones.
        p_value: of the chi-squared test that both are samples of one distribution.
        verdict: a key of `MEANINGS`.
    """

    measure: str
    slice: str | None
    value: str | None
    baseline_rows: int
    rows: int
    psi: float
    js: float
    p_value: float
    verdict: str = "none"

    @property
    def name(self) -> str:
        """What is compared, in words."""
        where = "" if self.slice is None else f" of {self.slice} {self.value}"
        return f"{self.measure}{where}"


def summarize_drift(
    baseline: LabelTable,
    current: LabelTable,
    name: str,
    components: Sequence[tuple[np.ndarray, np.ndarray]] = (),
) -> dict[str, Any]:
    """How much two tables of labels differ, as JSON takes it.

    Args:
        baseline: the earlier rows.
        current: the rows to judge.
        name: of the baseline, for the reader.
        components: of embeddings, as `embeddings.component_counts` returns them.
    """
    baseline_rows = baseline.num_rows
    comparable = baseline_rows and current.num_rows
    comparisons = compare(baseline, current, components) if comparable else []
    verdict = _overall(comparisons)
    return {
        "baseline": name,
        "baseline_rows": baseline_rows,
        "verdict": verdict,
        "meaning": MEANINGS[verdict] if comparable else "There is nothing to compare.",
        "drifted": [c.name for c in comparisons if c.verdict != "none"],
        "comparisons": [
            {"name": c.name, **vars(c), "meaning": MEANINGS[c.verdict]} for c in comparisons
        ],
        **changes(baseline, current),
    }


def _overall(comparisons: Sequence[Comparison]) -> str:
    """The gravest verdict on the whole corpus, or that only parts of it have drifted."""
    whole = [c.verdict for c in comparisons if c.slice is None]
    gravest = max(whole, key=_VERDICTS.index, default="none")
    if gravest == "none" and any(c.verdict != "none" for c in comparisons):
        return "in part"
    return gravest


def compare(
    baseline: LabelTable,
    current: LabelTable,
    components: Sequence[tuple[np.ndarray, np.ndarray]] = (),
) -> list[Comparison]:
    """Compares labels, measures and the parts of two corpora, overall and per slice.

    Args:
        baseline: the earlier rows.
        current: the rows to judge.
        components: of embeddings, counts of both by bin.

    Returns:
        What differs most comes first.
    """
    counted = [
        *_labels(baseline, current),
        *_measures(baseline, current),
        *_compositions(baseline, current),
        *_slices(baseline, current),
        *((f"embedding {number}", None, None, both) for number, both in enumerate(components, 1)),
    ]
    compared = [_compared(*names) for names in counted]
    threshold = _ERROR_RATE / max(1, len(compared))  # Bonferroni's correction
    judged = [_judged(comparison, threshold) for comparison in compared]
    return sorted(judged, key=lambda c: (-_VERDICTS.index(c.verdict), c.slice is not None, -c.psi))


Counted = tuple[str, str | None, str | None, tuple[np.ndarray, np.ndarray]]


def _labels(baseline: LabelTable, current: LabelTable) -> Iterator[Counted]:
    for column in ("label", "status"):
        yield column, None, None, _value_counts(baseline, current, (column, column))


def _measures(baseline: LabelTable, current: LabelTable) -> Iterator[Counted]:
    for measure in MEASURES:
        if baseline.has(measure.column) and current.has(measure.column):
            yield measure.column, None, None, _quantile_counts(baseline, current, measure.column)


def _divisors(baseline: LabelTable, current: LabelTable) -> list[str]:
    """The columns that both have and that divide one of them: the other may have one value left."""
    both = (name for name in baseline.divisors if name in current.divisors)
    return [name for name in both if name in baseline.slices or name in current.slices]


def _compositions(baseline: LabelTable, current: LabelTable) -> Iterator[Counted]:
    """How many rows each value of a slicing column has: speakers that left, rates that changed.

    A column whose values are mostly new, such as a date, tells the tables apart by design; so does
    one of whose many values few occur in a night, such as a caller.
    """
    columns = ("sampling_rate", "sampling_rate")
    yield "sampling_rate", None, None, _value_counts(baseline, current, columns)
    for name in _divisors(baseline, current):
        columns = (baseline.divisors[name], current.divisors[name])
        before, now = _value_counts(baseline, current, columns)
        both = (before > 0) & (now > 0)
        known = now[both].sum() >= _MOSTLY * now.sum()
        occur = before[both].sum() >= _MOSTLY * before.sum() or (before > 0).sum() <= _FEW_VALUES
        if known and occur and name != "sampling_rate":
            yield name, None, None, (before, now)


def _slices(baseline: LabelTable, current: LabelTable) -> Iterator[Counted]:
    """Labels, scores and durations within each part of the corpus that both have."""
    tables, columns = (baseline, current), _divisors(baseline, current)
    for column in columns:
        for value, counts in _parts(*(_labels_by(table, column) for table in tables)):
            yield "label", column, value, counts
    for measure in _MEASURES_OF_SLICES:
        if not all(table.has(measure) for table in tables):
            continue
        expression = _expression(measure)
        edges = _edges(baseline, current, expression, _FINE_BINS_OF_SLICES)
        for column in columns:
            found = (histograms_by(t, t.divisors[column], expression, edges) for t in tables)
            for value, counts in _parts(*found):
                yield measure, column, value, in_quantiles(*counts)


def _labels_by(table: LabelTable, column: str) -> pd.DataFrame:
    return by_slice(table, column).pivot_table(
        index="value", columns="label", values="rows", aggfunc="sum", fill_value=0
    )


def _parts(
    before: pd.DataFrame, now: pd.DataFrame
) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray]]]:
    """The counts of each part, a row of both tables, that has enough rows."""
    before, now = before.align(now, fill_value=0)
    enough = np.minimum(before.sum(axis=1), now.sum(axis=1)) >= _FEWEST_ROWS
    for value in before.index[enough]:
        yield str(value), tuple(t.loc[value].to_numpy(np.float64) for t in (before, now))


def _value_counts(
    baseline: LabelTable, current: LabelTable, columns: tuple[str, str]
) -> tuple[np.ndarray, np.ndarray]:
    """How many rows have each value of a column, which is called so in the one and the other."""
    found = [
        table.frame(
            f"select coalesce(cast({column} as varchar), '') as value, count(*) as n"
            " from {rows} group by 1"
        ).set_index("value")["n"]
        for table, column in zip((baseline, current), columns, strict=True)
    ]
    before, now = found[0].align(found[1], fill_value=0)
    return before.to_numpy(np.float64), now.to_numpy(np.float64)


def _quantile_counts(
    baseline: LabelTable, current: LabelTable, column: str
) -> tuple[np.ndarray, np.ndarray]:
    """Both in the bins that the baseline fills evenly."""
    expression = _expression(column)
    edges = _edges(baseline, current, expression, _FINE_BINS)
    return in_quantiles(*(histogram(table, expression, edges) for table in (baseline, current)))


def _expression(column: str) -> str:
    return f"ln({quoted(column)} + 0.01)" if column in _LOG_SCALE else quoted(column)


def _edges(baseline: LabelTable, current: LabelTable, expression: str, num_bins: int) -> np.ndarray:
    """Of bins of equal width, within which all values of both tables lie."""
    ends = [
        table.record(f"select min({expression}) as low, max({expression}) as high from {{rows}}")
        for table in (baseline, current)
    ]
    low, high = min(end["low"] for end in ends), max(end["high"] for end in ends)
    return np.linspace(low, max(high, low + 1e-9), num_bins + 1)


def _compared(
    measure: str,
    column: str | None,
    value: str | None,
    counts: tuple[np.ndarray, np.ndarray],
) -> Comparison:
    before, now = counts
    return Comparison(
        measure,
        column,
        value,
        int(before.sum()),
        int(now.sum()),
        population_stability_index(before, now),
        jensen_shannon_distance(before, now),
        chi_squared(before, now),
    )


def _judged(comparison: Comparison, threshold: float) -> Comparison:
    verdict = "none"
    if comparison.p_value < threshold and comparison.psi >= _MODERATE:
        verdict = "large" if comparison.psi >= _LARGE else "moderate"
    return replace(comparison, verdict=verdict)
