"""What librosa and libsndfile make of a file; called in child processes."""

import io
import subprocess
from contextlib import suppress
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import soundfile
from soundfile import SoundFile

from ser_core.audio.constants import SEGMENT_SAMPLES
from ser_core.audio.resample import Resampler, to_mono
from ser_core.isolation import Caller

_REFUSALS = (soundfile.LibsndfileError, ValueError, MemoryError)
_MOST_FRAMES = 1 << 60


def load_with_librosa(path: Path, _caller: Caller) -> list[np.ndarray]:
    """What librosa may return, up to the first 6 s; nothing if it cannot read the file."""
    loaded = load_with_libsndfile(path)
    if not loaded and (loaded := load_with_ffmpeg(path)):
        # An MP3 behind junk is one for libsndfile by its name, and for the job by its content.
        named = path.rename(path.with_suffix(".mp3"))
        loaded += load_with_libsndfile(named)
        named.rename(path)
    return [samples[:SEGMENT_SAMPLES] for samples in loaded]


def refused_by_libsndfile(path: Path, _caller: Caller) -> bool:
    """Whether libsndfile cannot read all of a file."""
    with suppress(*_REFUSALS), SoundFile(path) as file:
        file.read(dtype="float32")
        return False
    return True


class _Beginning(SoundFile):
    """Without the seek after reading, which may fail because of damage after the first 6 s."""

    def seekable(self) -> bool:
        return False


def load_with_libsndfile(path: Path) -> list[np.ndarray]:
    """What librosa reads by libsndfile, of all of a file and of its first 6 s.

    Raises:
        RuntimeError: no array has as many samples as the file states; `librosa.load` fails, too.
    """
    import librosa

    loaded = []
    for kind, seconds in ((SoundFile, None), (SoundFile, 6.25), (_Beginning, 6.25)):
        with suppress(*_REFUSALS), kind(path) as file:
            if file.frames > _MOST_FRAMES:
                raise RuntimeError(f"{file.frames} samples")
            if kind is SoundFile or file.frames > seconds * file.samplerate:
                loaded.append(librosa.load(file, sr=16_000, duration=seconds)[0])
    return loaded


def load_with_ffmpeg(path: Path) -> list[np.ndarray]:
    """What librosa reads by FFmpeg's command, which it calls through audioread.

    Nothing if the command complains: releases of FFmpeg differ in how they conceal damage.
    """
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", path]
    command += ["-c:a", "pcm_s16le", "-f", "wav", "-"]
    run = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True)
    if run.returncode or run.stderr:
        return []
    samples, rate = soundfile.read(io.BytesIO(run.stdout), dtype="float32", always_2d=True)
    resampler = Resampler(rate, 1)
    blocks = [resampler.add(to_mono(samples.T)[None]), resampler.finish()]
    return [np.concatenate(blocks, axis=1)[0]]
