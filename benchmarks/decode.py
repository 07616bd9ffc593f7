"""Measures what decoding the first 6 s of a recording costs, of 8 s and of ten minutes."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import av
import librosa
import numpy as np
import soundfile

from benchmarks import decode_cost
from benchmarks.measuring import ROOT, machine, waveforms, write_result
from ser_core.audio.constants import SEGMENT_SAMPLES
from ser_core.audio.decode import decode
from ser_core.storage.reading import open_file

_SHORT, _LONG = 8, 600  # s
_LONG_RATE = 48_000  # Hz; Opus does not support 44.1 kHz
_ROUNDS = 5
_BLOCK = 4_800  # samples; libsndfile crashes when it writes a long Ogg in one call
_LOSSY = 1e-6  # how far samples may be from librosa's; those of lossless formats are equal


class _Format(NamedTuple):
    suffix: str
    rate: int
    channels: int = 1
    codec: str = ""  # of FFmpeg; else libsndfile writes it
    options: Mapping[str, str] = MappingProxyType({})  # of libsndfile


_OPUS = {"format": "OGG", "subtype": "OPUS"}
FORMATS = {
    "WAV 16 kHz": _Format("wav", 16_000),
    "WAV 24 kHz": _Format("wav", 24_000),
    "FLAC 48 kHz": _Format("flac", 48_000),
    "Ogg Vorbis 48 kHz": _Format("ogg", 48_000),
    "MP3 44.1 kHz": _Format("mp3", 44_100),
    "MP3 44.1 kHz, stereo": _Format("mp3", 44_100, 2),
    "Opus 48 kHz": _Format("opus", 48_000, 1, "", _OPUS),
    "Opus 48 kHz, stereo": _Format("opus", 48_000, 2, "", _OPUS),
    "WebM (Opus) 48 kHz": _Format("webm", 48_000, 1, "libopus"),
    "m4a (AAC) 44.1 kHz": _Format("m4a", 44_100, 1, "aac"),
}
_LONG_FORMATS = {
    name: _Format(name, _LONG_RATE, 2, "", _OPUS if name == "opus" else {})
    for name in ("wav", "flac", "ogg", "opus", "mp3")
}
_LOSSLESS = {"wav", "flac"}


def write(path: Path, form: _Format, seconds: int) -> None:
    """Writes synthetic voices; the channels differ."""
    voices = waveforms([form.rate / 16_000] * form.channels)  # 1 s at the format's rate
    second = np.stack(voices, axis=1)
    if form.codec:
        _write_with_ffmpeg(path, form, np.tile(second, (seconds, 1)))
        return
    with soundfile.SoundFile(path, "w", form.rate, form.channels, **form.options) as file:
        for _ in range(seconds):
            for start in range(0, form.rate, _BLOCK):
                file.write(second[start : start + _BLOCK])


def _write_with_ffmpeg(path: Path, form: _Format, samples: np.ndarray) -> None:
    with av.open(str(path), "w", format="ipod" if form.suffix == "m4a" else None) as container:
        layout = "mono" if form.channels == 1 else "stereo"
        stream = container.add_stream(form.codec, rate=form.rate, layout=layout)
        packed = np.ascontiguousarray(samples.reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
        frame.sample_rate = form.rate
        for each in (frame, None):
            container.mux(stream.encode(each))


# ---- of 8 s --------------------------------------------------------------------------------------


def costs(roots: dict[str, Path], repeats: int) -> dict[str, dict[str, Any]]:
    """The cost of each format for each checkout; the checkouts take turns, the fastest counts."""
    found: dict[str, dict[str, Any]] = {side: {} for side in roots}
    with tempfile.TemporaryDirectory() as folder:
        names = {
            f"{number}.{form.suffix}": name for number, (name, form) in enumerate(FORMATS.items())
        }
        for file, name in names.items():
            write(Path(folder, file), FORMATS[name], _SHORT)
        for _ in range(repeats):
            for side, root in roots.items():
                for file, cost in _costs(root, folder).items():
                    fastest = found[side].setdefault(names[file], cost)
                    found[side][names[file]] = min(fastest, cost, key=lambda each: each["ms"])
    return {side: {name: of_side[name] for name in FORMATS} for side, of_side in found.items()}


def _costs(root: Path, folder: str) -> dict[str, dict[str, Any]]:
    command = [sys.executable, "-P", str(decode_cost.__file__), folder]
    environment = os.environ | {"PYTHONPATH": str(root)}
    run = subprocess.run(
        command, cwd=root, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    measured: dict[str, dict[str, Any]] = json.loads(run.stdout)
    return measured


# ---- of ten minutes ------------------------------------------------------------------------------


def first_segment(path: Path) -> np.ndarray:
    """The first 6 s, decoded as the job does."""
    with open_file(str(path), None) as handle:
        return decode(handle).waveform


def whole_file(path: Path) -> np.ndarray:
    """The whole file, decoded as the card's script does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        samples: np.ndarray = librosa.load(path, sr=16_000)[0]
        return samples


def fastest(decoder: Callable[[Path], np.ndarray], path: Path, rounds: int) -> float:
    """Seconds of the fastest of several rounds."""
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        decoder(path)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def long_files() -> dict[str, dict[str, float]]:
    """The first 6 s of ten minutes, compared with librosa on the whole file."""
    formats = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, form in _LONG_FORMATS.items():
            path = Path(folder, f"ten-minutes.{name}")
            write(path, form, _LONG)
            expected = whole_file(path)[:SEGMENT_SAMPLES]
            tolerance = 0 if name in _LOSSLESS else _LOSSY
            np.testing.assert_allclose(first_segment(path), expected, rtol=0, atol=tolerance)
            ours = fastest(first_segment, path, _ROUNDS)
            librosas = fastest(whole_file, path, 2)
            formats[name] = {
                "first_6_s_seconds": ours,
                "librosa_whole_seconds": librosas,
                "times_as_fast": librosas / ours,
                "times_real_time": 6 / ours,
            }
            print(name, {key: round(value, 4) for key, value in formats[name].items()}, flush=True)
    return formats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--against", type=Path, help="another checkout, which is measured, too")
    flags = parser.parse_args()
    roots = {"now": ROOT} | ({"before": flags.against.resolve()} if flags.against else {})
    before, of_8_s = machine(), costs(roots, flags.repeats)
    for side, formats in of_8_s.items():
        print(side, {name: round(cost["ms"], 2) for name, cost in formats.items()}, flush=True)
    result = {"machine": before, "stereo_hz": _LONG_RATE, "formats": long_files()}
    write_result("decode-cpu", result | {"first_6_of_8_s": of_8_s})


if __name__ == "__main__":
    main()
