"""Formats of many kinds are decoded as librosa and FFmpeg's command decode them."""

import io

import numpy as np
import pytest
import soundfile

from ser_core.audio import libsndfile, samples
from ser_core.audio.decode import decode
from tests.audio.encoding import (
    by_command,
    by_libsndfile,
    decode_file,
    encoded,
    resample,
    without_total,
)


@pytest.mark.parametrize(
    ("name", "rate", "channels", "options"),
    [
        ("x.mov", 16000, 1, ["-c:a", "pcm_s16le"]),
        ("x.mov", 16000, 6, ["-c:a", "pcm_s16le"]),
        ("x.mov", 16000, 8, ["-c:a", "pcm_s16le"]),
        ("x.mov", 16000, 16, ["-c:a", "pcm_s16le"]),
        ("x.m4a", 48000, 8, ["-c:a", "aac"]),
        ("x.webm", 48000, 8, ["-c:a", "libopus", "-mapping_family", "1"]),
        ("x.mka", 48000, 12, ["-c:a", "libopus", "-mapping_family", "255"]),
    ],
)
def test_many_channels_through_ffmpeg(tmp_path, name, rate, channels, options):
    encoded(tmp_path, name, 1.0, rate, channels, *options)
    recording = decode_file(tmp_path / name)
    np.testing.assert_array_equal(recording.waveform, by_command(tmp_path / name))
    assert (recording.duration, recording.sampling_rate) == (pytest.approx(1), rate)


@pytest.mark.parametrize(
    ("head", "mode", "num_bytes", "rate"),
    [(b"#!AMR\n", b"\x3c", 31, 8000), (b"#!AMR-WB\n", b"\x44", 60, 16000)],
)
def test_amr(tmp_path, head, mode, num_bytes, rate):
    random = np.random.default_rng(0)
    path = tmp_path / "x.amr"
    path.write_bytes(head + b"".join(mode + random.bytes(num_bytes) for _ in range(2 * 50)))
    recording = decode_file(path)
    np.testing.assert_array_equal(recording.waveform, by_command(path))
    assert (recording.duration, recording.sampling_rate) == (2, rate)


def test_a_flac_that_was_written_to_a_pipe(tmp_path):
    flac = by_libsndfile(tmp_path, "x.flac")
    expected = decode(io.BytesIO(flac)).waveform
    for whole in (False, True):
        recording = decode(io.BytesIO(without_total(flac)), whole)
        np.testing.assert_array_equal(recording.waveform, expected)
        assert recording.duration == 2


def test_a_gsm_wav_which_cannot_be_sought_in(tmp_path):
    wav = by_libsndfile(tmp_path, "x.wav", 1, 8000, 1, subtype="GSM610")
    recorded, rate = soundfile.read(tmp_path / "x.wav", dtype="float32")
    recording = decode(io.BytesIO(wav))
    np.testing.assert_array_equal(recording.waveform, resample(recorded, rate))
    assert recording.duration == len(recorded) / rate


def test_long_recordings_are_mixed_block_by_block(tmp_path, monkeypatch):
    data = by_libsndfile(tmp_path, "x.flac", 3, 16000, 2)
    expected = decode(io.BytesIO(data), whole=True).waveform
    read: list[int] = []
    read_in_one = soundfile.SoundFile.read

    def counted(self, frames=-1, *args, **kwargs):
        read.append(frames)
        return read_in_one(self, frames, *args, **kwargs)

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    monkeypatch.setattr(libsndfile, "BLOCK_SAMPLES", 2 * 1001)
    monkeypatch.setattr(samples, "BLOCK_SAMPLES", 2 * 1001)
    np.testing.assert_array_equal(decode(io.BytesIO(data), whole=True).waveform, expected)
    assert max(read) == 1001
