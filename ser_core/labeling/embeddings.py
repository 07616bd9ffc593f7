"""Embeddings as arrays and as the column of a table, whose rows may have none."""

import numpy as np
import pyarrow as pa


def embedding_column(embeddings: np.ndarray, has_embedding: np.ndarray) -> pa.FixedSizeListArray:
    """A column of fixed-size lists.

    Args:
        embeddings: float16, of the rows that have one, shape ``(num_embeddings, size)``.
        has_embedding: of all rows, shape ``(num_rows,)``; the others are null.
    """
    size = embeddings.shape[1]
    values = np.zeros((len(has_embedding), size), np.float16)
    values[has_embedding] = embeddings
    return pa.FixedSizeListArray.from_arrays(
        pa.array(values.ravel()), size, mask=pa.array(~has_embedding)
    )


def embedding_matrix(column: pa.ChunkedArray) -> np.ndarray:
    """The embeddings of a column without nulls: float16, shape ``(num_rows, size)``."""
    values: np.ndarray = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(column), column.type.list_size)
