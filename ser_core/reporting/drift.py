"""Two tables of labels → how much their distributions differ, and whether that is chance."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ser_core.reporting.changes import changes
from ser_core.reporting.distributions import MEASURES, histogram
from ser_core.reporting.label_table import LabelTable, quoted
from ser_core.reporting.summary import by_slice

# The usual reading of the population stability index (Siddiqi 2006, "Credit Risk Scorecards").
_MODERATE, _LARGE = 0.1, 0.25
_ERROR_RATE = 0.01  # probability that two samples of one corpus differ in any of the comparisons
_FEWEST_ROWS = 20  # in each of two slices that are compared
_QUANTILES = 10  # bins of a measure, which the baseline fills evenly
_FINE_BINS = 2000  # from which they are made
_SMOOTHING = 0.5  # rows added to each bin: the index of an empty one is infinite
_MOSTLY = 0.5  # of the rows of both have a value in common, for their values to be compared
_FEWEST_EXPECTED = 5  # rows of a bin, in the smaller table, for the chi-squared test (Cochran 1954)
_LOG_SCALE = frozenset({"duration"})
_VERDICTS = ("none", "moderate", "large")
MEANINGS = {
    "none": "No drift: the difference is small, or samples of one corpus differ as much by chance.",
    "in part": "Drift in part of the corpus: the labels of some of its parts have moved.",
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
        "comparisons": [{"name": c.name, **vars(c)} for c in comparisons],
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


def _compositions(baseline: LabelTable, current: LabelTable) -> Iterator[Counted]:
    """How many rows each value of a slicing column has: speakers that left, rates that changed.

    A column whose values are mostly new, such as a date or a caller, tells the tables apart by
    design.
    """
    columns = ("sampling_rate", "sampling_rate")
    yield "sampling_rate", None, None, _value_counts(baseline, current, columns)
    for name in baseline.slices.keys() & current.slices.keys() - {"sampling_rate"}:
        columns = (baseline.slices[name], current.slices[name])
        before, now = _value_counts(baseline, current, columns)
        both = (before > 0) & (now > 0)
        if all(side[both].sum() >= _MOSTLY * side.sum() for side in (before, now)):
            yield name, None, None, (before, now)


def _slices(baseline: LabelTable, current: LabelTable) -> Iterator[Counted]:
    """The labels within each part of the corpus that both have."""
    for column in (name for name in current.slices if name in baseline.slices):
        tables = [
            by_slice(table, column).pivot_table(
                index="value", columns="label", values="rows", aggfunc="sum", fill_value=0
            )
            for table in (baseline, current)
        ]
        before, now = tables[0].align(tables[1], fill_value=0)
        for value in before.index:
            counts = before.loc[value].to_numpy(np.float64), now.loc[value].to_numpy(np.float64)
            if min(side.sum() for side in counts) >= _FEWEST_ROWS:
                yield "label", column, str(value), counts


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
    expression = f"ln({quoted(column)} + 0.01)" if column in _LOG_SCALE else quoted(column)
    ends = [
        table.record(f"select min({expression}) as low, max({expression}) as high from {{rows}}")
        for table in (baseline, current)
    ]
    low, high = min(end["low"] for end in ends), max(end["high"] for end in ends)
    edges = np.linspace(low, max(high, low + 1e-9), _FINE_BINS + 1)
    before, now = (histogram(table, expression, edges) for table in (baseline, current))
    starts = quantile_starts(before)
    return np.add.reduceat(before, starts), np.add.reduceat(now, starts)


def quantile_starts(counts: np.ndarray) -> np.ndarray:
    """Where bins begin that each have about a tenth of the rows; a bin with more is by itself.

    >>> quantile_starts(np.array([0, 100, 0, 0])).tolist()
    [0, 1, 2]
    """
    reached = np.cumsum(counts) / counts.sum()
    cuts = np.searchsorted(reached, np.arange(1, _QUANTILES) / _QUANTILES) + 1
    heavy = np.flatnonzero(counts * _QUANTILES >= counts.sum())
    starts = np.unique(np.concatenate([[0], cuts, heavy, heavy + 1]))
    return starts[starts < len(counts)]


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
        _chi_squared(before, now),
    )


def population_stability_index(baseline: np.ndarray, current: np.ndarray) -> float:
    """PSI: the sum of (q - p) ln(q / p) over the bins, p and q the shares of each.

    Half a row is added to each bin, so that an empty one does not make it infinite.

    Args:
        baseline: counts by bin.
        current: counts by bin, of the same shape.

    >>> population_stability_index(np.array([50, 50]), np.array([50, 50]))
    0.0
    """
    p, q = ((n + _SMOOTHING) / (n + _SMOOTHING).sum() for n in (baseline, current))
    return float(((q - p) * np.log(q / p)).sum())


def jensen_shannon_distance(baseline: np.ndarray, current: np.ndarray) -> float:
    """The square root of the Jensen-Shannon divergence, base 2; 0 where there are no rows.

    >>> round(jensen_shannon_distance(np.array([10, 0]), np.array([0, 10])), 6)
    1.0
    """
    from scipy.spatial.distance import jensenshannon  # an optional library: see libraries.py

    if not (baseline.sum() and current.sum()):
        return 0.0
    return float(np.nan_to_num(jensenshannon(baseline, current, base=2)))


def _chi_squared(baseline: np.ndarray, current: np.ndarray) -> float:
    from scipy.stats import chi2_contingency

    table = _pooled(np.stack([baseline, current]))
    if table.shape[1] < 2 or not table.sum(axis=1).all():
        return 1.0
    return float(chi2_contingency(table, correction=False).pvalue)


def _pooled(table: np.ndarray) -> np.ndarray:
    """Counts whose bins with few expected rows are one bin, as the test assumes some in each."""
    totals = table.sum(axis=0)
    expected = totals * table.sum(axis=1).min() / max(1, totals.sum())
    few = expected < _FEWEST_EXPECTED
    pooled = np.column_stack([table[:, ~few], table[:, few].sum(axis=1)])
    return pooled[:, pooled.sum(axis=0) > 0]


def _judged(comparison: Comparison, threshold: float) -> Comparison:
    verdict = "none"
    if comparison.p_value < threshold and comparison.psi >= _MODERATE:
        verdict = "large" if comparison.psi >= _LARGE else "moderate"
    return replace(comparison, verdict=verdict)
