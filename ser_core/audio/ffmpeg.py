"""Reads what FFmpeg reads: m4a, webm, wma, AMR and others, as FFmpeg's own command decodes them."""

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from itertools import chain, pairwise
from typing import Any, BinaryIO, NamedTuple, NoReturn

import av
import numpy as np
from av.stream import Disposition

from ser_core.audio.file_view import reading_at_most, size_of
from ser_core.audio.samples import (
    PIECE_SAMPLES,
    Mixer,
    Samples,
    UnreadableError,
    num_to_read,
    refuse_format,
)
from ser_core.audio.totals import is_plausible
from ser_core.errors import RecordingError, Status

# Demuxers of files with sound in them. Not among them are those that open other files (playlists,
# sequences of images) or devices, and those of subtitles and scripts.
_FORMATS = """
    aac ac3 aiff amr amrnb amrwb ape asf au avi caf dsf dts dtshd eac3 flac flv g722 gsm iff ilbc
    ircam kux loas matroska mlp mov mp3 mpc mpc8 mpeg mpegts nistsphere nut oga ogg oma qcp rm shn
    sox sph tak truehd tta voc w64 wav wsaud wtv wv wve xwma
""".split()
# Their decoders; all of PCM and ADPCM are added, with the names that this FFmpeg has.
_DECODERS = """
    aac aac_fixed aac_latm ac3 ac3_fixed alac als amrnb amrwb libopencore_amrnb libopencore_amrwb
    ape atrac1 atrac3 atrac3al atrac3plus atrac3plusal cook dca dsd_lsbf dsd_lsbf_planar dsd_msbf
    dsd_msbf_planar dst eac3 evrc flac g722 g723_1 g726 g726le g728 g729 gsm gsm_ms ilbc libilbc
    mace3 mace6 mlp mp1 mp1float mp2 mp2float mp3 mp3adu mp3adufloat mp3float mp3on4 mp3on4float
    mpc7 mpc8 nellymoser opus libopus qcelp qdm2 qdmc ralf real_144 real_288 s302m shorten sipr
    speex libspeex tak truehd truespeech tta vorbis libvorbis wavpack wmalossless wmapro wmav1 wmav2
    wmavoice xma1 xma2
""".split()
_PCM = ("pcm_", "adpcm_")
# Containers whose header states a duration, which is compared with what was decoded; for others
# FFmpeg guesses one from the bit rate, as for an ASF that is longer or shorter than it says.
_STATING = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"})
# Of those, and of these, the duration can be verified: their packets have times of their own. In
# WAV and AIFF, FFmpeg seeks by the byte rate, from which it may have the duration, too.
_TIMED = _STATING | {"ape", "asf", "avi", "caf", "tta", "wv"}
_LAST_PACKETS_BYTES = 1 << 20  # that may be read to verify a duration
_DURATION_TOLERANCE = 0.1  # s; the padding of the last packet


@contextmanager
def opened(source: BinaryIO) -> Iterator[av.container.InputContainer]:
    """Opens a file for FFmpeg, which can open no other file.

    Raises:
        UnreadableError: FFmpeg cannot read it, or it has no sound.
        MemoryError: FFmpeg could not allocate memory.
    """
    source.seek(0)
    allowed = {
        "format_whitelist": ",".join(_FORMATS),
        "codec_whitelist": ",".join(_decoders()),
        "protocol_whitelist": "none",
    }
    try:
        with av.open(
            source, metadata_errors="ignore", container_options=allowed, io_open=_refuse_to_open
        ) as container:
            yield container
    except MemoryError:
        raise
    except av.ArgumentError:
        raise UnreadableError("not a format that is allowed") from None
    except av.FFmpegError as error:
        raise UnreadableError(error.strerror) from None


@cache
def _decoders() -> tuple[str, ...]:
    pcm = [name for name in av.codecs_available if name.startswith(_PCM)]
    return (*_DECODERS, *sorted(pcm))


def _refuse_to_open(url: str, *_: Any) -> NoReturn:
    raise UnreadableError(f"it refers to another file, {url!r}")


