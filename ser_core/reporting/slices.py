"""How the parts of a corpus differ from the rest of it."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

_NONE = pd.DataFrame(
    columns=["slice", "value", "label", "rows", "of", "share", "rest_share", "rest", "hours"]
)
_ERROR_RATE = 0.05  # of all intervals of a report together


def deviations(counts: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The share of each label in each slice, against the rest of the corpus.

    The intervals hold together with 95 %: each is made wider by Bonferroni's correction, as among
    hundreds of slices some deviate by chance. They treat recordings as independent.

    Args:
        counts: a table by the column that divides the corpus, with ``value``, ``label`` and
            ``rows``, ``hours`` and ``mean_score``, as `summary.by_slice` returns it.

    Returns:
        Columns ``slice``, ``value``, ``label``, ``rows`` of that label, ``of``, ``share``,
        ``rest_share``, ``difference``, ``low``, ``high``, ``hours`` and ``mean_score``; the
        differences that are certain to be large come first.
    """
    tables = [_shares(column, table) for column, table in counts.items()]
    found = pd.concat(tables, ignore_index=True) if tables else _NONE.copy()
    found["difference"] = found["share"] - found["rest_share"]
    share, size, rest_share, rest = (
        found[name].to_numpy(np.float64) for name in ("share", "of", "rest_share", "rest")
    )
    error = _ERROR_RATE / max(1, len(found))
    found["low"], found["high"] = difference_interval(share, size, rest_share, rest, error)
    certain = np.where(
        found["low"] * found["high"] > 0, np.minimum(found["low"].abs(), found["high"].abs()), 0
    )
    order = np.lexsort((-found["difference"].abs(), -certain))
    return found.drop(columns="rest").iloc[order].reset_index(drop=True)


def _shares(column: str, counts: pd.DataFrame) -> pd.DataFrame:
    """A row per value and label, also where there is none."""
    table = counts.pivot_table(
        index="value", columns="label", values="rows", aggfunc="sum", fill_value=0
    )
    rows = table.to_numpy(np.float64)
    size, in_all = rows.sum(axis=1, keepdims=True), rows.sum(axis=0)
    rest = rows.sum() - size
    found = pd.DataFrame(
        {
            "slice": column,
            "value": np.repeat(table.index.to_numpy(object), rows.shape[1]),
            "label": np.tile(table.columns.to_numpy(object), rows.shape[0]),
            "rows": rows.ravel().astype(np.int64),
            "of": np.broadcast_to(size, rows.shape).ravel().astype(np.int64),
            "share": (rows / size).ravel(),
            "rest_share": ((in_all - rows) / np.maximum(rest, 1)).ravel(),
            "rest": np.broadcast_to(rest, rows.shape).ravel(),
        }
    )
    details = counts[["value", "label", "hours", "mean_score"]]
    return found[found["rest"] > 0].merge(details, how="left", on=["value", "label"])


def difference_interval(
    share: np.ndarray, size: np.ndarray, other: np.ndarray, other_size: np.ndarray, error: float
) -> tuple[np.ndarray, np.ndarray]:
    """The interval of a difference of two shares, by Newcombe 1998, method 10.

    Args:
        share: of the first group, as arrays of one shape.
        size: of the first group.
        other: share of the second group.
        other_size: of the second group.
        error: probability that the true difference lies outside.

    >>> low, high = difference_interval(*map(np.array, (56 / 70, 70, 48 / 80, 80)), 0.05)
    >>> round(float(low), 4), round(float(high), 4)
    (0.0524, 0.3339)
    """
    low, high = _wilson(share, size, error)
    other_low, other_high = _wilson(other, other_size, error)
    difference = share - other
    below = np.sqrt((share - low) ** 2 + (other_high - other) ** 2)
    above = np.sqrt((high - share) ** 2 + (other - other_low) ** 2)
    return difference - below, difference + above


def _wilson(share: np.ndarray, size: np.ndarray, error: float) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's score interval of a share."""
    from scipy.stats import norm  # an optional library: see libraries.py

    z = norm.isf(error / 2)
    middle = (share + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * np.sqrt(share * (1 - share) / size + z**2 / (4 * size**2))
    return middle - half, middle + half
