"""Decoding returns the samples that librosa does, or raises an error with the reason."""

import contextlib
import io
import warnings
from importlib.metadata import version

import librosa
import numpy as np
import pytest
import soundfile
from recordings import speech_like, write_audio, write_with_ffmpeg

from ser_core.audio.constants import SEGMENT_SAMPLES
from ser_core.audio.decode import decode
from ser_core.errors import RecordingError, Status
from tests.audio.encoding import decode_file

LIBROSA_CALLS_FFMPEG = version("librosa").startswith("0.")


def librosa_samples(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the removal of audioread
        return librosa.load(path, sr=16000)[0]


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_the_first_segment_is_bit_identical_to_that_of_librosa(tmp_path, suffix):
    path = write_audio(tmp_path / f"x{suffix}", speech_like(21, 44100, 2), 44100)
    recording = decode_file(path)
    np.testing.assert_array_equal(recording.waveform, librosa_samples(path)[:SEGMENT_SAMPLES])
    assert recording.duration == pytest.approx(21, abs=0.001)
    assert recording.sampling_rate == 44100


@pytest.mark.parametrize(
    ("suffix", "options"), [(".m4a", ["-c:a", "aac"]), (".webm", ["-c:a", "libopus"])]
)
@pytest.mark.parametrize("seconds", [0.1, 2, 8])
def test_ffmpeg_formats_are_bit_identical(tmp_path, suffix, options, seconds):
    if not LIBROSA_CALLS_FFMPEG:
        pytest.skip("librosa 1.0 reads no m4a and webm; test_parity.py compares these with FFmpeg")
    path = write_with_ffmpeg(
        tmp_path / f"x{suffix}", speech_like(seconds, 48000, 2), 48000, *options
    )
    expected = librosa_samples(path)[:SEGMENT_SAMPLES]
    recording = decode_file(path)
    np.testing.assert_array_equal(recording.waveform, expected)
    assert recording.duration == pytest.approx(seconds, abs=0.02)


@pytest.mark.parametrize("rate", [1_000, 1_500, 4_000, 192_000])
def test_the_first_segment_is_bit_identical_at_unusual_rates(tmp_path, rate):
    path = write_audio(tmp_path / "x.wav", speech_like(9, rate, 5), rate)
    expected = librosa_samples(path)[:SEGMENT_SAMPLES]
    np.testing.assert_array_equal(decode_file(path).waveform, expected)


def test_a_whole_recording(tmp_path):
    path = write_audio(tmp_path / "x.flac", speech_like(15, 22050), 22050)
    np.testing.assert_array_equal(decode_file(path, whole=True).waveform, librosa_samples(path))


def test_decoding_from_memory_equals_decoding_from_a_file(tmp_path):
    path = write_audio(tmp_path / "x.mp3", speech_like(3, 22050), 22050)
    in_memory = decode(io.BytesIO(path.read_bytes()))
    np.testing.assert_array_equal(in_memory.waveform, decode_file(path).waveform)


def test_a_small_file_is_read_in_one_go(tmp_path):
    path = write_audio(tmp_path / "x.wav", speech_like(6))
    sizes = []

    class Watched(io.BytesIO):
        def read(self, size=-1, /):
            sizes.append(size)
            return super().read(size)

    expected = decode_file(path).waveform
    np.testing.assert_array_equal(decode(Watched(path.read_bytes())).waveform, expected)
    assert [size for size in sizes if size] == [path.stat().st_size]


def test_a_file_that_is_read_in_pieces(tmp_path):
    """As from a handle that returns fewer bytes than were asked for."""
    path = write_audio(tmp_path / "x.wav", speech_like(6))

    class Slow(io.BytesIO):
        def read(self, size=-1, /):
            return super().read(min(size, 1000))

    waveform = decode(Slow(path.read_bytes())).waveform
    np.testing.assert_array_equal(waveform, decode_file(path).waveform)


def test_the_format_is_detected_from_the_content(tmp_path):
    path = write_audio(tmp_path / "x.flac", speech_like(1))
    assert len(decode_file(path.rename(tmp_path / "x.mp3")).waveform) == 16000


BAD_CONTENT = {
    "zero bytes": (b"", Status.EMPTY),
    "text": (b"not audio at all " * 50, Status.DECODE_ERROR),
    "zeros": (bytes(5000), Status.DECODE_ERROR),
}


@pytest.mark.parametrize("name", BAD_CONTENT)
def test_content_that_is_not_audio(tmp_path, name):
    content, status = BAD_CONTENT[name]
    (tmp_path / "x.wav").write_bytes(content)
    with pytest.raises(RecordingError) as caught:
        decode_file(tmp_path / "x.wav")
    assert caught.value.status is status
    assert len(str(caught.value)) > 10


def test_a_header_without_samples(tmp_path):
    with pytest.raises(RecordingError, match="no samples") as caught:
        decode_file(write_audio(tmp_path / "x.wav", np.zeros(0, np.float32)))
    assert caught.value.status is Status.EMPTY


def truncate(path, fraction):
    content = path.read_bytes()
    path.write_bytes(content[: int(fraction * len(content))])
    return path


@pytest.mark.parametrize("suffix", [".wav", ".aiff", ".mp3", ".webm"])
def test_a_file_truncated_in_the_middle(tmp_path, suffix):
    write = write_audio if suffix != ".webm" else write_with_ffmpeg
    path = write(tmp_path / f"x{suffix}", speech_like(4), 16000)
    with pytest.raises(RecordingError, match=r"of 4\.0\d s could be decoded") as caught:
        decode_file(truncate(path, 0.5))
    assert caught.value.status is Status.TRUNCATED


@pytest.mark.parametrize("suffix", [".flac", ".m4a"])
def test_a_truncated_file_that_the_decoder_rejects(tmp_path, suffix):
    write = write_audio if suffix != ".m4a" else write_with_ffmpeg
    path = write(tmp_path / f"x{suffix}", speech_like(4), 16000)
    with pytest.raises(RecordingError) as caught:
        decode_file(truncate(path, 0.5))
    assert caught.value.status is Status.DECODE_ERROR


def test_truncation_after_the_first_segment_does_not_matter(tmp_path):
    path = write_audio(tmp_path / "x.wav", speech_like(20))
    expected = decode_file(path).waveform
    np.testing.assert_array_equal(decode_file(truncate(path, 0.5)).waveform, expected)


def test_a_slightly_truncated_file_is_decoded_as_by_librosa(tmp_path):
    path = truncate(write_audio(tmp_path / "x.wav", speech_like(2)), 0.97)
    np.testing.assert_array_equal(decode_file(path).waveform, librosa_samples(path))


def test_a_streamed_wav_with_unknown_length(tmp_path):
    """Its header says 4 GiB; its duration is that of its samples."""
    path = write_audio(tmp_path / "x.wav", speech_like(2))
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[4:8] = content[at : at + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    assert len(decode_file(path).waveform) == 32000


def test_samples_that_are_not_finite(tmp_path):
    samples = speech_like(1).copy()
    samples[100] = np.nan
    soundfile.write(tmp_path / "x.wav", samples, 16000, subtype="FLOAT")
    with pytest.raises(RecordingError, match="finite"):
        decode_file(tmp_path / "x.wav")


def test_a_buffered_file_is_decoded_from_its_beginning(tmp_path):
    path = write_audio(tmp_path / "x.wav", speech_like(2))
    with open(path, "rb") as handle:  # read-ahead moves the descriptor past the position
        np.testing.assert_array_equal(decode(handle).waveform, decode_file(path).waveform)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".flac", ".wav"])
def test_damaged_files_raise_nothing_but_recording_errors(tmp_path, suffix):
    """Whatever a decoder raises on such bytes; PyAV has an AttributeError for some of them."""
    write = write_audio if suffix in (".flac", ".wav") else write_with_ffmpeg
    content = write(tmp_path / f"x{suffix}", speech_like(0.5), 16000).read_bytes()
    random = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(content)
        for position in random.integers(0, len(content), 8):
            damaged[position % (400 if random.random() < 0.7 else len(content))] ^= 0xFF
        with contextlib.suppress(RecordingError):
            decode(io.BytesIO(bytes(damaged)))


def test_an_error_of_a_decoder_is_named(tmp_path, monkeypatch):
    path = write_audio(tmp_path / "x.wav", speech_like(1))

    def fail(*_):
        raise AttributeError("no rate")

    monkeypatch.setattr("ser_core.audio.libsndfile.read_samples", fail)
    with pytest.raises(RecordingError, match=r"AttributeError: no rate") as caught:
        decode_file(path)
    assert caught.value.status is Status.DECODE_ERROR
