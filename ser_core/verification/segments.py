"""The scores that a row should have, by the sentences of docs/output.md; it shares no code."""

from collections.abc import Callable

import numpy as np

from ser_core.verification.origin import Cutting

RATE = 16_000  # Hz
WINDOW = 6 * RATE  # samples

Scores = Callable[[np.ndarray], np.ndarray]


def expected_scores(
    waveform: np.ndarray, stretch: tuple[float, float | None], cutting: Cutting, scores: Scores
) -> np.ndarray:
    """The scores of a row.

    Args:
        waveform: of the whole file, or of a channel of it, at 16 kHz.
        stretch: of the row, s: a segment's, or that of a recording in its file.
        cutting: how the recording became rows.
        scores: the card's, of a waveform of which it takes the first 6 s.
    """
    start, end = stretch
    waveform = waveform[round(start * RATE) : None if end is None else round(end * RATE)]
    if cutting.rows == "segment" or cutting.segments == "first":
        return scores(waveform)
    windows = [waveform[at : at + WINDOW] for at in window_starts(len(waveform), cutting.hop)]
    mean: np.ndarray = np.average(
        [scores(window) for window in windows], axis=0, weights=[len(each) for each in windows]
    )
    return mean


def window_starts(num_samples: int, hop: float) -> list[int]:
    """Where the windows of a recording begin; the last one is the first that reaches the end.

    >>> [at / RATE for at in window_starts(13 * RATE, 3.0)]
    [0.0, 3.0, 6.0, 9.0]
    """
    starts = list(range(0, num_samples, round(hop * RATE)))
    reaching = [number for number, at in enumerate(starts) if at + WINDOW >= num_samples]
    return starts[: reaching[0] + 1] if reaching else starts
