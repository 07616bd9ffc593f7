"""Measures decoding the first 6 s of a ten-minute file, compared with librosa on the whole file."""

import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import librosa
import numpy as np
import soundfile

from benchmarks.measuring import machine, waveforms, write_result
from ser_core.audio.constants import SEGMENT_SAMPLES
from ser_core.audio.decode import decode
from ser_core.storage.reading import open_file

SECONDS = 600
RATE = 48_000  # Hz; Opus does not support 44.1 kHz
FORMATS: dict[str, dict[str, str]] = {
    "wav": {},
    "flac": {},
    "ogg": {},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "mp3": {},
}
ROUNDS = 5


def write_stereo(path: Path, options: dict[str, str]) -> None:
    """Writes ten minutes in blocks; libsndfile crashes when it writes a long Ogg in one call."""
    block = np.repeat(waveforms([3.0])[0][:, None], 2, axis=1)  # 1 s at 48 kHz
    with soundfile.SoundFile(path, "w", RATE, 2, **options) as file:
        for _ in range(SECONDS * 10):
            file.write(block[: RATE // 10])


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


def main() -> None:
    machine_before, formats = machine(), {}
    with tempfile.TemporaryDirectory() as folder:
        for name, options in FORMATS.items():
            path = Path(folder, f"ten-minutes.{name}")
            write_stereo(path, options)
            expected = whole_file(path)[:SEGMENT_SAMPLES]
            np.testing.assert_array_equal(first_segment(path), expected)
            ours = fastest(first_segment, path, ROUNDS)
            librosas = fastest(whole_file, path, 2)
            formats[name] = {
                "first_6_s_seconds": ours,
                "librosa_whole_seconds": librosas,
                "times_as_fast": librosas / ours,
                "times_real_time": 6 / ours,
            }
            print(name, {key: round(value, 4) for key, value in formats[name].items()}, flush=True)
    result = {"machine": machine_before, "stereo_hz": RATE, "formats": formats}
    write_result("decode-cpu", result)


if __name__ == "__main__":
    main()
