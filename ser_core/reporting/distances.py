"""Two histograms → how much they differ, and whether by chance."""

import numpy as np

_QUANTILES = 10  # bins of a measure, which the baseline fills evenly
_SMOOTHING = 0.5  # rows added to each bin: the index of an empty one is infinite
_FEWEST_EXPECTED = 5  # rows of a bin, in the smaller table, for the chi-squared test (Cochran 1954)


def in_quantiles(baseline: np.ndarray, current: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts in fine bins → in about ten, which the baseline fills evenly.

    Args:
        baseline: counts by bin.
        current: counts by bin, of the same shape.

    >>> [counts.tolist() for counts in in_quantiles(np.array([3, 0, 0, 3]), np.array([1, 1, 1, 1]))]
    [[3, 0, 3], [1, 2, 1]]
    """
    starts = quantile_starts(baseline)
    return np.add.reduceat(baseline, starts), np.add.reduceat(current, starts)


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


def chi_squared(baseline: np.ndarray, current: np.ndarray) -> float:
    """The p-value of the test that both are samples of one distribution; 1 if nothing can be told.

    Args:
        baseline: counts by bin.
        current: counts by bin, of the same shape.
    """
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
