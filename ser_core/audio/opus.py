"""Decodes Ogg Opus (RFC 7845) at 48 kHz by FFmpeg's libopus, in half the time of libsndfile's.

It decodes only regular files: one stream of one or two channels, no missing or damaged page, and
positions that are those of the packets. libsndfile decodes all others.
"""

from collections.abc import Iterator
from itertools import groupby
from typing import BinaryIO

import av

from ser_core.audio import ogg
from ser_core.audio.ffmpeg import interleaved
from ser_core.audio.samples import PIECE_SAMPLES, Mixer

RATE = 48_000  # Hz; what was recorded at a lower rate, libsndfile decodes at that rate
_DECODER = "libopus"  # FFmpeg's own decoder gives other samples where Opus uses its speech codec
_MOST_CHANNELS = 2  # FFmpeg has more of them in another order
_MOST_SAMPLES = 5_760  # of a packet
_MOST_BYTES = 1_276  # of a packet with a single frame
# Samples of a frame by the configuration in a packet's first byte (RFC 6716, section 3.1).
_FRAME_SAMPLES = 3 * [480, 960, 1920, 2880] + 2 * [480, 960] + 4 * [120, 240, 480, 960]


def read_if_regular(source: BinaryIO, mixer: Mixer, wanted: int, frames: int) -> bool:
    """Reads the first samples, or leaves the source's position and the mixer as they were.

    Args:
        source: Ogg Opus.
        mixer: receives the samples; has none yet.
        wanted: how many samples per channel to read.
        frames: how many there are, as libsndfile says.

    Returns:
        Whether it did, so that the samples are within 1e-6 of libsndfile's.
    """
    if _DECODER not in av.codecs_available:
        return False
    position = source.tell()
    try:
        for piece in _pieces(source, wanted, to_end=wanted == frames):
            mixer.add(interleaved(piece)[: wanted - mixer.num_samples], RATE)
    except (ogg.IrregularError, av.FFmpegError):
        source.seek(position)
        mixer.restart()
        return False
    return True


def _pieces(source: BinaryIO, wanted: int, to_end: bool) -> Iterator[av.AudioFrame]:
    """At least so many samples, or exactly so many if the file ends with them.

    Raises:
        IrregularError: the file is not regular, or has a gain or more than two channels.
        FFmpegError: libopus cannot decode it.
    """
    pages = ogg.regular_pages(source)
    head = _head(pages)
    pre_skip = int.from_bytes(head[10:12], "little")
    decoder, fifo, decoded = _decoder(head), av.AudioFifo(), 0
    for packet in _packets(pages, pre_skip + wanted if to_end else None):
        for frame in decoder.decode(av.Packet(packet)):
            fifo.write(frame)
            decoded += frame.samples
        if fifo.samples >= PIECE_SAMPLES:
            yield fifo.read()
        if decoded >= wanted and not to_end:
            break
    if decoded < wanted:
        raise ogg.IrregularError
    yield from fifo.read_many(PIECE_SAMPLES, partial=True)


def _packets(pages: Iterator[ogg.RegularPage], end: int | None) -> Iterator[bytes]:
    """The packets of pages whose positions are right.

    Args:
        pages: behind those of the header.
        end: the position at which the last page has to end; None if it may be any.

    Raises:
        IrregularError: a page's position is not that of its packets.
    """
    before = position = 0
    for page in pages:
        if page.packets:
            position, ends = page.position, before + sum(map(_num_samples, page.packets))
            if not before <= position <= ends or (position < ends and not page.last):
                raise ogg.IrregularError
            before = position
        yield from _merged(page.packets)
    if end is not None and position != end:
        raise ogg.IrregularError


def _num_samples(packet: bytes) -> int:
    """The number of samples per channel in a packet.

    Raises:
        IrregularError: it is too short to tell.
    """
    if not packet or (packet[0] & 3 == 3 and len(packet) < 2):
        raise ogg.IrregularError
    num_frames = (1, 2, 2, packet[1] & 63 if packet[0] & 3 == 3 else 0)[packet[0] & 3]
    return num_frames * _FRAME_SAMPLES[packet[0] >> 3]


def _merged(packets: list[bytes]) -> Iterator[bytes]:
    """The same frames in fewer packets, as each call of the decoder takes Python's time."""
    for first, group in groupby(packets, _byte_of_one_frame):
        same_kind = list(group)
        most = _MOST_SAMPLES // _FRAME_SAMPLES[first >> 3] if first is not None else 1
        for start in range(0, len(same_kind), most):
            yield _as_one(same_kind[start : start + most])


def _byte_of_one_frame(packet: bytes) -> int | None:
    """The first byte of a packet of one frame; None if there are more, or the frame is too long."""
    return packet[0] if packet[0] & 3 == 0 and len(packet) <= _MOST_BYTES else None


def _as_one(packets: list[bytes]) -> bytes:
    """A packet with the frames of several (RFC 6716, section 3.2.5)."""
    if len(packets) == 1:
        return packets[0]
    head = bytearray([packets[0][0] | 3, 0x80 | len(packets)])
    for packet in packets[:-1]:
        length = len(packet) - 1
        head += bytes([length] if length < 252 else [252 + length % 4, length // 4 - 63])
    return bytes(head) + b"".join(packet[1:] for packet in packets)


def _head(pages: Iterator[ogg.RegularPage]) -> bytes:
    """The stream's header, which the comments follow."""
    packets: list[bytes] = []
    for page in pages:
        packets += page.packets
        if page.packets and page.position != 0:
            raise ogg.IrregularError
        if len(packets) > 1:
            break
    if [packet[:8] for packet in packets] != [b"OpusHead", b"OpusTags"] or len(packets[0]) < 19:
        raise ogg.IrregularError
    return packets[0]


def _decoder(head: bytes) -> av.AudioCodecContext:
    channels, gain = head[9], int.from_bytes(head[16:18], "little", signed=True)
    # A gain enlarges what the two releases of libopus differ by, too.
    if channels > _MOST_CHANNELS or gain > 0:
        raise ogg.IrregularError
    decoder = av.CodecContext.create(_DECODER, "r")
    decoder.extradata = head
    decoder.options = {"request_sample_fmt": "flt"}
    return decoder
