"""A duration is that of all samples, or None."""

import io
import struct
import subprocess

import imageio_ffmpeg
import numpy as np
import pytest
from recordings import speech_like, write_audio

from ser_core.audio import file_view
from ser_core.audio.decode import decode
from tests.audio.encoding import by_libsndfile, decode_file, encoded


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "m4a", "webm", "wma", "mka"])
def test_durations_of_sound_files_are_known_without_decoding_them(tmp_path, suffix):
    write = by_libsndfile if suffix in ("wav", "flac", "ogg") else encoded
    assert decode(io.BytesIO(write(tmp_path, f"x.{suffix}", 9))).duration == pytest.approx(
        9, abs=0.1
    )


def flac_with_total(flac: bytes, total: int) -> bytes:
    return flac[:21] + bytes([flac[21] & 0xF0]) + total.to_bytes(4, "big") + flac[26:]


def with_xing_bytes(mp3: bytes, factor: float) -> bytes:
    at = max(mp3.find(b"Xing"), mp3.find(b"Info")) + 12
    (num_bytes,) = struct.unpack(">I", mp3[at : at + 4])
    return mp3[:at] + struct.pack(">I", int(num_bytes * factor)) + mp3[at + 4 :]


def with_mdhd_duration(mp4: bytes, duration: int) -> bytes:
    at = mp4.index(b"mdhd") + 4 + 16
    return mp4[:at] + struct.pack(">I", duration) + mp4[at + 4 :]


def with_sound_in_the_first_frame(mp3: bytes) -> bytes:
    """For libsndfile, a tag is one only if all bytes before it are 0."""
    at = max(mp3.find(b"Xing"), mp3.find(b"Info"))
    return mp3[: at - 3] + b"\x40" + mp3[at - 2 :]


LIES = {
    "a FLAC total too high": ("flac", lambda b: flac_with_total(b, 16000 * 3600)),
    "a FLAC total too low": ("flac", lambda b: flac_with_total(b, 16000 * 7)),
    "MP3 without a tag": ("mp3", lambda b: b.replace(b"Xing", b"----").replace(b"Info", b"----")),
    "a tag that is taken for sound": ("mp3", with_sound_in_the_first_frame),
    "a Xing tag of a longer file": ("mp3", lambda b: with_xing_bytes(b, 3)),
    "a second MP3 behind": ("mp3", lambda b: b + b),
    "a second Ogg behind": ("ogg", lambda b: b + b.replace(b[14:18], b"two!")),
    "AAC without a duration": ("aac", lambda b: b),
}


@pytest.mark.parametrize("name", LIES)
def test_a_duration_that_cannot_be_verified_is_none(tmp_path, name):
    suffix, lie = LIES[name]
    write = by_libsndfile if suffix in ("flac", "ogg") else encoded
    data = write(tmp_path, f"x.{suffix}", 9)
    recording = decode(io.BytesIO(lie(data)))
    if name not in ("MP3 without a tag", "a tag that is taken for sound"):
        np.testing.assert_array_equal(recording.waveform, decode(io.BytesIO(data)).waveform)
    assert recording.duration is None
    assert recording.duration != decode(io.BytesIO(data), whole=True).duration


def test_a_duration_by_a_wrong_byte_rate_is_none(tmp_path):
    """FFmpeg states twice the byte rate of this codec, by which it also seeks."""
    wav = encoded(tmp_path, "x.wav", 14, 16000, 1, "-c:a", "adpcm_yamaha")
    at = wav.index(b"data") + 4
    longer = wav[:at] + struct.pack("<I", 2 * len(wav)) + wav[at + 4 :] + bytes(100)
    assert decode(io.BytesIO(longer)).duration is None
    assert decode(io.BytesIO(longer), whole=True).duration == pytest.approx(14, abs=0.1)


@pytest.mark.parametrize("clock", [48_000, 13_000])
def test_a_duration_by_a_wrong_clock_is_none(tmp_path, clock):
    data = encoded(tmp_path, "x.m4a", 9)
    at = data.index(b"mdhd") + 4 + 12
    assert data[at : at + 4] == struct.pack(">I", 16_000)
    wrong = data[:at] + struct.pack(">I", clock) + data[at + 4 :]
    assert decode(io.BytesIO(wrong)).duration is None


def test_an_absurd_count_of_frames_is_ignored(tmp_path):
    data = encoded(tmp_path, "x.m4a")
    assert decode(io.BytesIO(with_mdhd_duration(data, 16000 * 3600 * 24))).duration < 3


def test_a_video_is_longer_than_its_sound(tmp_path):
    source = write_audio(tmp_path / "x.wav", speech_like(7))
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", source]
    command += ["-f", "lavfi", "-i", "color=size=32x32:rate=5:duration=12", tmp_path / "x.mp4"]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    assert decode_file(tmp_path / "x.mp4").duration == pytest.approx(7, abs=0.1)


def test_verifying_a_duration_reads_little(tmp_path, monkeypatch):
    monkeypatch.setattr(file_view, "_IN_MEMORY", -1)

    class Counted(io.FileIO):
        num_bytes = 0

        def read(self, size=-1, /):
            data = super().read(size)
            Counted.num_bytes += len(data)
            return data

    for suffix in ("flac", "m4a", "webm"):
        write = by_libsndfile if suffix == "flac" else encoded
        size = len(write(tmp_path, f"x.{suffix}", 120))
        Counted.num_bytes = 0
        with Counted(tmp_path / f"x.{suffix}") as handle:
            assert decode(handle).duration == pytest.approx(120, abs=0.1)
        assert Counted.num_bytes < 0.1 * size + (800 << 10), suffix
