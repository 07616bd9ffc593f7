"""Recordings whose rate or channels change midway, as where files were joined."""

import io

import numpy as np
import pytest

from ser_core.audio.constants import SEGMENT_SAMPLES
from ser_core.audio.decode import decode
from tests.audio.encoding import by_command, by_libsndfile, decode_file, encoded, without_total
from tests.fuzz.ogg import with_stream_number


def flac_frames(data: bytes) -> bytes:
    at, last = 4, False
    while not last:
        last = bool(data[at] >> 7)
        at += 4 + int.from_bytes(data[at + 1 : at + 4], "big")
    return data[at:]


@pytest.mark.parametrize("channels", [(1, 2), (2, 1), (6, 1)])
def test_a_flac_whose_channels_change(tmp_path, channels):
    first, second = (encoded(tmp_path, f"{c}.flac", 2, 16000, c) for c in channels)
    path = tmp_path / "spliced.flac"
    path.write_bytes(without_total(first) + flac_frames(second))
    recording = decode_file(path)
    np.testing.assert_array_equal(recording.waveform, by_command(path))
    assert recording.duration == 4


@pytest.mark.parametrize(
    "kinds",
    [
        [(16000, 1), (24000, 1)],
        [(44100, 2), (16000, 2)],
        [(16000, 1), (16000, 2)],
        [(16000, 6), (16000, 1)],
        [(16000, 1), (24000, 2), (16000, 6)],
    ],
)
def test_an_aac_whose_rate_or_channels_change(tmp_path, kinds):
    path = tmp_path / "spliced.aac"
    path.write_bytes(b"".join(encoded(tmp_path, "x.aac", 2, *kind) for kind in kinds))
    recording = decode_file(path, whole=True)
    np.testing.assert_array_equal(recording.waveform, by_command(path))
    assert recording.sampling_rate == kinds[0][0]


def test_the_first_segment_of_an_aac_whose_rate_rises(tmp_path):
    path = tmp_path / "spliced.aac"
    kinds = [(2, 16000), (6, 48000)]
    path.write_bytes(b"".join(encoded(tmp_path, "x.aac", *kind) for kind in kinds))
    expected = by_command(path)[:SEGMENT_SAMPLES]
    np.testing.assert_array_equal(decode_file(path).waveform, expected)


@pytest.mark.parametrize("second", [(2.0, 24000, 2), (2.0, 16000, 1)])
@pytest.mark.parametrize("suffix", ["mp3", "ogg", "flac"])
def test_what_libsndfile_reads_of_spliced_files_is_what_librosa_reads(tmp_path, suffix, second):
    """Also if the end of the file is like that of the first recording."""
    parts = [by_libsndfile(tmp_path, f"x.{suffix}", *kind) for kind in [(2.0, 16000, 1), second]]
    if suffix == "ogg" and second == (2.0, 16000, 1):  # RFC 3533 forbids it
        parts = [with_stream_number(part, 1) for part in parts]
    first, other = parts
    recording = decode(io.BytesIO(first + other))
    np.testing.assert_array_equal(recording.waveform, decode(io.BytesIO(first)).waveform)
    assert recording.duration is None  # more follows


@pytest.mark.parametrize("seconds", [(2, 2), (2, 9), (9, 2), (9, 9)])
@pytest.mark.parametrize("suffix", ["webm", "mka", "wma"])
def test_spliced_files_are_read_as_by_ffmpegs_command(tmp_path, suffix, seconds):
    kinds = [(seconds[0], 48000, 1), (seconds[1], 48000, 2)]
    path = tmp_path / f"spliced.{suffix}"
    path.write_bytes(b"".join(encoded(tmp_path, f"x.{suffix}", *kind) for kind in kinds))
    expected = by_command(path)
    first, whole = decode_file(path), decode_file(path, whole=True)
    np.testing.assert_array_equal(whole.waveform, expected)
    np.testing.assert_array_equal(first.waveform, expected[:SEGMENT_SAMPLES])
    assert whole.duration == pytest.approx(len(expected) / 16000, abs=1e-4)
    assert first.duration in (None, whole.duration)
