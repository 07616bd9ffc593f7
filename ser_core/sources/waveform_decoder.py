"""Waveforms in memory → segments, as if they had been read from files."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import soundfile

from ser_core.audio.segments import Segmentation
from ser_core.errors import RecordingError, Status
from ser_core.isolation import Caller
from ser_core.sources.file_decoder import Decoded, FileJob, decode_file
from ser_core.sources.recording import Recording


class WaveformDecoder:
    """Makes of waveforms what `Decoder` makes of files with the same samples."""

    def __init__(self, waveforms: Sequence[np.ndarray], rate: int, how: Segmentation) -> None:
        """Decodes nothing yet.

        Args:
            waveforms: float or int16, each of shape ``(num_samples,)``.
            rate: of all of them, Hz.
            how: they are cut into segments.
        """
        self._waveforms = iter(waveforms)
        self._rate = rate
        self._how = how

    def decode(self, recordings: Sequence[Recording]) -> Iterator[Decoded]:
        """Decodes as many waveforms as there are recordings, from the first that is left."""
        for position, recording in enumerate(recordings):
            content, here = _as_wav(next(self._waveforms), self._rate), _Here()
            last = decode_file(FileJob(position, [recording], content, self._how), here)
            yield from [*here.sent, last]

    def check(self) -> None:
        """Nothing can be wrong with the machine: no file is read."""


class _Here(Caller):
    """The caller of `decode_file` in the same process.

    Attributes:
        sent: the parts of a long recording but the last.
    """

    def __init__(self) -> None:
        self.sent: list[Decoded] = []

    @contextmanager
    def pause(self) -> Iterator[None]:
        yield

    def send(self, value: Decoded) -> None:
        self.sent.append(value)


def _as_wav(waveform: np.ndarray, rate: int) -> bytes | RecordingError:
    """A waveform as a file with identical samples; RF64 is WAV of any length."""
    if not len(waveform):
        return RecordingError(Status.EMPTY, "the waveform has no samples")
    subtype = "PCM_16" if waveform.dtype == np.int16 else "FLOAT"
    if subtype == "FLOAT":
        waveform = waveform.astype(np.float32, copy=False)
    file = io.BytesIO()
    soundfile.write(file, waveform, rate, format="RF64", subtype=subtype)
    return file.getvalue()
