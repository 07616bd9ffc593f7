"""Ogg Opus is decoded by FFmpeg's libopus to libsndfile's samples, and if damaged by libsndfile."""

import io
import struct
from itertools import pairwise

import numpy as np
import pytest
import soundfile
from recordings import speech_like, write_with_ffmpeg

from ser_core.audio import libsndfile
from ser_core.audio.constants import SEGMENT_SAMPLES
from ser_core.audio.decode import decode
from ser_core.audio.opus import read_if_regular
from ser_core.audio.resample import to_mono
from ser_core.audio.samples import Mixer
from ser_core.errors import RecordingError, Status
from tests.audio.encoding import encoded, resample
from tests.fuzz.ogg import positions, with_checksums, with_stream_number

SPEECH, MUSIC = ("-application", "voip"), ("-application", "audio")


def opus(folder, *options, seconds=2.5, rate=48000, channels=1) -> bytes:
    return encoded(folder, "x.opus", seconds, rate, channels, "-c:a", "libopus", *options)


def by_libsndfile_alone(data: bytes) -> np.ndarray:
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    mono = to_mono(samples.T)
    return mono if rate == 16000 else resample(mono, rate)


@pytest.fixture
def libsndfile_reads_nothing(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("libsndfile was asked for samples")

    monkeypatch.setattr(libsndfile, "_read_blocks", refuse)


@pytest.fixture
def read_by_libsndfile(monkeypatch) -> list[int]:
    """How many samples libsndfile was asked for, each time."""
    asked: list[int] = []
    read = libsndfile._read_blocks

    def watched(sound, source, mixer, wanted):
        asked.append(wanted)
        read(sound, source, mixer, wanted)

    monkeypatch.setattr(libsndfile, "_read_blocks", watched)
    return asked


@pytest.mark.usefixtures("libsndfile_reads_nothing")
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    "options",
    [
        (*SPEECH, "-b:a", "8k"),  # the speech codec
        (*SPEECH, "-b:a", "24k"),  # the speech codec and the music codec together
        (*SPEECH, "-b:a", "12k", "-fec", "1", "-packet_loss", "20"),
        (*MUSIC, "-b:a", "64k"),
        (*MUSIC, "-b:a", "256k", "-frame_duration", "10", "-vbr", "off"),
        (*MUSIC, "-b:a", "96k", "-frame_duration", "2.5"),
        (*SPEECH, "-b:a", "24k", "-frame_duration", "120"),
        (*MUSIC, "-b:a", "64k", "-page_duration", "1"),
        (*MUSIC, "-b:a", "64k", "-metadata", "comment=" + 90_000 * "x"),
    ],
)
def test_the_samples_are_those_of_libsndfile(tmp_path, options, channels):
    data = opus(tmp_path, *options, seconds=7, channels=channels)
    expected = by_libsndfile_alone(data)
    first, whole = decode(io.BytesIO(data)), decode(io.BytesIO(data), whole=True)
    np.testing.assert_allclose(whole.waveform, expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(first.waveform, whole.waveform[:SEGMENT_SAMPLES])
    assert (first.duration, first.sampling_rate) == (7, 48000)
    assert (whole.duration, whole.sampling_rate) == (7, 48000)


@pytest.mark.usefixtures("libsndfile_reads_nothing")
@pytest.mark.parametrize("seconds", [0.001, 0.02, 0.0275, 6.0, 6.25, 6.2501])
def test_recordings_of_any_length(tmp_path, seconds):
    data = opus(tmp_path, seconds=seconds)
    expected = by_libsndfile_alone(data)[:SEGMENT_SAMPLES]
    recording = decode(io.BytesIO(data))
    assert recording.waveform.shape == expected.shape
    np.testing.assert_allclose(recording.waveform, expected, rtol=0, atol=1e-6)
    assert recording.duration == pytest.approx(seconds, abs=1e-4)


@pytest.mark.usefixtures("libsndfile_reads_nothing")
def test_silence_that_is_not_transmitted(tmp_path):
    voice = speech_like(1, 48000)
    samples = np.concatenate([voice, np.zeros(96000, np.float32), voice])
    options = ("-c:a", "libopus", *SPEECH, "-b:a", "16k", "-dtx", "1")
    data = write_with_ffmpeg(tmp_path / "x.opus", samples, 48000, *options).read_bytes()
    waveform = decode(io.BytesIO(data)).waveform
    np.testing.assert_allclose(waveform, by_libsndfile_alone(data), rtol=0, atol=1e-6)


@pytest.mark.parametrize("rate", [8000, 12000, 16000, 24000])
def test_a_recording_of_a_lower_rate_is_decoded_at_that_rate(tmp_path, rate):
    data = opus(tmp_path, *SPEECH, "-b:a", "24k", seconds=7, rate=rate)
    recording = decode(io.BytesIO(data))
    expected = by_libsndfile_alone(data)[:SEGMENT_SAMPLES]
    np.testing.assert_array_equal(recording.waveform, expected)
    assert (recording.duration, recording.sampling_rate) == (pytest.approx(7), rate)


# ---- what is not as it should be -----------------------------------------------------------------


def pages(data: bytes) -> list[bytes]:
    starts = [*positions(data, b"OggS"), len(data)]
    return [data[start:end] for start, end in pairwise(starts)]


def with_bytes(data: bytes, at: int, new: bytes) -> bytes:
    return with_checksums(data[:at] + new + data[at + len(new) :])


def head(data: bytes, offset: int, new: bytes) -> bytes:
    return with_bytes(data, data.index(b"OpusHead") + offset, new)


def moved(data: bytes, page: int, samples: int) -> bytes:
    at = positions(data, b"OggS")[page] + 6
    (position,) = struct.unpack("<q", data[at : at + 8])
    return with_bytes(data, at, struct.pack("<q", position + samples))


def with_flag(data: bytes, page: int, flag: int) -> bytes:
    at = positions(data, b"OggS")[page] + 5
    return with_bytes(data, at, bytes([data[at] ^ flag]))


def flipped(data: bytes, page: int) -> bytes:
    """Its checksum is wrong."""
    at = positions(data, b"OggS")[page] + 200
    return data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]


