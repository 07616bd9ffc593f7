"""A file's bytes → the waveform that the model gets; it does not know where the bytes lie."""

import io
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import soundfile

from ser_core.audio import ffmpeg, libsndfile
from ser_core.audio.constants import SEGMENT_SAMPLES, SEGMENT_SECONDS
from ser_core.audio.file_view import view
from ser_core.audio.resample import resample
from ser_core.audio.samples import Samples, UnreadableError
from ser_core.errors import RecordingError, Status, one_line

_CHECK_RATE, _CHECK_SAMPLES = 8_000, 800  # so that it is resampled, too


@dataclass(frozen=True)
class DecodedAudio:
    """A recording's samples.

    Attributes:
        waveform: mono float32 at 16 kHz, shape ``(num_samples,)``: the first segment, or all of it.
        duration: of the whole recording, s; None if that is not known for sure.
        sampling_rate: of the file, Hz.
    """

    waveform: np.ndarray
    duration: float | None
    sampling_rate: int


def decode(handle: BinaryIO, whole: bool = False) -> DecodedAudio:
    """Decodes a recording to the samples that ``librosa.load(path, sr=16000)`` returns.

    Reads no further than the first segment requires, unless ``whole``; then, to verify what the
    file says of its duration, a little of its end.

    Args:
        handle: seekable; read from its beginning.
        whole: decode all of it rather than its first 6 s.

    Raises:
        RecordingError: ``empty``, ``truncated``, ``too_large`` where memory runs out, or
            ``decode_error``, also for samples that are not finite or overflow when resampled.
    """
    if handle.seek(0, io.SEEK_END) == 0:
        raise RecordingError(Status.EMPTY, "the file has no bytes")
    try:
        samples = _read(handle, None if whole else SEGMENT_SECONDS)
        waveform = _waveform(samples)
    except RecordingError:
        raise
    except MemoryError:
        raise _too_large() from None
    except Exception as error:  # on arbitrary bytes, decoders raise anything
        if "bad_alloc" in str(error):
            raise _too_large() from None
        reason = f"the decoder failed ({type(error).__name__}: {one_line(error)})"
        raise RecordingError(Status.DECODE_ERROR, reason) from error
    waveform = waveform if whole else waveform[:SEGMENT_SAMPLES]
    return DecodedAudio(waveform, samples.duration, samples.rate)


def check_decoders() -> None:
    """Decodes a recording that is known to be good by both libraries.

    Raises:
        Exception: whatever a library raises that does not work on this machine.
    """
    file = io.BytesIO()
    soundfile.write(file, np.zeros(_CHECK_SAMPLES, np.int16), _CHECK_RATE, format="WAV")
    decode(file)
    source = view(file)
    with ffmpeg.opened(source) as container:
        ffmpeg.read_samples(container, source, None)


def _too_large() -> RecordingError:
    reason = "decoding needs more memory than --decode-memory allows"
    return RecordingError(Status.TOO_LARGE, reason)


def _waveform(samples: Samples) -> np.ndarray:
    """The samples at 16 kHz, if they are what they should be."""
    if samples.stated is not None:
        _refuse_truncated(samples.stated, len(samples.mono) / samples.rate)
    if not samples.mono.size:
        raise RecordingError(Status.EMPTY, "the file has a header but no samples")
    if not np.isfinite(samples.mono).all():
        raise RecordingError(Status.DECODE_ERROR, "the samples are not all finite numbers")
    waveform = resample(samples.mono, samples.rate)
    if not np.isfinite(waveform).all():
        reason = "the samples are so large that resampling overflows"
        raise RecordingError(Status.DECODE_ERROR, reason)
    return waveform


def _read(handle: BinaryIO, seconds: float | None) -> Samples:
    """By libsndfile, as `librosa.load` does, or else by FFmpeg."""
    source = view(handle)
    try:
        return libsndfile.read_samples(source, seconds)
    except UnreadableError as error:
        reason, recognised = error, error.recognised
    try:
        with ffmpeg.opened(source) as container:
            if container.format.name == "mp3" and not recognised:
                with suppress(UnreadableError):
                    return libsndfile.read_samples_by_name(source, ".mp3", seconds)
            return ffmpeg.read_samples(container, source, seconds)
    except UnreadableError as other:
        message = f"no decoder can read it (libsndfile: {reason} FFmpeg: {other})"
        raise RecordingError(Status.DECODE_ERROR, message) from None


# A tail that lacks a few frames is common (EMO-DB has one), and the card's script labels what is
# there; a recording that lacks more than a tenth of what the model takes is another matter.
_TOLERATED_LOSS = 0.1
_TOLERATED_SECONDS = 0.1  # a codec's last packet, which some containers count and others do not


def _refuse_truncated(stated: float, decoded: float) -> None:
    if stated - decoded > max(_TOLERATED_LOSS * stated, _TOLERATED_SECONDS):
        message = f"truncated: {decoded:.2f} s of {stated:.2f} s could be decoded"
        raise RecordingError(Status.TRUNCATED, message)
