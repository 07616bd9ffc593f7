"""A set of millions of `file_id`s in little memory; it does not know what is in the files."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from ser_core.sources.identity_hashes import is_in


class FileIds:
    """A set of many `file_id`s in the memory of their 32 bytes each."""

    def __init__(self, arrays: Sequence[pa.ChunkedArray]) -> None:
        self._sorted = np.sort(np.concatenate([np.empty(0, "S32"), *map(_as_bytes, arrays)]))

    def __len__(self) -> int:
        """How many there are; one that was written twice counts twice."""
        return len(self._sorted)

    def contains(self, file_ids: pa.ChunkedArray | pa.Array) -> np.ndarray:
        """Which of these are in the set, as booleans of shape ``(len(file_ids),)``."""
        return is_in(_as_bytes(file_ids), self._sorted)


def _as_bytes(file_ids: pa.ChunkedArray | pa.Array) -> np.ndarray:
    as_bytes: np.ndarray = file_ids.to_numpy(zero_copy_only=False).astype("S32")
    return as_bytes
