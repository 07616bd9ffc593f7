"""A file's bytes → the waveform that the model gets; it does not know where the bytes lie."""

import io
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np
import soundfile

from ser_core.audio import ffmpeg, libsndfile
from ser_core.audio.constants import SEGMENT_SAMPLES, SEGMENT_SECONDS
from ser_core.audio.file_view import view
from ser_core.audio.quality import QualityMeter
from ser_core.audio.resample import Resampler
from ser_core.audio.samples import Mixer, Samples, UnreadableError
from ser_core.errors import RecordingError, Status, one_line

_CHECK_RATE, _CHECK_SAMPLES = 8_000, 800  # so that it is resampled, too


class AudioInfo(NamedTuple):
    """What is known of a file that was decoded.

    Attributes:
        duration: of the whole file, s; None if that is not known for sure.
        sampling_rate: of the file, Hz; None if it was not decoded to the end.
        speech: the share of the recording in which somebody speaks; None if nobody looked.
        quality: as `Quality` has it, as well as the following ones; None if nobody measured.
    """

    duration: float | None
    sampling_rate: int | None
    speech: float | None = None
    quality: str | None = None
    rms_db: float | None = None
    peak: float | None = None
    clipped_share: float | None = None
    level_range_db: float | None = None


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
    sampling_rate: int | None


class Consumer(Protocol):
    """Takes a file's samples at 16 kHz as they are decoded."""

    def add(self, samples: np.ndarray) -> None:
        """Takes float32 of shape ``(tracks, num_samples)``."""

    def restart(self) -> None:
        """The samples begin again with the first one."""


def decode(handle: BinaryIO, whole: bool = False) -> DecodedAudio:
    """Decodes a recording to the samples that ``librosa.load(path, sr=16000)`` returns.

    They are identical for lossless formats, and differ by at most 1e-6 for lossy ones.

    Reads no further than the first segment requires, unless ``whole``; then, to verify what the
    file says of its duration, a little of its end.

    Args:
        handle: seekable; read from its beginning.
        whole: decode all of it rather than its first 6 s.

    Raises:
        RecordingError: as `decode_into`.
    """
    collected = _Collector()
    info = decode_into(handle, collected, None if whole else SEGMENT_SECONDS)
    waveform = collected.waveform()
    waveform = waveform if whole else waveform[:SEGMENT_SAMPLES]
    return DecodedAudio(waveform, info.duration, info.sampling_rate)


def decode_into(
    handle: BinaryIO,
    consumer: Consumer,
    seconds: float | None,
    each_channel: bool = False,
    meter: QualityMeter | None = None,
) -> AudioInfo:
    """Decodes a recording block by block, in memory that does not grow with its length.

    Args:
        handle: seekable; read from its beginning.
        consumer: receives the samples that ``librosa.load(path, sr=16000)`` returns.
        seconds: how much of the beginning; a little more is passed on. None for all of it.
        each_channel: keep the channels apart rather than mix them.
        meter: receives the samples as the file has them.

    Raises:
        RecordingError: ``empty``, ``truncated``, ``too_large``, or ``decode_error``, also where
            samples are not finite or overflow; samples may have been passed on before.
    """
    if handle.seek(0, io.SEEK_END) == 0:
        raise RecordingError(Status.EMPTY, "the file has no bytes")
    resampled = _Resampled(consumer)
    mixer = Mixer(resampled, each_channel, meter)
    try:
        samples = _read(handle, mixer, seconds)
        resampled.finish()
    except RecordingError:
        raise
    except MemoryError:
        raise _too_large() from None
    except Exception as error:  # on arbitrary bytes, decoders raise anything
        if error is resampled.failure:
            raise
        if "bad_alloc" in str(error):
            raise _too_large() from None
        reason = f"the decoder failed ({type(error).__name__}: {one_line(error)})"
        raise RecordingError(Status.DECODE_ERROR, reason) from error
    if samples.stated is not None:
        _refuse_truncated(samples.stated, resampled.num_samples / samples.rate)
    if not resampled.num_samples:
        raise RecordingError(Status.EMPTY, "the file has a header but no samples")
    return AudioInfo(samples.duration, samples.rate)


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
        ffmpeg.read_samples(container, source, Mixer(_Resampled(_Collector())), None)


