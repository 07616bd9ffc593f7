"""Checksums of Ogg pages, so that damaged pages are read all the same."""

from functools import cache
from itertools import pairwise

from ser_core.audio.ogg import positions


def with_checksums(data: bytes) -> bytes:
    """The same with right checksums, if it is Ogg."""
    if data[:4] != b"OggS":
        return data
    fixed = bytearray(data)
    starts = [*positions(data, b"OggS"), len(data)]
    for start, next_start in pairwise(starts):
        segments = data[start + 26] if start + 26 < len(data) else 0
        end = start + 27 + segments + sum(data[start + 27 : start + 27 + segments])
        if end == next_start:
            fixed[start + 22 : start + 26] = bytes(4)
            fixed[start + 22 : start + 26] = _crc(fixed[start:end]).to_bytes(4, "little")
    return bytes(fixed)


def with_stream_number(data: bytes, number: int) -> bytes:
    """The same with another number of the stream in all pages."""
    fixed = bytearray(data)
    for start in positions(data, b"OggS"):
        fixed[start + 14 : start + 18] = number.to_bytes(4, "little")
    return with_checksums(bytes(fixed))


@cache
def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
        table.append(crc)
    return table


def _crc(data: bytes | bytearray) -> int:
    table, crc = _crc_table(), 0
    for byte in data:
        crc = (crc << 8 & 0xFFFFFFFF) ^ table[crc >> 24 ^ byte]
    return crc
