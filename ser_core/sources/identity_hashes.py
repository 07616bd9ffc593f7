"""Recordings as hashes of their identities, eight bytes each, and sorted arrays of them as sets."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa


def hashes(identities: Sequence[str] | pa.ChunkedArray) -> np.ndarray:
    """A hash of each recording's identity, which is the `uri` of its rows.

    Hashes have eight bytes: among 10 million recordings, two collide with probability 3e-6.
    """
    if isinstance(identities, pa.ChunkedArray):
        identities = identities.to_numpy(zero_copy_only=False)
    return pd.util.hash_array(np.asarray(identities, object))


def is_in(values: np.ndarray, sorted_values: np.ndarray) -> np.ndarray:
    """Which values are among others, by binary search.

    >>> is_in(np.array([3, 1, 9]), np.array([1, 2, 3]))
    array([ True,  True, False])
    """
    if not len(sorted_values):
        return np.zeros(len(values), bool)
    at = np.searchsorted(sorted_values, values).clip(max=len(sorted_values) - 1)
    found: np.ndarray = sorted_values[at] == values
    return found