def _too_large() -> RecordingError:
    reason = "decoding needs more memory than --decode-memory allows"
    return RecordingError(Status.TOO_LARGE, reason)


class _Collector:
    """Keeps all samples of one track."""

    def __init__(self) -> None:
        self._blocks: list[np.ndarray] = []

    def add(self, samples: np.ndarray) -> None:
        self._blocks.append(samples[0])

    def restart(self) -> None:
        self._blocks.clear()

    def waveform(self) -> np.ndarray:
        return np.ascontiguousarray(_joined(self._blocks))


def _joined(blocks: Sequence[np.ndarray]) -> np.ndarray:
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


class _Resampled:
    """A `Sink` that passes samples on at 16 kHz, if they are what they should be.

    Attributes:
        num_samples: per track at the file's rate, so far.
        failure: what the consumer raised, which says nothing about the file.
    """

    def __init__(self, consumer: Consumer) -> None:
        self.num_samples = 0
        self.failure: Exception | None = None
        self._consumer = consumer
        self._resampler: Resampler | None = None

    def add(self, samples: np.ndarray, rate: int) -> None:
        if not np.isfinite(samples).all():
            raise RecordingError(Status.DECODE_ERROR, "the samples are not all finite numbers")
        if self._resampler is None:
            self._resampler = Resampler(rate, len(samples))
        self.num_samples += samples.shape[1]
        self._pass_on(self._resampler.add(samples))

    def restart(self) -> None:
        self.num_samples, self._resampler = 0, None
        self._consumer.restart()

    def finish(self) -> None:
        if self._resampler is not None:
            self._pass_on(self._resampler.finish())

    def _pass_on(self, samples: np.ndarray) -> None:
        if not np.isfinite(samples).all():
            reason = "the samples are so large that resampling overflows"
            raise RecordingError(Status.DECODE_ERROR, reason)
        if not samples.shape[1]:
            return
        try:
            self._consumer.add(samples)
        except Exception as error:
            self.failure = error
            raise


def _read(handle: BinaryIO, mixer: Mixer, seconds: float | None) -> Samples:
    """By libsndfile, as `librosa.load` does, or else by FFmpeg."""
    source = view(handle)
    try:
        return libsndfile.read_samples(source, mixer, seconds)
    except UnreadableError as error:
        reason, recognised = error, error.recognised
    mixer.restart()
    try:
        with ffmpeg.opened(source) as container:
            if container.format.name == "mp3" and not recognised:
                with suppress(UnreadableError):
                    return libsndfile.read_samples_by_name(source, ".mp3", mixer, seconds)
                mixer.restart()
            return ffmpeg.read_samples(container, source, mixer, seconds)
    except UnreadableError as other:
        message = f"no decoder can read it (libsndfile: {reason} FFmpeg: {other})"
        raise RecordingError(Status.DECODE_ERROR, message) from None


# A tail that lacks a few frames is common (EMO-DB has one), and the card's script labels what is
# there; a recording that lacks more than a tenth of what the model takes is another matter.
_TOLERATED_LOSS = 0.1
_TOLERATED_SECONDS = 0.1  # a codec's last packet, which some containers count and others do not


def tolerated_loss(seconds: float) -> float:
    """How much of so many seconds may be missing, s."""
    return max(_TOLERATED_LOSS * seconds, _TOLERATED_SECONDS)


def _refuse_truncated(stated: float, decoded: float) -> None:
    if stated - decoded > tolerated_loss(stated):
        message = f"truncated: {decoded:.2f} s of {stated:.2f} s could be decoded"
        raise RecordingError(Status.TRUNCATED, message)
