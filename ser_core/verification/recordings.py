"""Recordings → waveforms as the model card's script reads them: from a path, by librosa."""

import os
import shutil
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from ser_core.audio.constants import SAMPLING_RATE
from ser_core.errors import RecordingError, Status, one_line
from ser_core.sources.forms import open_recording, read_members
from ser_core.sources.recording import Recording
from ser_core.storage.filesystem import is_local, local_path
from ser_core.storage.reading import Stopwatch

# Read behind what is needed, so that no end but the file's own affects what is used.
_MARGIN_SECONDS = 60.0


def local_files(
    recordings: Mapping[str, Recording],
) -> Iterator[tuple[list[str], Path | RecordingError]]:
    """Each file once, on a disk of this machine, with the names of the recordings in it.

    A file that lies elsewhere is copied; the copy is gone when the next one comes.

    Args:
        recordings: by any name; members of a packed file in its order.
    """
    files: defaultdict[str, list[str]] = defaultdict(list)
    for name, recording in recordings.items():
        files[recording.file].append(name)
    packed: defaultdict[str, list[Recording]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="ser-batch-") as folder:
        for file, names in files.items():
            recording = recordings[names[0]]
            if recording.member is not None:
                packed[recording.uri].append(recording)
            elif is_local(recording.uri):
                yield names, Path(local_path(recording.uri))
            else:
                yield names, _copied(recording, Path(folder) / f"file{_suffix(file)}")
        for uri, members in packed.items():
            contents = read_members(uri, members, Stopwatch())
            for member, content in zip(members, contents, strict=True):
                path: Path | RecordingError = Path(folder) / f"file{_suffix(member.path)}"
                if isinstance(content, bytes) and isinstance(path, Path):
                    path.write_bytes(content)
                else:
                    path = content if isinstance(content, RecordingError) else path
                yield files[member.file], path


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1]


def _copied(recording: Recording, path: Path) -> Path | RecordingError:
    try:
        with open_recording(recording, Stopwatch()) as remote, path.open("wb") as local:
            shutil.copyfileobj(remote, local)
    except RecordingError as error:
        return error
    return path


def load(path: Path, mix: bool, seconds: float | None) -> np.ndarray:
    """What the card's `librosa.load` returns, for as much of the file as is needed.

    Args:
        path: of the file.
        mix: the channels into one.
        seconds: that are needed of the file's beginning; None for all of it.

    Returns:
        float32, shape ``(channels, num_samples)``; one channel if they are mixed.

    Raises:
        RecordingError: librosa cannot read the file.
    """
    import librosa  # takes seconds

    duration = None if seconds is None else seconds + _MARGIN_SECONDS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # librosa 0.11 announces the end of audioread
        try:
            speech, _ = librosa.load(path=path, sr=SAMPLING_RATE, mono=mix, duration=duration)
        except Exception as error:  # its decoders raise anything
            reason = one_line(error) if str(error) else type(error).__name__
            raise RecordingError(Status.DECODE_ERROR, reason) from None
    waveform: np.ndarray = np.atleast_2d(speech)
    return waveform
