"""The pages of an Ogg file (RFC 3533): their packets, and whether their positions can be true."""

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from ser_core.audio.file_view import size_of

_TAIL = 1 << 16  # bytes; a page is no longer
_BLOCK = 1 << 20  # bytes
_LONGEST_PACKET = 4 << 20  # bytes; comments may have pictures
_LONGEST_HEADER = 27 + 255  # bytes
_NO_POSITION = (1 << 64) - 1  # of a page in which no packet ends
# libsndfile 1.2.2 computes in 32 bits how many samples a packet of Opus adds. If positions go back
# by that much, less what a page holds, it returns memory that it has not written.
_FURTHEST_BACK = 1 << 30
_HEADER = struct.Struct("<4sBBQIIIB")
_MAX_PACKET_SAMPLES = 8_192  # of Vorbis; Opus has at most 5,760
_CONTINUES, _BEGINS, _ENDS = 1, 2, 4  # flags of pages: within a packet, the first, the last
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))  # the bits of each byte


class IrregularError(Exception):
    """A file is not one stream of whole pages with the positions of their packets."""


class RegularPage(NamedTuple):
    """A page of a file that is one stream of whole pages.

    Attributes:
        packets: those that end in the page.
        position: the sample at which the last one ends.
        last: whether the page ends the stream.
    """

    packets: list[bytes]
    position: int
    last: bool


def regular_pages(source: BinaryIO) -> Iterator[RegularPage]:
    """The pages from the beginning of a file; leaves its position after the last page read.

    Raises:
        IrregularError: a page is damaged, missing, of another stream, or not behind the one before.
    """
    source.seek(0)
    stream, rest, number, last = None, b"", 0, False
    while header := source.read(_HEADER.size):
        if len(header) < _HEADER.size or last:
            raise IrregularError
        *start, flags, position, serial, sequence, checksum, segments = _HEADER.unpack(header)
        lengths = source.read(segments)
        body = source.read(sum(lengths))
        stream = serial if stream is None else stream
        expected = (_BEGINS if number == 0 else 0) | (_CONTINUES if rest else 0)
        unsigned = b"".join([header[:22], bytes(4), header[26:], lengths, body])
        fields = (*start, serial, sequence, flags & ~_ENDS)
        if fields != (b"OggS", 0, stream, number, expected) or _checksum(unsigned) != checksum:
            raise IrregularError
        number, last = number + 1, bool(flags & _ENDS)
        packets, rest = _packets(lengths, body, rest)
        if len(rest) > _LONGEST_PACKET or (not packets and position != _NO_POSITION):
            raise IrregularError
        yield RegularPage(packets, position, last)


def _packets(lengths: bytes, body: bytes, rest: bytes) -> tuple[list[bytes], bytes]:
    """The packets that end in a page, and the beginning of the one that does not."""
    packets, start, end = [], 0, 0
    for length in lengths:
        end += length
        if length < 255:
            packets.append(rest + body[start:end])
            rest, start = b"", end
    return packets, rest + body[start:]


def _checksum(page: bytes) -> int:
    """Ogg's, which takes the bits of each byte in the order opposite to that of zlib's."""
    crc = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(crc.to_bytes(4, "little").translate(_REVERSED), "big")


def opus_positions_go_back(source: BinaryIO, until: int) -> bool:
    """Whether the positions of the first pages go back so far that libsndfile returns garbage.

    Args:
        source: Ogg Opus; its position is lost.
        until: how many bytes libsndfile has read.
    """
    stream, before = None, 0
    for serial, position, *_ in _pages(source, until):
        stream = serial if stream is None else stream
        if serial != stream or position == _NO_POSITION:
            continue
        if before - position >= _FURTHEST_BACK:
            return True
        before = position
    return False


def _pages(source: BinaryIO, until: int) -> Iterator[tuple[int, int, int, int]]:
    for start in range(0, until, _BLOCK):
        source.seek(start)
        data = source.read(min(_BLOCK, until - start) + _LONGEST_HEADER)
        pages = (_page(data, at) for at in positions(data, b"OggS") if at < _BLOCK)
        yield from filter(None, pages)


def end_continues(source: BinaryIO) -> bool:
    """Whether the last page ends the file, is of the first stream, and continues the page before.

    A page holds so many packets, each of a limited length. Chained streams have other numbers.
    """
    source.seek(0)
    first = _page(source.read(_HEADER.size + 255), 0)
    size = size_of(source)
    source.seek(max(size - 2 * _TAIL, 0))
    tail = source.read()
    starts = [at for at in positions(tail, b"OggS") if _page(tail, at)]
    if not first or len(starts) < 2:
        return False
    serial, *_ = first
    before, last = (_page(tail, at) for at in starts[-2:])
    if not before or not last or {before[0], last[0]} != {serial}:
        return False
    added = last[1] - (0 if before[1] == _NO_POSITION else before[1])
    return starts[-1] + last[3] == len(tail) and 0 <= added <= last[2] * _MAX_PACKET_SAMPLES


def _page(data: bytes, at: int) -> tuple[int, int, int, int] | None:
    """A page's stream, position (the sample at which its last packet ends), packets and bytes."""
    if len(data) < at + _HEADER.size:
        return None
    capture, version, _, position, serial, _, _, segments = _HEADER.unpack_from(data, at)
    if capture != b"OggS" or version:
        return None
    lengths = data[at + _HEADER.size :][:segments]
    packets = sum(length < 255 for length in lengths)
    return serial, position, packets, _HEADER.size + segments + sum(lengths)


def positions(data: bytes, pattern: bytes) -> list[int]:
    """Where a pattern occurs."""
    found, at = [], data.find(pattern)
    while at >= 0:
        found.append(at)
        at = data.find(pattern, at + 1)
    return found
