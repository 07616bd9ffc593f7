"""A file's bytes → the waveform the model hears; it does not know where the bytes lie."""

import math
import re
from dataclasses import dataclass
from typing import BinaryIO

import av
import numpy as np
import soundfile
import soxr

from ser_core.audio.constants import FULL_SCALE, SAMPLING_RATE, SEGMENT_SAMPLES, SEGMENT_SECONDS
from ser_core.errors import RecordingError, Status

# The resampler's filter reaches a few hundredths of a second past the cut; with a quarter second
# more than the segment, the samples before the cut are bit-identical to those of the whole file.
_MARGIN_SECONDS = 0.25

# What listing takes for audio; decoding goes by content, not by name.
EXTENSIONS = frozenset(
    "aac ac3 aif aifc aiff amr ape au caf flac m4a m4b mka mkv mov mp2 mp3 mp4 mpga oga ogg opus "
    "snd sph spx w64 wav wave weba webm wma wv".split()
)


@dataclass(frozen=True)
class Recording:
    """A decoded recording.

    Attributes:
        waveform: mono float32 at 16 kHz, shape ``(num_samples,)``: the first segment, or all of it.
        duration: seconds, of the whole recording.
        sampling_rate: Hz, of the file.
    """

    waveform: np.ndarray
    duration: float
    sampling_rate: int


def is_audio(path: str) -> bool:
    """Whether a name ends like a recording's.

    >>> is_audio("a/B.WAV"), is_audio("notes.txt"), is_audio("wav")
    (True, False, False)
    """
    return "." in path and path.rsplit(".", 1)[-1].lower() in EXTENSIONS


def decode(handle: BinaryIO, whole: bool = False) -> Recording:
    """Decodes a recording to the samples that ``librosa.load(path, sr=16000)`` gives.

    Reads no further than the first segment needs, unless ``whole``.

    Args:
        handle: seekable, at its beginning.
        whole: decode all of it rather than its first 6 s.

    Raises:
        RecordingError: ``empty``, ``decode_error`` or ``truncated``.
    """
    if not handle.read(1):
        raise RecordingError(Status.EMPTY, "the file has no bytes")
    handle.seek(0)
    samples, duration, rate = _read(handle, None if whole else SEGMENT_SECONDS + _MARGIN_SECONDS)
    if not samples.size:
        raise RecordingError(Status.EMPTY, "the file has a header but no samples")
    if not np.isfinite(samples).all():
        raise RecordingError(Status.DECODE_ERROR, "its samples are not all finite numbers")
    waveform = _resample(samples, rate)
    return Recording(waveform if whole else waveform[:SEGMENT_SAMPLES], duration, rate)


def _read(handle: BinaryIO, seconds: float | None) -> tuple[np.ndarray, float, int]:
    try:
        return _read_soundfile(handle, seconds)
    except soundfile.LibsndfileError as error:  # m4a, webm, …: FFmpeg knows more formats
        handle.seek(0)
        try:
            return _read_ffmpeg(handle, seconds)
        except (av.FFmpegError, IndexError) as other:  # IndexError: a container without audio
            words = getattr(other, "strerror", None) or "no audio track"
            message = f"no decoder reads it (libsndfile: {error.error_string} FFmpeg: {words})"
            raise RecordingError(Status.DECODE_ERROR, message) from None


def _read_soundfile(handle: BinaryIO, seconds: float | None) -> tuple[np.ndarray, float, int]:
    with soundfile.SoundFile(_native(handle), closefd=False) as file:
        rate, frames = file.samplerate, file.frames
        wanted = math.inf if seconds is None else math.ceil(seconds * rate)
        samples = file.read(int(min(frames, wanted)), dtype="float32", always_2d=True)
        promised = _promised_frames(file, handle)
    if promised is not None:
        _refuse_truncated(min(promised, wanted) / rate, len(samples) / rate)
    return _mono(samples.T), frames / rate, rate


def _native(handle: BinaryIO) -> int | BinaryIO:
    """The file descriptor where there is one: libsndfile reads it without calling Python."""
    try:
        return handle.fileno()
    except OSError:
        return handle


# libsndfile cuts a WAV's or AIFF's promised size down to the file's own, and says so in its log.
_SHORTENED = re.compile(r"^\s*(?:data|SSND|Data Size)\s*:\s*(\d+) \(should be (\d+)\)", re.M)
# What writers that cannot seek leave where the size belongs; such a file is as long as it is.
_UNKNOWN_SIZE = 0x7FFF0000


def _promised_frames(file: soundfile.SoundFile, handle: BinaryIO) -> int | None:
    """How many frames the header promises, or None if it does not say."""
    frames: int = file.frames
    if file.format == "MP3":
        # Only the tag that encoders write into the first frame counts frames; else it's a guess.
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
    got = samples.shape[1] / rate
    if complete and stated and reliable:
        _refuse_truncated(min(stated, wanted / rate), got)
    duration = got if complete or stated is None else stated
    return _mono(samples), duration, rate


def _decode_frames(
    container: av.container.InputContainer, stream: av.AudioStream, wanted: float
) -> np.ndarray:
    """Float samples of shape ``(channels, num_samples)``, as far as ``wanted`` or to the end."""
    # librosa.load has these files decoded to 16 bits, and the card's numbers come from there.
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


# A tail cut off by a few frames is common (EMO-DB has one), and the card's script labels what is
# there; a recording that lacks more than a tenth of what the model would hear is another one.
_TOLERATED_LOSS = 0.1
_TOLERATED_SECONDS = 0.1  # a codec's last packet, which containers count or don't


def _refuse_truncated(promised: float, got: float) -> None:
    if promised - got > max(_TOLERATED_LOSS * promised, _TOLERATED_SECONDS):
        message = f"cut short: {got:.2f} s are there of the {promised:.2f} s to hear"
        raise RecordingError(Status.TRUNCATED, message)


def _mono(samples: np.ndarray) -> np.ndarray:
    """The mean over channels, shape ``(channels, num_samples)`` → ``(num_samples,)``."""
    channels = len(samples)
    if channels >= 8:  # from here on `np.mean`, and so librosa, adds in another order
        mixed: np.ndarray = np.mean(samples, axis=0)
        return mixed
    total: np.ndarray = samples[0]
    for channel in samples[1:]:  # of interleaved samples, several times as fast as `np.mean`
        total = total + channel
    return total if channels == 1 else np.divide(total, np.float32(channels))


def _resample(samples: np.ndarray, rate: int) -> np.ndarray:
    """``librosa.resample`` as ``librosa.load`` calls it: soxr HQ, ``ceil(n × ratio)`` samples."""
    if rate == SAMPLING_RATE:
        return np.ascontiguousarray(samples)
    length = math.ceil(len(samples) * (SAMPLING_RATE / rate))
    resampled: np.ndarray = soxr.resample(samples, rate, SAMPLING_RATE, quality="HQ")[:length]
    return np.pad(resampled, (0, length - len(resampled)))
