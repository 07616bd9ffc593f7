"""MP4s end where they do for FFmpeg's command, and the durations of fragments are verified."""

import io
import struct

import numpy as np
import pytest

from ser_core.audio.decode import decode
from tests.audio.encoding import by_command, decode_file, encoded

FRAGMENTED = ["-movflags", "frag_keyframe+empty_moov", "-frag_duration", "1000000"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("x.m4a", ["-c:a", "aac"]),
        ("x.mp4", ["-c:a", "aac", *FRAGMENTED]),
        ("x.mp4", ["-c:a", "aac", "-output_ts_offset", "0.3"]),
        ("x.mp4", ["-c:a", "libmp3lame"]),
        ("x.mp4", ["-c:a", "flac"]),
        ("x.m4a", ["-c:a", "alac"]),
        ("x.3gp", ["-c:a", "libopencore_amrnb", "-ar", "8000"]),
    ],
)
def test_the_end(tmp_path, name, options):
    encoded(tmp_path, name, 2.01, 16000, 1, *options)
    expected = by_command(tmp_path / name)
    np.testing.assert_array_equal(decode_file(tmp_path / name).waveform, expected)


@pytest.mark.parametrize("codec", ["aac", "alac"])
@pytest.mark.parametrize(
    ("box", "offset", "number"),
    [
        (b"mdhd", 16, 15_872),  # units per second
        (b"mdhd", 20, 0),  # the duration
        (b"stts", 16, 512),  # how long packets are
        (b"stts", 24, 0x2300),  # how long the last one is
        (b"elst", 12, 32_000),  # how much is played
    ],
)
def test_the_end_by_other_numbers(tmp_path, codec, box, offset, number):
    data = encoded(tmp_path, "x.m4a", 2.01, 16000, 1, "-c:a", codec)
    at = data.rindex(box) + offset
    path = tmp_path / "other.m4a"
    path.write_bytes(data[:at] + struct.pack(">I", number) + data[at + 4 :])
    np.testing.assert_array_equal(decode_file(path).waveform, by_command(path))


def test_the_duration_of_fragments_is_known_without_decoding_them(tmp_path):
    data = encoded(tmp_path, "x.mp4", 9, 16000, 1, "-c:a", "aac", *FRAGMENTED)
    assert decode(io.BytesIO(data)).duration == pytest.approx(9, abs=0.1)


def test_fragments_that_repeat(tmp_path):
    data = encoded(tmp_path, "x.mp4", 9, 16000, 1, "-c:a", "aac", *FRAGMENTED)
    path = tmp_path / "repeated.mp4"
    path.write_bytes(data + data[data.index(b"moof") - 4 :])
    expected = by_command(path)
    assert len(expected) > 16 * 16000
    np.testing.assert_array_equal(decode_file(path, whole=True).waveform, expected)
    assert decode_file(path).duration is None