def read_samples(
    container: av.container.InputContainer, source: BinaryIO, mixer: Mixer, seconds: float | None
) -> Samples:
    """Reads the beginning of a container's sound, or all of it.

    Args:
        container: of ``opened``.
        source: what it reads.
        mixer: receives the samples.
        seconds: how much of it; None for all.

    Raises:
        UnreadableError: FFmpeg has no decoder for it.
        RecordingError: the rate or the number of channels is not accepted, or there is no sample.
    """
    stream = _best_stream(container)
    decoded = _decode(container, stream, mixer, seconds)
    rate, form = decoded.rate, container.format.name
    stated = _stated_duration(container, stream, size_of(source))
    if not decoded.ended:
        mixer.finish(rate)
        verified = False
        if stated is not None and decoded.on_time and form in _TIMED and _times_increase(stream):
            with reading_at_most(source, _LAST_PACKETS_BYTES), suppress(av.FFmpegError):
                verified = _ends_at(container, stream, stated)
        return Samples(rate, duration=stated if verified else None, stated=None)
    padding = _padding(decoded.last, stream, rate) if "mp4" in form else 0
    mixer.finish(rate, padding)
    if form not in _STATING:
        stated = None
    elif stated is not None:
        stated = min(stated, seconds or math.inf) - padding / rate
    return Samples(rate, duration=(mixer.num_samples - padding) / rate, stated=stated)


def _best_stream(container: av.container.InputContainer) -> av.AudioStream:
    """The track that FFmpeg's command chooses: the default one, then the one of most channels."""
    tracks = container.streams.audio
    if not tracks:
        raise UnreadableError("no audio track")
    decodable = [t for t in tracks if t.codec_context and t.codec_context.codec.name in _decoders()]
    if not decodable:
        raise UnreadableError("no decoder for its audio track")
    return max(decodable, key=lambda t: (bool(t.disposition & Disposition.default), t.channels))


class _Decoded(NamedTuple):
    """What was decoded.

    Attributes:
        rate: Hz.
        ended: whether these are all samples.
        on_time: whether the time of the last frame fits what was decoded before.
        last: the last frame.
    """

    rate: int
    ended: bool
    on_time: bool
    last: av.AudioFrame


def _decode(
    container: av.container.InputContainer,
    stream: av.AudioStream,
    mixer: Mixer,
    seconds: float | None,
) -> _Decoded:
    frames = (frame for packet in _packets(container, stream) for frame in packet.decode())
    first = next(frames, None)
    if first is None:
        raise RecordingError(Status.EMPTY, "the file has an audio track but no samples")
    rate, start = first.sample_rate, _start(stream)
    refuse_format(rate, first.layout.nb_channels)
    pieces, wanted = _Pieces(first, mixer), num_to_read(seconds, rate)
    ended, late, decoded, last = True, math.inf, 0.0, first
    for frame in chain([first], frames):
        last = frame
        if frame.time is not None:
            late = frame.time - start - decoded / rate
        pieces.add(frame)
        decoded += frame.samples * rate / frame.sample_rate
        if decoded >= wanted:
            ended = False
            break
    pieces.finish(ended)
    return _Decoded(rate, ended, abs(late) <= _DURATION_TOLERANCE, last)


