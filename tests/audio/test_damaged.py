"""Damaged files give the samples that librosa gets from them, each time the same."""

import io
from itertools import pairwise

import numpy as np
import pytest
import soundfile

from ser_core.audio.constants import SEGMENT_SAMPLES
from ser_core.audio.decode import decode
from tests.audio.encoding import by_command, by_libsndfile, decode_file, encoded
from tests.fuzz.ogg import positions, with_checksums


def swapped(data: bytes, starts: list[int], i: int, j: int) -> bytes:
    pieces = [data[a:b] for a, b in pairwise([*starts, len(data)])]
    pieces[i], pieces[j] = pieces[j], pieces[i]
    return data[: starts[0]] + b"".join(pieces)


def test_a_flac_that_can_be_read_but_not_sought_in(tmp_path):
    flac = by_libsndfile(tmp_path, "x.flac", 9, subtype="PCM_24")
    first = flac.index(b"\xff\xf8")
    path = tmp_path / "damaged.flac"
    path.write_bytes(swapped(flac, positions(flac, flac[first : first + 4]), 10, 26))
    with pytest.raises(soundfile.LibsndfileError), soundfile.SoundFile(path) as file:
        file.read(100_000)  # seeks to where it has read to
    expected, _ = soundfile.read(path, dtype="float32")
    np.testing.assert_array_equal(decode_file(path).waveform, expected[:SEGMENT_SAMPLES])
    np.testing.assert_array_equal(decode_file(path, whole=True).waveform, expected)


def test_an_opus_whose_end_cannot_be_sought(tmp_path):
    """Libsndfile reads it, but soundfile fails; so FFmpeg reads it for librosa."""
    opus = by_libsndfile(tmp_path, "x.ogg", 4, subtype="OPUS")
    path = tmp_path / "damaged.ogg"
    path.write_bytes(with_checksums(swapped(opus, positions(opus, b"OggS"), 2, 4)))
    with pytest.raises(soundfile.LibsndfileError):
        soundfile.read(path)
    np.testing.assert_array_equal(decode_file(path).waveform, by_command(path))


def test_a_track_that_appears_midway(tmp_path):
    """PyAV then reads memory that it has not written, whose content varies."""
    data = bytearray(encoded(tmp_path, "x.ts", 0.4, 16000, 1, "-c:a", "aac", "-f", "mpegts"))
    last = max(at for at in range(0, len(data), 188) if data[at + 1] == 0x41)
    data[last + 1] ^= 0x04  # of the track's number
    (tmp_path / "two.ts").write_bytes(data)
    expected = by_command(tmp_path / "two.ts")
    for _ in range(100):
        np.testing.assert_array_equal(decode(io.BytesIO(data)).waveform, expected)
