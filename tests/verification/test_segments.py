"""The windows of a recording, as docs/output.md describes them."""

import numpy as np
import pytest

from ser_core.verification.origin import Cutting
from ser_core.verification.segments import RATE, expected_scores, window_starts


@pytest.mark.parametrize(
    ("seconds", "hop", "starts"),
    [
        (2.0, 6.0, [0]),
        (6.0, 6.0, [0]),
        (12.0, 6.0, [0, 6]),
        (13.0, 6.0, [0, 6, 12]),
        (13.0, 3.0, [0, 3, 6, 9]),
        (12.0, 3.0, [0, 3, 6]),
        (20.0, 8.0, [0, 8, 16]),
        (15.0, 8.0, [0, 8]),
    ],
)
def test_windows(seconds, hop, starts):
    assert [at / RATE for at in window_starts(round(seconds * RATE), hop)] == starts


def seen(waveform):
    """Stands for the card: which samples it was given."""
    return np.array([waveform[0], len(waveform)]) / RATE


@pytest.mark.parametrize(
    ("cutting", "stretch", "expected"),
    [
        (Cutting(), (0.0, None), (0, 20)),  # the card cuts at 6 s itself
        (Cutting(), (3.0, 5.5), (3, 2.5)),
        (Cutting("all", "segment"), (12.0, 18.0), (12, 6)),
        (Cutting("all"), (0.0, None), ((0 + 6 + 12) * 6 / 20 + 18 * 2 / 20, (3 * 36 + 4) / 20)),
        (Cutting("all"), (10.0, 17.0), ((10 * 6 + 16 * 1) / 7, 37 / 7)),
    ],
)
def test_what_the_card_is_given(cutting, stretch, expected):
    waveform = np.arange(20 * RATE)
    np.testing.assert_allclose(expected_scores(waveform, stretch, cutting, seen), expected)
