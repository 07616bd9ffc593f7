"""Segments are those of the whole recording resampled, however the samples come."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_core.audio.segments import Segmentation, Segmenter, Stretch

RATE, WINDOW = 16_000, 96_000


def cut(samples, stretches, how, sizes=(10**9,), restart_after=None):
    """The segments of each stretch, with the samples added in pieces of these sizes in turn."""
    found = [[] for _ in stretches]
    segmenter = Segmenter(stretches, how, lambda number, segment: found[number].append(segment))
    for attempt in range(1 + (restart_after is not None)):
        position, turn = 0, 0
        while position < samples.shape[1]:
            if attempt == 0 and restart_after is not None and turn == restart_after:
                segmenter.restart()
                break
            size = sizes[turn % len(sizes)]
            segmenter.add(samples[:, position : position + size])
            position, turn = position + size, turn + 1
        else:
            segmenter.finish()
            break
    return found


def expected(length, hop):
    """Starts and ends of windows: the last is the first that reaches the end."""
    start, windows = 0, []
    while start < length and (not windows or windows[-1][1] < length):
        windows.append((start, min(start + WINDOW, length)))
        start += hop
    return windows


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    length=st.integers(1, 5 * WINDOW) | st.sampled_from([WINDOW, 2 * WINDOW, 3 * WINDOW + 1]),
    hop=st.sampled_from([1.0, 2.5, 3.0, 6.0, 7.0, 20.0]),
    sizes=st.lists(st.integers(1_000, 200_000), min_size=1, max_size=4),
    channels=st.integers(1, 2),
)
def test_windows(length, hop, sizes, channels):
    samples = np.random.default_rng(length).standard_normal((channels, length), np.float32)
    how = Segmentation("all", hop, each_channel=channels > 1)
    (segments,) = cut(samples, [Stretch()], how, sizes)
    windows = expected(length, round(hop * RATE))
    assert len(segments) == channels * len(windows)
    for number, segment in enumerate(segments):
        start, end = windows[number // channels]
        assert (segment.start, segment.end) == (start / RATE, end / RATE)
        assert segment.channel == (number % channels if channels > 1 else None)
        np.testing.assert_array_equal(segment.waveform, samples[number % channels, start:end])


@pytest.mark.parametrize("length", [1, WINDOW - 1, WINDOW, WINDOW + 1, 3 * WINDOW])
def test_the_first_window(length):
    samples = np.arange(length, dtype=np.float32)[None]
    (segments,) = cut(samples, [Stretch()], Segmentation("first"), [50_000])
    (segment,) = segments
    np.testing.assert_array_equal(segment.waveform, samples[0, :WINDOW])


def test_stretches_may_overlap_and_reach_behind_the_end():
    samples = np.arange(20 * RATE, dtype=np.float32)[None]
    stretches = [Stretch(1.5, 4.0), Stretch(3.0, 13.0), Stretch(18.0, 25.0), Stretch(20.0, 21.0)]
    first, second, third, behind = cut(samples, stretches, Segmentation("all"), [7_001])
    assert [(s.start, s.end) for s in first] == [(1.5, 4.0)]
    assert [(s.start, s.end) for s in second] == [(3.0, 9.0), (9.0, 13.0)]
    assert [(s.start, s.end) for s in third] == [(18.0, 20.0)]
    assert behind == []
    np.testing.assert_array_equal(second[1].waveform, samples[0, 9 * RATE : 13 * RATE])


@pytest.mark.parametrize("restart_after", [1, 5])
def test_what_was_emitted_is_not_emitted_again_after_a_restart(restart_after):
    samples = np.arange(40 * RATE, dtype=np.float32)[None]
    how = Segmentation("all")
    once = cut(samples, [Stretch(), Stretch(2.0, 9.0)], how)
    again = cut(samples, [Stretch(), Stretch(2.0, 9.0)], how, [100_000], restart_after)
    for expected_segments, segments in zip(once, again, strict=True):
        assert [s[:2] for s in segments] == [s[:2] for s in expected_segments]


def test_few_samples_are_kept():
    segmenter = Segmenter([Stretch()], Segmentation("all"), lambda *_: None)
    for _ in range(100):
        segmenter.add(np.zeros((1, 65_536), np.float32))
    assert segmenter._cutters[0]._kept.size < 2 * WINDOW