IRREGULAR = {
    "a page is missing": lambda b: b"".join(p for n, p in enumerate(pages(b)) if n != 3),
    "a page twice": lambda b: b"".join([*pages(b)[:4], pages(b)[3], *pages(b)[4:]]),
    "a page of another stream": lambda b: b"".join(
        with_stream_number(page, 9) if number == 3 else page for number, page in enumerate(pages(b))
    ),
    "a page with the number of another": lambda b: with_bytes(
        b, b.index(pages(b)[3]) + 18, b"\x07"
    ),
    "a page is damaged": lambda b: flipped(b, 3),
    "junk between pages": lambda b: b"".join([*pages(b)[:3], b"junk", *pages(b)[3:]]),
    "cut in a page": lambda b: b[:-100],
    "junk at the end": lambda b: b + bytes(300),
    "another stream behind": lambda b: with_stream_number(b, 1) + with_stream_number(b, 2),
    "a stream behind with the same number": lambda b: b + b,
    "two streams": lambda b: b"".join(
        page
        for pair in zip(*(pages(with_stream_number(b, n)) for n in (1, 2)), strict=True)
        for page in pair
    ),
    "positions begin later": lambda b: moved(moved(moved(b, 2, 480), 3, 480), 4, 480),
    "a position is wrong": lambda b: moved(b, 3, 10),
    "a position is too low": lambda b: moved(b, 3, -10),
    "the last position is wrong": lambda b: moved(b, -1, 48_000),
    "a position of the comments": lambda b: moved(b, 1, 1 << 40),
    "the last position goes back": lambda b: moved(b, -1, -30_000),
    "pages after the last": lambda b: with_flag(b, 2, 4),
    "a page within a packet": lambda b: with_flag(b, 3, 1),
    "a packet without bytes": lambda b: with_bytes(b, positions(b, b"OggS")[3] + 27, b"\0"),
    "a gain": lambda b: head(b, 16, struct.pack("<h", 256)),
}


class NullSink:
    def add(self, samples, rate):
        pass

    def restart(self):
        pass


def outcome(data: bytes, whole: bool):
    try:
        recording = decode(io.BytesIO(data), whole)
    except RecordingError as error:
        return error.status, str(error), []
    return Status.OK, (recording.duration, recording.sampling_rate), recording.waveform.tolist()


@pytest.mark.parametrize("kind", IRREGULAR)
@pytest.mark.parametrize("whole", [False, True])
def test_libsndfile_reads_what_is_not_as_it_should_be(
    tmp_path, monkeypatch, read_by_libsndfile, kind, whole
):
    data = IRREGULAR[kind](opus(tmp_path, *MUSIC, "-b:a", "64k"))
    found = outcome(data, whole)
    assert len(read_by_libsndfile) == 1
    monkeypatch.setattr("ser_core.audio.opus.read_if_regular", lambda *_: False)
    assert found == outcome(data, whole)


def test_another_number_of_samples_than_libsndfile_states(tmp_path):
    data = opus(tmp_path, seconds=1)
    for stated, same in ((48_000, True), (47_990, False), (48_010, False)):
        mixer = Mixer(NullSink())
        assert read_if_regular(io.BytesIO(data), mixer, stated, stated) is same
        assert mixer.num_samples == (stated if same else 0)


def test_six_channels_are_read_by_libsndfile(tmp_path):
    data = opus(tmp_path, "-b:a", "256k", channels=6)
    np.testing.assert_array_equal(decode(io.BytesIO(data)).waveform, by_libsndfile_alone(data))


def test_damage_late_in_a_long_recording(tmp_path, read_by_libsndfile):
    """What was passed on before it was found is not passed on twice."""
    data = flipped(opus(tmp_path, *MUSIC, "-b:a", "32k", seconds=40), 38)
    recording = decode(io.BytesIO(data), whole=True)
    assert len(read_by_libsndfile) == 1
    np.testing.assert_array_equal(recording.waveform, by_libsndfile_alone(data))


@pytest.mark.usefixtures("libsndfile_reads_nothing")
def test_damage_behind_the_first_segment_does_not_matter(tmp_path):
    data = opus(tmp_path, *MUSIC, "-b:a", "32k", seconds=10)
    expected = decode(io.BytesIO(data)).waveform
    np.testing.assert_array_equal(decode(io.BytesIO(flipped(data, 10))).waveform, expected)


def test_without_libopus_libsndfile_reads_it(tmp_path, monkeypatch, read_by_libsndfile):
    monkeypatch.setattr("av.codecs_available", {"opus"})
    data = opus(tmp_path)
    np.testing.assert_array_equal(decode(io.BytesIO(data)).waveform, by_libsndfile_alone(data))
    assert len(read_by_libsndfile) == 1
