"""The pages of an Ogg file (RFC 3533): how they end, and whether their positions can be true."""

import struct
from collections.abc import Iterator
from typing import BinaryIO

from ser_core.audio.file_view import size_of

_TAIL = 1 << 16  # bytes; a page is no longer
_BLOCK = 1 << 20  # bytes
_LONGEST_HEADER = 27 + 255  # bytes
_NO_POSITION = (1 << 64) - 1  # of a page in which no packet ends
# libsndfile 1.2.2 computes in 32 bits how many samples a packet of Opus adds. If positions go back
# by that much, less what a page holds, it returns memory that it has not written.
_FURTHEST_BACK = 1 << 30
_HEADER = struct.Struct("<4sBBQIIIB")
_MAX_PACKET_SAMPLES = 8_192  # of Vorbis; Opus has at most 5,760


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