class _Pieces:
    """Converts frames, several at once, to 16-bit samples with the first one's rate and channels.

    `librosa.load` has these files decoded to 16 bits, as the card's numbers were made. Where the
    format changes midway, FFmpeg's command converts what follows to the first format.
    """

    def __init__(self, first: av.AudioFrame, mixer: Mixer) -> None:
        self._layout, self._rate = first.layout, first.sample_rate
        self._mixer = mixer
        self._kind: tuple[str, str, int] | None = None  # of the frames in the queue

    def add(self, frame: av.AudioFrame) -> None:
        """Adds a frame of any format."""
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if kind != self._kind:
            if self._kind:
                self._pass_on()
            # As the command does, without what the one before still holds back.
            self._resampler = av.AudioResampler("s16", self._layout, self._rate)
            self._kind, self._queue = kind, av.AudioFifo()
        time, frame.pts = frame.pts, None  # the queue refuses times that are not continuous
        self._queue.write(frame)
        frame.pts = time
        if self._queue.samples >= PIECE_SAMPLES:
            self._pass_on()

    def finish(self, ended: bool) -> None:
        """Passes on the rest, and what the resampler holds back if the file has ended."""
        self._pass_on()
        if ended:
            self._convert(None)

    def _pass_on(self) -> None:
        if self._queue.samples:
            self._convert(self._queue.read())

    def _convert(self, frame: av.AudioFrame | None) -> None:
        for piece in self._resampler.resample(frame):
            self._mixer.add(interleaved(piece), self._rate)


def interleaved(frame: av.AudioFrame) -> np.ndarray:
    """The samples of a packed frame, shape ``(num_samples, channels)``.

    Of a planar frame of 8 channels or more, PyAV reads memory that is not there.
    """
    samples: np.ndarray = frame.to_ndarray().reshape(-1, frame.layout.nb_channels)
    return samples


def _packets(
    container: av.container.InputContainer, stream: av.AudioStream
) -> Iterator["av.Packet[av.AudioStream]"]:
    """A track's packets.

    At the end, PyAV 18.1 reads memory that it has not written for each track that appeared midway,
    as in MPEG-TS, and so may look for that track, which it does not know: an IndexError.
    """
    with suppress(IndexError):
        yield from container.demux(stream)


def _padding(frame: av.AudioFrame, stream: av.AudioStream, rate: int) -> int:
    """How many samples of an MP4's last frame are behind its end, as FFmpeg 9 counts them.

    Its packet states how long it is, which may be less than what a codec such as AAC has in each
    frame; the track may end before. It ignores both in fragments, and a track that ends before the
    frame begins.
    """
    end = stream.duration if stream.frames else None
    if not frame.duration or frame.pts is None or end is None or frame.pts >= end:
        return 0
    per_unit = frame.time_base * frame.sample_rate
    length = min(frame.duration, end - frame.pts)
    stated, kept = round(frame.duration * per_unit), round(length * per_unit)
    padding = max(stream.codec_context.frame_size, stated) - kept
    return padding * rate // frame.sample_rate if padding <= frame.samples else 0


def _stated_duration(
    container: av.container.InputContainer, stream: av.AudioStream, size: int
) -> float | None:
    """The duration that the container states, s; with several tracks it may be another's."""
    seconds = None
    if stream.duration and stream.time_base:
        seconds = float(stream.duration * stream.time_base)
    elif container.duration and len(container.streams) == 1:
        seconds = container.duration / av.time_base
    return seconds if seconds and seconds > 0 and is_plausible(seconds, size) else None


def _start(stream: av.AudioStream) -> float:
    """The time of the first sample, s."""
    return float(stream.start_time * stream.time_base) if stream.start_time else 0.0


def _times_increase(stream: av.AudioStream) -> bool:
    """Whether no packet of an index is before another; those of repeated MP4 fragments are."""
    if len(stream.index_entries) == stream.frames:  # the table of an MP4 without fragments
        return True
    times = [entry.timestamp for entry in stream.index_entries]
    return all(time < later for time, later in pairwise(times))


def _ends_at(
    container: av.container.InputContainer, stream: av.AudioStream, seconds: float
) -> bool:
    """Whether the last packet ends where a duration says, by looking for packets there."""
    start = _start(stream)
    container.seek(math.ceil(seconds / stream.time_base), stream=stream)
    end = 0.0
    for packet in _packets(container, stream):
        if packet.pts is not None:
            if float(packet.pts * stream.time_base - start) < end - _DURATION_TOLERANCE:
                return False  # another recording follows, with times of its own
            end = float((packet.pts + (packet.duration or 0)) * stream.time_base - start)
        if end > seconds + _DURATION_TOLERANCE:
            return False
    return abs(end - seconds) <= _DURATION_TOLERANCE
