"""Recordings that tests encode by libsndfile and FFmpeg, and their samples."""

import io
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import soundfile
from recordings import speech_like, write_audio, write_with_ffmpeg

from ser_core.audio.decode import decode
from ser_core.audio.resample import Resampler, to_mono
from ser_core.errors import RecordingError
from ser_core.storage.reading import open_file


def decode_file(path, whole=False):
    with open_file(str(path)) as handle:
        return decode(handle, whole)


def resample(samples: np.ndarray, rate: int, block: int = 1 << 20) -> np.ndarray:
    """Mono samples at 16 kHz, resampled block by block."""
    resampler = Resampler(rate, 1)
    starts = range(0, len(samples), block)
    blocks = [resampler.add(samples[None, start : start + block]) for start in starts]
    return np.concatenate([*blocks, resampler.finish()], axis=1)[0]


def refused(data: bytes) -> RecordingError:
    with pytest.raises(RecordingError) as caught:
        decode(io.BytesIO(data))
    return caught.value


def encoded(folder: Path, name: str, seconds=2.0, rate=16000, channels=1, *options) -> bytes:
    recorded = speech_like(seconds, rate, channels, seed=channels)
    return write_with_ffmpeg(folder / name, recorded, rate, *options).read_bytes()


def by_libsndfile(folder: Path, name: str, seconds=2.0, rate=16000, channels=1, **options) -> bytes:
    recorded = speech_like(seconds, rate, channels, seed=channels)
    return write_audio(folder / name, recorded, rate, **options).read_bytes()


def by_command(path: Path) -> np.ndarray:
    """The whole recording, decoded by FFmpeg's own command."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "fatal", "-i", path]
    command += ["-c:a", "pcm_s16le", "-f", "wav", "-"]
    wav = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True).stdout
    recorded, rate = soundfile.read(io.BytesIO(wav), dtype="float32", always_2d=True)
    return resample(to_mono(recorded.T), rate)


def id3(length: int) -> bytes:
    size = bytes(length >> shift & 127 for shift in (21, 14, 7, 0))
    return b"ID3\x03\0\0" + size + bytes(length)


def without_total(flac: bytes) -> bytes:
    """As written to a pipe."""
    return flac[:21] + bytes([flac[21] & 0xF0]) + bytes(4) + flac[26:]
