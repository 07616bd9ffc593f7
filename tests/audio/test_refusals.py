"""What is no recording of speech is refused, with a reason."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from recordings import speech_like, write_audio

from ser_core.audio.constants import SEGMENT_SAMPLES
from ser_core.audio.decode import decode
from ser_core.errors import RecordingError, Status
from tests.audio.encoding import by_libsndfile, encoded, refused
from tests.fuzz.ogg import positions, with_checksums


def opus_whose_position_jumps(folder: Path, page: int, position: int) -> bytes:
    opus = by_libsndfile(folder, "x.ogg", 7, subtype="OPUS")
    at = positions(opus, b"OggS")[page] + 6
    return with_checksums(opus[:at] + position.to_bytes(8, "little") + opus[at + 8 :])


@pytest.mark.parametrize("position", [(1 << 31) + 300_000, 1 << 40, (1 << 64) - 100_000])
@pytest.mark.parametrize("whole", [False, True])
def test_an_opus_of_which_libsndfile_returns_unwritten_memory(tmp_path, position, whole):
    data = opus_whose_position_jumps(tmp_path, 7, position)
    with pytest.raises(RecordingError, match="the positions of its Ogg pages go back") as caught:
        decode(io.BytesIO(data), whole)
    assert caught.value.status is Status.DECODE_ERROR


def test_an_opus_page_in_which_no_packet_ends(tmp_path):
    data = opus_whose_position_jumps(tmp_path, 7, (1 << 64) - 1)
    assert len(decode(io.BytesIO(data)).waveform) == SEGMENT_SAMPLES


def wav_of_rate(rate: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, speech_like(0.5), 16000, format="WAV")
    data = file.getvalue()
    return data[:24] + struct.pack("<I", rate) + data[28:]


@pytest.mark.parametrize("rate", [1, 999, 768_001, (1 << 31) - 1])
def test_rates_that_no_recording_has(rate):
    error = refused(wav_of_rate(rate))
    assert error.status is Status.DECODE_ERROR
    assert f"the sampling rate is {rate} Hz, not between 1 and 768 kHz" in str(error)


@pytest.mark.parametrize("rate", [1_000, 768_000])
def test_rates_at_the_bounds_are_accepted(rate):
    assert decode(io.BytesIO(wav_of_rate(rate))).sampling_rate == rate


def test_a_rate_of_0_is_refused():
    assert refused(wav_of_rate(0)).status is Status.DECODE_ERROR


def test_too_many_channels(tmp_path):
    data = by_libsndfile(tmp_path, "x.wav", 0.1, 8000, 257)
    assert "257 channels, not between 1 and 256" in str(refused(data))


def test_a_track_without_a_decoder(tmp_path):
    mov = encoded(tmp_path, "x.mov", 1, 16000, 1, "-c:a", "pcm_s16le")
    error = refused(mov.replace(b"sowt", b"????"))
    assert error.status is Status.DECODE_ERROR
    assert "no decoder for its audio track" in str(error)


@pytest.mark.parametrize("value", [3e38, -3e38])
def test_samples_that_overflow_when_resampled(tmp_path, value):
    samples = np.full(8000, value, np.float32)
    samples[::2] *= -1
    samples[3000:5000] = value
    path = write_audio(tmp_path / "x.wav", samples, 44100, subtype="FLOAT")
    assert "resampling overflows" in str(refused(path.read_bytes()))


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("std::bad_alloc")])
def test_running_out_of_memory_is_too_large(monkeypatch, error):
    def exhaust(*_):
        raise error

    monkeypatch.setattr("ser_core.audio.decode.Resampler", exhaust)
    caught = refused(wav_of_rate(16000))
    assert caught.status is Status.TOO_LARGE
    assert "--decode-memory" in str(caught)
