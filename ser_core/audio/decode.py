"""A file's bytes → the waveform that the model gets; it does not know where the bytes lie."""

import io
import math
import re
from dataclasses import dataclass
from typing import BinaryIO

import av
import numpy as np
import soundfile

from ser_core.audio.constants import FULL_SCALE, SEGMENT_SAMPLES, SEGMENT_SECONDS
from ser_core.audio.resample import resample, to_mono
from ser_core.errors import RecordingError, Status

# The resampler's filter reaches a few hundredths of a second past the cut; with a quarter second
# more than the segment, the samples before the cut are bit-identical to those of the whole file.
_MARGIN_SECONDS = 0.25


@dataclass(frozen=True)
class DecodedAudio:
    """A recording's samples.

    Attributes:
        waveform: mono float32 at 16 kHz, shape ``(num_samples,)``: the first segment, or all of it.
        duration: of the whole recording, s.
        sampling_rate: of the file, Hz.
    """

    waveform: np.ndarray
    duration: float
    sampling_rate: int


def decode(handle: BinaryIO, whole: bool = False) -> DecodedAudio:
    """Decodes a recording to the samples that ``librosa.load(path, sr=16000)`` returns.

    Reads no further than the first segment requires, unless ``whole``.

    Args:
        handle: seekable, at its beginning.
        whole: decode all of it rather than its first 6 s.

    Raises:
        RecordingError: ``empty``, ``decode_error`` or ``truncated``.
    """
    if not handle.read(1):
        raise RecordingError(Status.EMPTY, "the file has no bytes")
    handle.seek(0)
    try:
        samples, duration, rate = _read(
            handle, None if whole else SEGMENT_SECONDS + _MARGIN_SECONDS
        )
    except RecordingError:
        raise
    except Exception as error:  # on arbitrary bytes, decoders raise anything
        reason = f"the decoder failed ({type(error).__name__}: {error})"
        raise RecordingError(Status.DECODE_ERROR, reason) from error
    if not samples.size:
        raise RecordingError(Status.EMPTY, "the file has a header but no samples")
    if not np.isfinite(samples).all():
        raise RecordingError(Status.DECODE_ERROR, "the samples are not all finite numbers")
    waveform = resample(samples, rate)
    return DecodedAudio(waveform if whole else waveform[:SEGMENT_SAMPLES], duration, rate)


def _read(handle: BinaryIO, seconds: float | None) -> tuple[np.ndarray, float, int]:
    try:
        return _read_soundfile(handle, seconds)
    except soundfile.LibsndfileError as error:  # m4a, webm, …: FFmpeg reads more formats
        handle.seek(0)
        try:
            return _read_ffmpeg(handle, seconds)
        except (av.FFmpegError, IndexError) as other:  # IndexError: a container without audio
            reason = getattr(other, "strerror", None) or "no audio track"
            message = f"no decoder can read it (libsndfile: {error.error_string} FFmpeg: {reason})"
            raise RecordingError(Status.DECODE_ERROR, message) from None


def _read_soundfile(handle: BinaryIO, seconds: float | None) -> tuple[np.ndarray, float, int]:
    with soundfile.SoundFile(_native(handle), closefd=False) as file:
        rate, frames = file.samplerate, file.frames
        wanted = math.inf if seconds is None else math.ceil(seconds * rate)
        samples = file.read(int(min(frames, wanted)), dtype="float32", always_2d=True)
        stated = _stated_frames(file, handle)
    if stated is not None:
        _refuse_truncated(min(stated, wanted) / rate, len(samples) / rate)
    return to_mono(samples.T), frames / rate, rate


def _native(handle: BinaryIO) -> int | BinaryIO:
    """The descriptor of an unbuffered file: libsndfile reads it without calling Python.

    The position of a buffered file's descriptor is not that of the file.
    """
    return handle.fileno() if isinstance(handle, io.FileIO) else handle


# libsndfile reduces the size that a WAV or AIFF header states to that of the file, and logs it.
_SHORTENED = re.compile(r"^\s*(?:data|SSND|Data Size)\s*:\s*(\d+) \(should be (\d+)\)", re.M)
# Writers that cannot seek put such a value where the size belongs; it states nothing.
_UNKNOWN_SIZE = 0x7FFF0000


def _stated_frames(file: soundfile.SoundFile, handle: BinaryIO) -> int | None:
    """How many frames the header states, or None if it states none."""
    frames: int = file.frames
    if file.format == "MP3":
        # Only the tag in the first frame counts frames; without it the number is a guess.
        handle.seek(0)
        start = handle.read(4096)
        return frames if b"Xing" in start or b"Info" in start else None
    shortened = _SHORTENED.search(file.extra_info)
    if shortened and int(shortened[2]) < int(shortened[1]) < _UNKNOWN_SIZE:
        return round(frames * int(shortened[1]) / max(int(shortened[2]), 1))
    return frames


# Containers whose header states a duration; for others FFmpeg guesses one from the bit rate.
_WITH_DURATION = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "asf"})


def _read_ffmpeg(handle: BinaryIO, seconds: float | None) -> tuple[np.ndarray, float, int]:
    with av.open(handle, metadata_errors="ignore") as container:
        stream = container.streams.audio[0]
        rate = stream.rate
        wanted = math.inf if seconds is None else math.ceil(seconds * rate)
        samples = _decode_frames(container, stream, wanted)
        complete = samples.shape[1] < wanted
        if complete and stream.duration and stream.time_base and "mp4" in container.format.name:
            # The last packet is padded to a full frame; the track's duration says where to cut.
            samples = samples[:, : round(stream.duration * stream.time_base * rate)]
        stated = container.duration / av.time_base if container.duration else None
        reliable = container.format.name in _WITH_DURATION
    decoded = samples.shape[1] / rate
    if complete and stated and reliable:
        _refuse_truncated(min(stated, wanted / rate), decoded)
    duration = decoded if complete or stated is None else stated
    return to_mono(samples), duration, rate


def _decode_frames(
    container: av.container.InputContainer, stream: av.AudioStream, wanted: float
) -> np.ndarray:
    """Float samples of shape ``(channels, num_samples)``, at least ``wanted`` or all there are."""
    # librosa.load has these files decoded to 16 bits, as the card's numbers were made.
    to_int16 = av.AudioResampler(format="s16p")
    pieces: list[np.ndarray] = []
    count = 0
    for frame in container.decode(stream):
        for piece in to_int16.resample(frame):
            pieces.append(piece.to_ndarray())
            count += piece.samples
        if count >= wanted:
            break
    if not pieces:
        raise RecordingError(Status.EMPTY, "the file has an audio track but no samples")
    return np.concatenate(pieces, axis=1).astype(np.float32) / FULL_SCALE


# A tail that lacks a few frames is common (EMO-DB has one), and the card's script labels what is
# there; a recording that lacks more than a tenth of what the model takes is another matter.
_TOLERATED_LOSS = 0.1
_TOLERATED_SECONDS = 0.1  # a codec's last packet, which some containers count and others do not


def _refuse_truncated(stated: float, decoded: float) -> None:
    if stated - decoded > max(_TOLERATED_LOSS * stated, _TOLERATED_SECONDS):
        message = f"truncated: {decoded:.2f} s of {stated:.2f} s could be decoded"
        raise RecordingError(Status.TRUNCATED, message)
