"""Measures the first 6 s of a ten-minute file of each format: ours, and librosa.load of it all."""

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
RATE = 48_000  # Hz; opus takes no 44.1 kHz
FORMATS: dict[str, dict[str, str]] = {
    "wav": {},
    "flac": {},
    "ogg": {},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "mp3": {},
}
ROUNDS = 5


def write_stereo(path: Path, options: dict[str, str]) -> None:
    """Ten minutes, in blocks: libsndfile dies when it writes a long Ogg in one call."""
    block = np.repeat(waveforms([3.0])[0][:, None], 2, axis=1)  # 1 s at 48 kHz
    with soundfile.SoundFile(path, "w", RATE, 2, **options) as file:
        for _ in range(SECONDS * 10):
            file.write(block[: RATE // 10])


def ours(path: Path) -> np.ndarray:
    """What the job decodes."""
    with open_file(str(path), None) as handle:
        return decode(handle).waveform


def of_it_all(path: Path) -> np.ndarray:
    """What the card's script decodes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        samples: np.ndarray = librosa.load(path, sr=16_000)[0]
        return samples


def seconds(work: Callable[[Path], np.ndarray], path: Path, rounds: int) -> float:
    """The least of some rounds."""
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        work(path)
        taken.append(time.perf_counter() - started)
    return min(taken)


def main() -> None:
    before, formats = machine(), {}
    with tempfile.TemporaryDirectory() as folder:
        for name, options in FORMATS.items():
            path = Path(folder, f"ten-minutes.{name}")
            write_stereo(path, options)
            np.testing.assert_array_equal(ours(path), of_it_all(path)[:SEGMENT_SAMPLES])
            mine, whole = seconds(ours, path, ROUNDS), seconds(of_it_all, path, 2)
            formats[name] = {
                "first_6_s_seconds": mine,
                "librosa_whole_seconds": whole,
                "times_as_fast": whole / mine,
                "times_real_time": 6 / mine,
            }
            print(name, {key: round(value, 4) for key, value in formats[name].items()}, flush=True)
    write_result("decode-cpu", {"machine": before, "stereo_hz": RATE, "formats": formats})


if __name__ == "__main__":
    main()
