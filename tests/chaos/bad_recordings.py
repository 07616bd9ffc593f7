"""Recordings that have broken decoders, made by the test, and the statuses they may get."""

import io
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import imageio_ffmpeg
import numpy as np
import soundfile
from harness import SABOTAGE
from recordings import speech_like

sys.path.append(str(SABOTAGE))
from breaking_rates import CRASH, EAT, HANG, SLOW

RATE_0_AT = 24  # in a WAV header: the sampling rate


class Case(NamedTuple):
    """A bad recording.

    Attributes:
        name: of its file.
        make: its bytes.
        statuses: which its row may have.
    """

    name: str
    make: Callable[[], bytes]
    statuses: frozenset[str]


def encoded(samples: np.ndarray, rate: int = 16_000, form: str = "WAV", **options: str) -> bytes:
    """Samples as the bytes of an audio file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=form, **options)
    return buffer.getvalue()


def ffmpeg(samples: np.ndarray, rate: int, *options: str) -> bytes:
    """Samples as FFmpeg writes them to a pipe."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", "pipe:0"]
    return subprocess.run(
        [*command, *options, "pipe:1"],
        input=encoded(samples, rate),
        capture_output=True,
        check=True,
    ).stdout


def wav_with_rate(rate: int) -> bytes:
    """A WAV whose header states another rate."""
    data = bytearray(encoded(speech_like(1)))
    struct.pack_into("<II", data, RATE_0_AT, rate, min(2 * rate, 2**32 - 1))
    return bytes(data)


def changing_aac() -> bytes:
    """ADTS frames of one channel at 16 kHz, then of two at 44.1 kHz."""
    mono = ffmpeg(speech_like(1), 16_000, "-f", "adts")
    return mono + ffmpeg(speech_like(1, 44_100, 2), 44_100, "-f", "adts")


def changing_flac() -> bytes:
    """Frames of one channel, then of two."""
    mono, stereo = (encoded(speech_like(1, 16_000, n), form="FLAC") for n in (1, 2))
    return _without_frame_count(mono) + stereo[_flac_frames(stereo) :]


def _flac_frames(data: bytes) -> int:
    """Where the first frame begins."""
    position, last = 4, False
    while not last:
        last = bool(data[position] & 0x80)
        position += 4 + int.from_bytes(data[position + 1 : position + 4])
    return position


def _with_frame_count(data: bytes, count: int) -> bytes:
    """The FLAC with another number of samples in its STREAMINFO, in the last 36 bits of 8 bytes."""
    field = int.from_bytes(data[18:26]) & ~(2**36 - 1) | count
    return data[:18] + field.to_bytes(8) + data[26:]


def _without_frame_count(data: bytes) -> bytes:
    return _with_frame_count(data, 0)


def lying_flac() -> bytes:
    """A FLAC of one second that states fifty days."""
    return _with_frame_count(encoded(speech_like(1), form="FLAC"), 2**36 - 1)


def piped_flac() -> bytes:
    """A FLAC as FFmpeg writes it to a pipe: it states no number of frames."""
    return ffmpeg(speech_like(2), 16_000, "-f", "flac")


def without_decoder() -> bytes:
    """A Matroska track in a codec that nobody knows."""
    data = ffmpeg(speech_like(1), 16_000, "-c:a", "aac", "-f", "matroska")
    assert b"A_AAC" in data
    return data.replace(b"A_AAC", b"A_ZZZ")


def aac_of_8_channels() -> bytes:
    """7.1 AAC in Matroska."""
    return ffmpeg(speech_like(1, 48_000, 8), 48_000, "-c:a", "aac", "-f", "matroska")


def opus_of_8_channels() -> bytes:
    """7.1 Opus in WebM."""
    options = ("-c:a", "libopus", "-mapping_family", "1", "-f", "webm")
    return ffmpeg(speech_like(1, 48_000, 8), 48_000, *options)


def playlist() -> bytes:
    """A text that FFmpeg would take for a list of other files."""
    return b"ffconcat version 1.0\nfile other.wav\n"


def long_silence() -> bytes:
    """Two hours of silence in 8 channels, in a few kilobytes."""
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", 8000, 8, format="FLAC") as file:
        for _ in range(120):
            file.write(np.zeros((60 * 8000, 8), np.int16))
    return buffer.getvalue()


def tagged_wav() -> bytes:
    """An ID3 tag before a WAV."""
    tag = b"ID3\x04\x00\x00" + bytes([0, 0, 2, 0]) + bytes(256)
    return tag + encoded(speech_like(2, 44_100, seed=5), 44_100)


def mp3_after_junk() -> bytes:
    """An MP3 with zeros and text before its first frame."""
    return bytes(700) + b"junk" * 50 + encoded(speech_like(2, 44_100, seed=6), 44_100, "MP3")


def loud() -> bytes:
    """Finite samples that overflow when resampled."""
    samples = np.where(np.arange(44_100) // 50 % 2, 3e38, -3e38).astype(np.float32)
    return encoded(samples, 44_100, subtype="FLOAT")


def silent_at(rate: int) -> bytes:
    """A recording that sitecustomize.py takes for one that breaks its decoder."""
    return encoded(speech_like(0.5), rate)


def slow() -> bytes:
    """A recording whose decoder takes 20 s."""
    return silent_at(SLOW)


def _any(*statuses: str) -> frozenset[str]:
    return frozenset(statuses)


FORMATS = [
    Case("changing.aac", changing_aac, _any("ok")),
    Case("changing.flac", changing_flac, _any("ok", "decode_error", "truncated")),
    Case("8.mka", aac_of_8_channels, _any("ok")),
    Case("8.webm", opus_of_8_channels, _any("ok")),
    Case("without-decoder.mka", without_decoder, _any("decode_error")),
    Case("rate-0.wav", lambda: wav_with_rate(0), _any("decode_error")),
    Case("rate-1.wav", lambda: wav_with_rate(1), _any("decode_error")),
    Case("rate-2147483647.wav", lambda: wav_with_rate(2**31 - 1), _any("decode_error")),
    Case("lying.flac", lying_flac, _any("ok", "truncated")),
    Case("piped.flac", piped_flac, _any("ok")),
    Case("playlist.wav", playlist, _any("decode_error")),
    Case("long-silence.flac", long_silence, _any("ok")),
    Case("tagged.wav", tagged_wav, _any("ok")),
    Case("after-junk.mp3", mp3_after_junk, _any("ok")),
    Case("loud.wav", loud, _any("not_finite", "decode_error")),
]

BREAKING = [
    Case("hangs.wav", lambda: silent_at(HANG), _any("timeout")),
    Case("crashes.wav", lambda: silent_at(CRASH), _any("crashed")),
    Case("eats.wav", lambda: silent_at(EAT), _any("too_large")),
]


def write(folder: Path, cases: list[Case]) -> list[Path]:
    """Writes cases as files."""
    folder.mkdir(parents=True, exist_ok=True)
    for case in cases:
        (folder / case.name).write_bytes(case.make())
    return [folder / case.name for case in cases]
