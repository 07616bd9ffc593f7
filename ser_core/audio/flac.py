"""Where the last frame of a FLAC file ends (RFC 9639, section 9), as its header may state less."""

from typing import BinaryIO

from ser_core.audio.file_view import size_of

_TAIL = 1 << 16  # bytes; a frame is seldom longer
_SYNC = 0xFF
_FIXED, _VARIABLE = 0xF8, 0xF9  # the byte after it; the number is that of the frame, or the sample
_BLOCK_SIZES = {1: 192} | {c: 144 << c for c in range(2, 6)} | {c: 1 << c for c in range(8, 16)}
_RATE_BYTES = {12: 1, 13: 2, 14: 2}


def last_sample(source: BinaryIO, start: int) -> int | None:
    """How many samples per channel the file has, by its last frame; None if none is found.

    Args:
        source: the file.
        start: where ``fLaC`` stands in it.
    """
    source.seek(start)
    info = source.read(12)
    if info[:4] != b"fLaC":
        return None
    block_size = int.from_bytes(info[8:10], "big")
    source.seek(max(size_of(source) - _TAIL, start))
    tail = source.read()
    at = tail.rfind(_SYNC)
    while at >= 0:
        end = _frame_end(tail[at : at + 16], block_size)
        if end is not None:
            return end
        at = tail.rfind(_SYNC, 0, at)
    return None


def _frame_end(header: bytes, block_size: int) -> int | None:
    """The sample with which a frame ends, if these bytes are the header of a frame."""
    if len(header) < 6 or header[1] not in (_FIXED, _VARIABLE):
        return None
    number, at = _coded_number(header)
    size_code, rate_code = header[2] >> 4, header[2] & 15
    size = _BLOCK_SIZES.get(size_code)
    if size_code in (6, 7):
        width = size_code - 5
        size = int.from_bytes(header[at : at + width], "big") + 1
        at += width
    at += _RATE_BYTES.get(rate_code, 0)
    if number is None or size is None or len(header) <= at or _crc8(header[:at]) != header[at]:
        return None
    return size + (number if header[1] == _VARIABLE else number * block_size)


def _coded_number(header: bytes) -> tuple[int | None, int]:
    """The number coded as in UTF-8 from byte 4 on, and the position after it."""
    ones = 8 - (header[4] ^ 0xFF).bit_length()
    following = header[5 : 4 + max(ones, 1)]
    if ones in (1, 8) or any(byte >> 6 != 2 for byte in following):
        return None, 0
    number = header[4] & (0xFF >> (ones + 1))
    for byte in following:
        number = number << 6 | byte & 63
    return number, 5 + len(following)


def _crc8(data: bytes) -> int:
    """The checksum of a header, with the polynomial x⁸ + x² + x + 1."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ (0x07 if crc & 0x80 else 0)) & 0xFF
    return crc
