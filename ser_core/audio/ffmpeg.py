"""Reads what FFmpeg reads: m4a, webm, wma, AMR and others, as FFmpeg's own command decodes them."""

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, BinaryIO, NoReturn

import av
import numpy as np
from av.stream import Disposition

from ser_core.audio.file_view import reading_at_most, size_of
from ser_core.audio.samples import (
    MonoMixer,
    Samples,
    UnreadableError,
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
# Of those, and of these, the duration can be verified: their packets have true times.
_TIMED = _STATING | {"aiff", "ape", "asf", "avi", "caf", "tta", "w64", "wav", "wv"}
_LAST_PACKETS_BYTES = 1 << 20  # that may be read to verify a duration
_DURATION_TOLERANCE = 0.1  # s; the padding of the last packet
_PADDING_SAMPLES = 4_096  # of a codec's last packet, at most


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
    container: av.container.InputContainer, source: BinaryIO, seconds: float | None
) -> Samples:
    """Reads the beginning of a container's sound, or all of it.

    Args:
        container: of ``opened``.
        source: what it reads.
        seconds: how much of it; None for all.

    Raises:
        UnreadableError: FFmpeg has no decoder for it.
        RecordingError: the rate or the number of channels is not accepted, or there is no sample.
    """
    stream = _best_stream(container)
    mono, rate, ended, on_time = _decode(container, stream, seconds)
    stated = _stated_duration(container, stream, size_of(source))
    form = container.format.name
    if not ended:
        verified = False
        if stated is not None and on_time and form in _TIMED:
            with reading_at_most(source, _LAST_PACKETS_BYTES), suppress(av.FFmpegError):
                verified = _ends_at(container, stream, stated)
        return Samples(mono, rate, duration=stated if verified else None, stated=None)
    if "mp4" in form and stated is not None:
        # The last packet is padded to a full frame; the track's duration says where to cut.
        end = round(stated * rate)
        mono = mono[:end] if len(mono) - end < _PADDING_SAMPLES else mono
    if stated is not None and seconds is not None:
        stated = min(stated, seconds)
    stated = stated if form in _STATING else None
    return Samples(mono, rate, duration=len(mono) / rate, stated=stated)


def _best_stream(container: av.container.InputContainer) -> av.AudioStream:
    """The track that FFmpeg's command chooses: the default one, then the one of most channels."""
    tracks = container.streams.audio
    if not tracks:
        raise UnreadableError("no audio track")
    decodable = [t for t in tracks if t.codec_context and t.codec_context.codec.name in _decoders()]
    if not decodable:
        raise UnreadableError("no decoder for its audio track")
    return max(decodable, key=lambda t: (bool(t.disposition & Disposition.default), t.channels))


def _decode(
    container: av.container.InputContainer, stream: av.AudioStream, seconds: float | None
) -> tuple[np.ndarray, int, bool, bool]:
    """Mono samples, their rate, whether these are all, and whether the frames' times fit them."""
    mixer, rate, ended, late = MonoMixer(), 0, True, math.inf
    start = _start(stream)
    for time, rate, piece in _int16_pieces(container, stream):
        if time is not None:
            late = time - start - mixer.num_samples / rate
        mixer.add(piece)
        if seconds is not None and mixer.num_samples >= math.ceil(seconds * rate):
            ended = False
            break
    if not rate:
        raise RecordingError(Status.EMPTY, "the file has an audio track but no samples")
    return mixer.mono(), rate, ended, abs(late) <= _DURATION_TOLERANCE


def _int16_pieces(
    container: av.container.InputContainer, stream: av.AudioStream
) -> Iterator[tuple[float | None, int, np.ndarray]]:
    """Time in s, rate, and samples of shape ``(num_samples, channels)``, as in the first frame.

    `librosa.load` has these files decoded to 16 bits, as the card's numbers were made. Where the
    format changes midway, FFmpeg's command converts what follows to the first format.
    """
    first: av.AudioFrame | None = None
    kind, resampler = None, None
    for frame in container.decode(stream):
        if first is None:
            refuse_format(frame.sample_rate, frame.layout.nb_channels)
            first = frame
        if kind != (kind := (frame.format.name, frame.layout.name, frame.sample_rate)):
            # As the command does, without what the one before still holds back.
            resampler = av.AudioResampler("s16", first.layout, first.sample_rate)
        yield from _pieces(resampler, frame)
    if resampler is not None:
        yield from _pieces(resampler, None)


def _pieces(
    resampler: av.AudioResampler, frame: av.AudioFrame | None
) -> Iterator[tuple[float | None, int, np.ndarray]]:
    for piece in resampler.resample(frame):
        # Packed: of a planar frame of 8 channels or more, PyAV reads memory that is not there.
        samples = piece.to_ndarray().reshape(-1, piece.layout.nb_channels)
        yield piece.time, piece.sample_rate, samples


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


def _ends_at(
    container: av.container.InputContainer, stream: av.AudioStream, seconds: float
) -> bool:
    """Whether the last packet ends where a duration says, by looking for packets there."""
    start = _start(stream)
    container.seek(math.ceil(seconds / stream.time_base), stream=stream)
    end = 0.0
    for packet in container.demux(stream):
        if packet.pts is not None:
            if float(packet.pts * stream.time_base - start) < end - _DURATION_TOLERANCE:
                return False  # another recording follows, with times of its own
            end = float((packet.pts + (packet.duration or 0)) * stream.time_base - start)
        if end > seconds + _DURATION_TOLERANCE:
            return False
    return abs(end - seconds) <= _DURATION_TOLERANCE
