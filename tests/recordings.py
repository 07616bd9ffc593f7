"""Recordings and manifests that tests synthesise, and the folder of real recordings."""

import os
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import soundfile

# Real recordings, too large for the repository: a folder with `emodb` and `mandarin_words` in it.
SHARED_DATA = Path(os.environ.get("SER_TEST_DATA") or "SER_TEST_DATA-is-not-set")


def speech_like(seconds: float, rate: int = 16000, channels: int = 1, seed: int = 0):
    """Voiced syllables and noise, float32 of shape (samples,) or (samples, channels)."""
    random = np.random.default_rng(seed)
    time = np.arange(int(seconds * rate)) / rate
    pitch = random.uniform(90, 250) * (1 + 0.2 * np.sin(2 * np.pi * random.uniform(0.5, 3) * time))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    voice = sum(np.sin(k * phase) / k for k in range(1, 6))
    syllables = np.clip(np.sin(2 * np.pi * random.uniform(2, 5) * time), 0, None)
    signals = [
        0.2 * random.uniform(0.5, 1) * voice * syllables + 0.01 * random.standard_normal(len(time))
        for _ in range(channels)
    ]
    samples = np.stack(signals, axis=1).astype(np.float32)
    return samples[:, 0] if channels == 1 else samples


def write_audio(path: Path, samples, rate: int = 16000, **options) -> Path:
    """Writes audio in blocks: libsndfile crashes when it writes a long Ogg in one call."""
    samples = np.asarray(samples)
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    with soundfile.SoundFile(path, "w", rate, channels, **options) as file:
        for start in range(0, len(samples), 4000):
            file.write(samples[start : start + 4000])
    return path


def write_with_ffmpeg(path: Path, samples, rate: int, *options: str) -> Path:
    """Writes a format that libsndfile cannot write: m4a, webm, …"""
    source = write_audio(path.with_suffix(".source.wav"), samples, rate)
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    command = [ffmpeg, "-y", "-loglevel", "error", "-i", source, *options, path]
    subprocess.run(command, check=True)
    source.unlink()
    return path


def write_manifest(frame, path: Path) -> str:
    """Writes a table in the format given by the path's extension."""
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True, force_ascii=False)
    else:
        frame.to_parquet(path, index=False)
    return str(path)
