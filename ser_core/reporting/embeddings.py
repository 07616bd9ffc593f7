"""Embeddings of two outputs → counts along their principal components; it judges nothing."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ser_core.labeling.current_rows import Labels
from ser_core.labeling.embeddings import embedding_matrix
from ser_core.labeling.row_sample import draw_rows
from ser_core.schema import EMBEDDING, EMBEDDING_SIZE
from ser_core.settings import SEED

_COMPONENTS = 5
_MOST_ROWS = 5_000
_BINS = 10  # which the baseline fills evenly


def sample(labels: Labels, keep: Callable[[pa.Table], pa.ChunkedArray] | None = None) -> np.ndarray:
    """Embeddings of up to 5,000 rows, each drawn with the same probability.

    Args:
        labels: an output.
        keep: which rows of a table with ``labeled_at`` are meant; all by default.

    Returns:
        float32, shape ``(num_rows, hidden_size)``; no rows where there are no embeddings.
    """
    if EMBEDDING not in labels.schema.names:
        return np.empty((0, 0), np.float32)

    def eligible(rows: pa.Table) -> pa.ChunkedArray:
        embedded = pc.is_valid(rows[EMBEDDING_SIZE])
        return embedded if keep is None else pc.and_(embedded, keep(rows))

    drawn = draw_rows(labels, eligible, [EMBEDDING_SIZE, "labeled_at"], _MOST_ROWS, SEED)
    rows = drawn.read(labels, [EMBEDDING])
    return embedding_matrix(rows[EMBEDDING]).astype(np.float32)


def component_counts(
    baseline: np.ndarray, current: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows by their place along the baseline's principal components.

    Args:
        baseline: embeddings, shape ``(num_rows, hidden_size)``.
        current: embeddings of the same size.

    Returns:
        For each component, the counts of both in bins that the baseline fills evenly; nothing
        where either has too few rows or their sizes differ.
    """
    from sklearn.decomposition import PCA  # an optional library: see libraries.py

    if baseline.shape[1:] != current.shape[1:] or min(len(baseline), len(current)) < _BINS:
        return []
    components = min(_COMPONENTS, *baseline.shape)
    fitted = PCA(components, random_state=SEED).fit(baseline)
    before, now = fitted.transform(baseline), fitted.transform(current)
    counts = []
    for number in range(components):
        edges = np.quantile(before[:, number], np.linspace(0, 1, _BINS + 1)[1:-1])
        bins = (np.searchsorted(edges, side[:, number]) for side in (before, now))
        first, second = (np.bincount(each, minlength=_BINS) for each in bins)
        counts.append((first, second))
    return counts
