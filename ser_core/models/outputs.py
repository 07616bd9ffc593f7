"""What a network computes of each recording; it imports no torch."""

from typing import NamedTuple

import numpy as np


class Outputs(NamedTuple):
    """What is computed of each recording.

    Attributes:
        scores: the probability of each class, float32 of shape ``(num_recordings, num_labels)``.
        embeddings: what the head gets, the mean of the last layer's frames: float16 of shape
            ``(num_recordings, hidden_size)``; None if they were not asked for.
    """

    scores: np.ndarray
    embeddings: np.ndarray | None = None


def as_float16(embeddings: np.ndarray) -> np.ndarray:
    """Embeddings in float16; what is beyond its range becomes its largest number.

    >>> as_float16(np.float32([1e6, 0.5])).tolist()
    [65504.0, 0.5]
    """
    largest = np.finfo(np.float16).max
    clipped: np.ndarray = np.clip(embeddings, -largest, largest).astype(np.float16)
    return clipped
