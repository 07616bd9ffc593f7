"""Small valid recordings in every supported format; the fuzzer damages them."""

import io
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

import imageio_ffmpeg
import numpy as np
import soundfile

from tests.fuzz.ogg import with_stream_number
from tests.recordings import speech_like

SHORT, LONG = 0.4, 7.0  # s; what is longer than 6 s is not decoded to its end


class Seed(NamedTuple):
    """A recording, and the extension of its name."""

    name: str
    suffix: str
    data: bytes


def samples(seconds: float, rate: int, channels: int) -> np.ndarray:
    return speech_like(seconds, rate, channels, seed=channels).reshape(-1, channels)


# (suffix, rate, channels, seconds, options of soundfile)
_SOUNDFILE = [
    ("wav", 16000, 1, SHORT, {}),
    ("wav", 8000, 1, LONG, {}),
    ("wav", 44100, 2, SHORT, {"subtype": "PCM_24"}),
    ("wav", 16000, 8, SHORT, {"subtype": "PCM_16"}),
    ("wav", 16000, 1, SHORT, {"subtype": "FLOAT"}),
    ("wav", 16000, 2, SHORT, {"subtype": "DOUBLE"}),
    ("wav", 8000, 1, SHORT, {"subtype": "ULAW"}),
    ("wav", 8000, 1, SHORT, {"subtype": "GSM610"}),
    ("wav", 22050, 1, SHORT, {"subtype": "IMA_ADPCM"}),
    ("wav", 22050, 2, SHORT, {"subtype": "MS_ADPCM"}),
    ("wav", 16000, 1, SHORT, {"format": "WAVEX"}),
    ("wav", 16000, 1, SHORT, {"format": "RF64"}),
    ("w64", 16000, 1, SHORT, {}),
    ("aiff", 16000, 1, SHORT, {}),
    ("aiff", 44100, 2, SHORT, {"subtype": "FLOAT"}),
    ("caf", 16000, 1, SHORT, {}),
    ("caf", 16000, 1, LONG, {"subtype": "ALAC_16"}),
    ("au", 16000, 1, SHORT, {}),
    ("flac", 16000, 1, SHORT, {}),
    ("flac", 16000, 2, LONG, {"subtype": "PCM_24"}),
    ("ogg", 16000, 1, SHORT, {}),
    ("ogg", 16000, 1, LONG, {}),
    ("opus", 48000, 1, SHORT, {"format": "OGG", "subtype": "OPUS"}),
    ("opus", 16000, 1, LONG, {"format": "OGG", "subtype": "OPUS"}),
    ("mp3", 16000, 1, SHORT, {}),
    ("mp3", 44100, 2, LONG, {}),
]
# (suffix, rate, channels, seconds, options of FFmpeg)
_FFMPEG = [
    ("mp3", 16000, 1, LONG, "-write_xing 0 -q:a 5"),
    ("mp3", 44100, 1, SHORT, "-id3v2_version 4 -metadata title=x -write_id3v1 1"),
    ("m4a", 16000, 1, SHORT, "-c:a aac"),
    ("m4a", 44100, 2, LONG, "-c:a aac -movflags +faststart"),
    ("m4a", 48000, 8, SHORT, "-c:a aac"),
    ("m4a", 16000, 1, SHORT, "-c:a alac"),
    ("mp4", 16000, 1, LONG, "-c:a aac -movflags frag_keyframe+empty_moov -frag_duration 1000000"),
    ("aac", 16000, 1, SHORT, "-c:a aac"),
    ("aac", 24000, 2, LONG, "-c:a aac"),
    ("webm", 48000, 2, SHORT, "-c:a libopus"),
    ("webm", 48000, 1, LONG, "-c:a libopus"),
    ("webm", 48000, 8, SHORT, "-c:a libopus -mapping_family 1"),
    ("mka", 16000, 1, SHORT, "-c:a aac"),
    ("mka", 16000, 2, SHORT, "-c:a pcm_s16le"),
    ("wma", 16000, 1, SHORT, "-c:a wmav2"),
    ("wma", 44100, 2, LONG, "-c:a wmav2"),
    ("mov", 16000, 1, SHORT, "-c:a pcm_s16le"),
    ("mov", 16000, 16, SHORT, "-c:a pcm_s16be"),
    ("wav", 16000, 1, SHORT, "-c:a adpcm_yamaha"),
    ("avi", 16000, 1, SHORT, "-c:a pcm_s16le"),
    ("ac3", 48000, 6, SHORT, "-c:a ac3"),
    ("mp2", 16000, 1, SHORT, "-c:a mp2"),
    ("ts", 16000, 1, SHORT, "-c:a aac -f mpegts"),
    ("flac", 16000, 1, SHORT, "-c:a flac -frame_size 512"),
    ("tta", 16000, 1, SHORT, "-c:a tta"),
    ("wv", 16000, 1, SHORT, "-c:a wavpack"),
]
# Written to a pipe, where the writer cannot go back to state a size.
_PIPED = [("flac", "flac"), ("wav", "wav"), ("w64", "w64"), ("webm", "webm"), ("au", "au")]


@cache
def seeds() -> list[Seed]:
    """All seeds, always in the same order."""
    made = [_by_soundfile(*row) for row in _SOUNDFILE]
    with tempfile.TemporaryDirectory() as folder:
        made += [_by_ffmpeg(Path(folder), *row) for row in _FFMPEG]
    return made + [_piped(*row) for row in _PIPED]


def _by_soundfile(suffix, rate, channels, seconds, options) -> Seed:
    file = io.BytesIO()
    options = {"format": suffix.upper(), **options}
    soundfile.write(file, samples(seconds, rate, channels), rate, **options)
    name = "-".join(["sf", suffix, *map(str, (rate, channels, seconds, *options.values()))])
    return Seed(name, suffix, _repeatable(file.getvalue()))


def _repeatable(data: bytes) -> bytes:
    """Without what libsndfile takes from the clock."""
    peak = data.find(b"PEAK")
    if peak > 0:
        data = data[: peak + 12] + bytes(4) + data[peak + 16 :]
    return with_stream_number(data, 1) if data.startswith(b"OggS") else data


def _by_ffmpeg(folder: Path, suffix, rate, channels, seconds, options) -> Seed:
    path = folder / f"x.{suffix}"
    _ffmpeg(_wav(rate, channels, seconds), *options.split(), "-bitexact", path)
    name = "-".join(["ff", suffix, *map(str, (rate, channels, seconds, options.split()[1]))])
    return Seed(name, suffix, path.read_bytes())


def _piped(suffix: str, form: str) -> Seed:
    data = _ffmpeg(_wav(16000, 1, SHORT), "-bitexact", "-f", form, "-")
    return Seed(f"pipe-{suffix}", suffix, data)


def _wav(rate: int, channels: int, seconds: float) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples(seconds, rate, channels), rate, format="WAV")
    return file.getvalue()


def _ffmpeg(wav: bytes, *options) -> bytes:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", "-i", "-", *options]
    return subprocess.run(command, input=wav, stdout=subprocess.PIPE, check=True).stdout
