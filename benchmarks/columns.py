"""Measures what the quality of a recording and its embedding cost: time, and bytes a row."""

import argparse
import io
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from benchmarks.measuring import (
    ROOT,
    add_emodb_flag,
    full_checkpoint,
    machine,
    waveforms,
    write_result,
)
from ser_core.audio.constants import SAMPLING_RATE, SEGMENT_SECONDS
from ser_core.audio.decode import decode, decode_into
from ser_core.audio.quality import Quality, QualityMeter
from ser_core.labeling.embeddings import embedding_column
from ser_core.labeling.parts import as_parquet
from ser_core.models.checkpoint import load_checkpoint
from ser_core.models.classifier import Classifier
from ser_core.schema import EMBEDDING
from ser_core.sources.file import is_audio

# Name: seconds of the file, Hz, channels, format, whether all of it is decoded, rounds.
FILES = {
    "wav16k 1.9 s": (1.9, 16_000, 1, "WAV", False, 1000),
    "wav16k 6 s": (6.0, 16_000, 1, "WAV", False, 500),
    "flac48k 6 s": (6.0, 48_000, 1, "FLAC", False, 100),
    "flac48k 6 s, stereo": (6.0, 48_000, 2, "FLAC", False, 50),
    "wav16k 10 min": (600.0, 16_000, 1, "WAV", True, 8),
}
# Recordings, and rounds in which they are classified with and without embeddings.
CHECKPOINTS = {"demo": (200, 2), "published size": (16, 2)}

_NOISE_DB = 5  # below the speech that it is added to
_BROKEN = "not-audio"  # a file of the demo corpus


class _Nobody:
    """Takes samples and does nothing with them."""

    def add(self, samples: np.ndarray) -> None:
        """Does nothing."""

    def restart(self) -> None:
        """Does nothing."""


class _TimedMeter(QualityMeter):
    """Knows how many seconds it has taken."""

    seconds = 0.0

    def add(self, samples: np.ndarray, rate: int) -> None:
        """Takes samples."""
        started = time.perf_counter()
        super().add(samples, rate)
        self.seconds += time.perf_counter() - started

    def quality(self, number: int, speech: float | None) -> Quality | None:
        """What was measured."""
        started = time.perf_counter()
        found = super().quality(number, speech)
        self.seconds += time.perf_counter() - started
        return found


def pairs(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Seconds of each call, the fastest of several rounds in which they take turns."""
    fastest = dict.fromkeys(calls, np.inf)
    for _ in range(rounds):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            fastest[name] = min(fastest[name], time.perf_counter() - started)
    return fastest


def quality_costs() -> dict[str, Any]:
    """Milliseconds of decoding a file and of measuring its quality meanwhile."""
    results = {}
    for name, (seconds, rate, channels, form, whole, rounds) in FILES.items():
        voice = waveforms([seconds * rate / 16_000])[0]
        file, end = io.BytesIO(), None if whole else SEGMENT_SECONDS
        soundfile.write(file, np.repeat(voice[:, None], channels, axis=1), rate, format=form)

        decoding, measuring = [], []
        for _ in range(rounds):
            started, meter = time.perf_counter(), _TimedMeter([(0.0, end)])
            decode_into(file, _Nobody(), end, meter=meter)
            meter.quality(0, None)
            measuring.append(meter.seconds)
            decoding.append(time.perf_counter() - started - meter.seconds)
        milliseconds = {
            "decode_ms": round(1000 * min(decoding), 4),
            "quality_ms": round(1000 * min(measuring), 4),
        }
        results[name] = milliseconds
        print(name, milliseconds, flush=True)
    return results


def quality_of(paths: list[Path]) -> dict[str, Any]:
    """The words that real recordings have, and how small the range of their level is."""
    words, ranges, in_noise = Counter[str](), [], []
    random = np.random.default_rng(0)
    for path in paths:
        meter = QualityMeter([(0.0, SEGMENT_SECONDS)])
        with path.open("rb") as file:
            decode_into(file, _Nobody(), SEGMENT_SECONDS, meter=meter)
            waveform = decode(file).waveform
        noise = random.standard_normal(len(waveform)) * np.sqrt(np.square(waveform).mean())
        found = meter.quality(0, None)
        assert found is not None
        words[found.quality] += 1
        ranges.append(found.level_range_db)
        in_noise.append(_level_range(waveform + noise * 10 ** (-_NOISE_DB / 20)))
    result = {
        "recordings": len(paths),
        "words": dict(words),
        "smallest_level_range_db": min(ranges),
        "smallest_in_noise_db": min(in_noise),
    }
    print(result, flush=True)
    return result


def _level_range(waveform: np.ndarray) -> float:
    meter = QualityMeter([(0.0, None)])
    meter.add(waveform[:, None].astype(np.float32), SAMPLING_RATE)
    found = meter.quality(0, None)
    assert found is not None
    return found.level_range_db


def _recordings(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.rglob("*") if is_audio(path.name) and path.stem != _BROKEN
    )


def embedding_costs(checkpoint: str, paths: list[Path], rounds: int) -> dict[str, Any]:
    """Seconds to classify recordings without and with embeddings, and bytes of these a row."""
    classifier = Classifier(load_checkpoint(checkpoint), num_threads=1)
    recordings = []
    for path in paths:
        with path.open("rb") as file:
            recordings.append(decode(file).waveform)
    prepared = classifier.prepare(recordings)

    def compute(embeddings: bool) -> np.ndarray | None:
        classifier.embeddings = embeddings
        return classifier.compute(prepared).embeddings

    fastest = pairs({"without": lambda: compute(False), "with": lambda: compute(True)}, rounds)
    embeddings = compute(True)
    assert embeddings is not None
    column = embedding_column(embeddings, np.ones(len(embeddings), bool))
    part = as_parquet(pa.table({EMBEDDING: column}))
    stored = pq.read_metadata(io.BytesIO(part)).row_group(0).column(0).total_compressed_size
    result = {
        "recordings": len(paths),
        "precision": classifier.precision,
        "embedding_size": embeddings.shape[1],
        "bytes_per_row": round(stored / len(paths), 1),
        **{f"{side}_ms": round(1000 * value / len(paths), 3) for side, value in fastest.items()},
    }
    print(result, flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_emodb_flag(parser)
    data = parser.parse_args().data
    paths = _recordings(data)
    machine_before, quality = machine(), quality_costs()
    folders = (data, data.parent / "mandarin_words", ROOT / "examples" / "corpus")
    real = {each.name: quality_of(_recordings(each)) for each in folders if each.is_dir()}
    noise = np.random.default_rng(0).standard_normal((30, round(SEGMENT_SECONDS * SAMPLING_RATE)))
    largest_of_noise = max(_level_range(0.1 * each) for each in noise)
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = {
            "demo": str(ROOT / "examples" / "checkpoint"),
            "published size": full_checkpoint(Path(folder)),
        }
        embeddings = {
            name: embedding_costs(checkpoint, paths[: CHECKPOINTS[name][0]], CHECKPOINTS[name][1])
            for name, checkpoint in checkpoints.items()
        }
    result = {
        "machine": machine_before,
        "quality": quality,
        "quality_of_real_recordings": real,
        "largest_level_range_of_noise_db": largest_of_noise,
        "embeddings": embeddings,
    }
    write_result("columns-cpu", result)


if __name__ == "__main__":
    main()
