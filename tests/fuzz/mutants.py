"""Mutant number i: a recording damaged where its format has structure; always the same bytes."""

import struct
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from tests.fuzz.ogg import positions, with_checksums
from tests.fuzz.seeds import Seed, seeds

Random = np.random.Generator

_NUMBERS = [0, 1, 2, 3, 7, 8, 16, 255, 256, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
_NUMBERS += [999, 1000, 8000, 768000, 768001, 1 << 40, (1 << 62) + 1, (1 << 63) - 1, (1 << 64) - 1]
_FLOATS = [np.nan, np.inf, -np.inf, 1e38, -3e38, 1e-40, 1e30, 65504.0]


def mutant(number: int) -> Seed:
    """One to three kinds of damage, of a seed that follows from the number."""
    random = np.random.default_rng(number)
    seed = seeds()[int(random.integers(len(seeds())))]
    data, names = seed.data, []
    for _ in range(int(random.choice([1, 1, 1, 2, 3]))):
        operation = OPERATIONS[int(random.integers(len(OPERATIONS)))]
        data = operation(data, random)
        names.append(operation.__name__.strip("_"))
    return Seed(f"{number}:{seed.name}:{'+'.join(names)}", seed.suffix, data)


# ---- structure -----------------------------------------------------------------------------------


def parts(data: bytes) -> list[int]:
    """Where a file's chunks, boxes, pages, blocks or frames begin; at least its beginning."""
    for magic, find in _STRUCTURES.items():
        if magic in data[:12]:
            return find(data) or [0]
    return [0, *_frames(data)]


def _chunks(data: bytes, start: int, size: Callable[[bytes], int]) -> list[int]:
    found, at = [0], start
    while 0 < at < len(data) - 8 and len(found) < 500:
        found.append(at)
        length = size(data[at : at + 24])
        at = at + length if length > 0 else len(data)
    return found


def _riff(data: bytes) -> list[int]:
    return _chunks(data, 12, lambda h: 8 + (struct.unpack("<I", h[4:8])[0] + 1 & ~1))


def _iff(data: bytes) -> list[int]:
    return _chunks(data, 12, lambda h: 8 + (struct.unpack(">I", h[4:8])[0] + 1 & ~1))


def _caf(data: bytes) -> list[int]:
    return _chunks(data, 8, lambda h: 12 + struct.unpack(">q", h[4:12].ljust(8, b"\0"))[0])


def _w64(data: bytes) -> list[int]:
    return _chunks(data, 40, lambda h: struct.unpack("<q", h[16:24].ljust(8, b"\0"))[0] + 7 & ~7)


def _boxes(data: bytes) -> list[int]:
    names = b"moov mvhd trak tkhd mdia mdhd hdlr minf stbl stsd stts stsc stsz stco esds mdat moof"
    return sorted({0} | {at - 4 for n in names.split() if (at := data.find(n)) >= 4})


def _pages(data: bytes) -> list[int]:
    return positions(data, b"OggS")


def _blocks(data: bytes) -> list[int]:
    found, at = [0], 4
    while at < len(data) - 4:
        found.append(at)
        last, length = data[at] >> 7, int.from_bytes(data[at + 1 : at + 4], "big")
        at += 4 + length
        if last:
            break
    return found + [f for f in positions(data, b"\xff\xf8") if f >= at]


def _elements(data: bytes) -> list[int]:
    ids = [
        "1549a966",
        "1654ae6b",
        "1f43b675",
        "1c53bb6b",
        "114d9b74",
        "4489",
        "b5",
        "9f",
        "86",
        "a3",
    ]
    return sorted({0} | {at for i in ids if (at := data.find(bytes.fromhex(i))) >= 0})


def _objects(data: bytes) -> list[int]:
    return _chunks(data, 30, lambda h: struct.unpack("<q", h[16:24].ljust(8, b"\0"))[0])


def _frames(data: bytes) -> list[int]:
    """Where MPEG audio, ADTS or AC-3 frames may begin."""
    body = np.frombuffer(data, np.uint8)
    first, second = body[:-1], body[1:]
    sync = ((first == 0xFF) & (second >= 0xE0)) | ((first == 0x0B) & (second == 0x77))
    return np.flatnonzero(sync)[:2000].tolist()


_STRUCTURES: dict[bytes, Callable[[bytes], list[int]]] = {
    b"RIFF": _riff, b"RF64": _riff, b"FORM": _iff, b"caff": _caf, b"riff": _w64, b"OggS": _pages,
    b"fLaC": _blocks, b"ftyp": _boxes, b"\x1aE\xdf\xa3": _elements, b"0&\xb2u": _objects,
}  # fmt: skip


# ---- damage --------------------------------------------------------------------------------------


def _pick(random: Random, items):
    return items[int(random.integers(len(items)))]


def _overwrite(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def field(data: bytes, random: Random) -> bytes:
    """A number near the start of a part: a size, a rate, a count."""
    at = _pick(random, parts(data)) + int(random.integers(0, 48))
    width = _pick(random, [1, 2, 4, 8])
    number = _pick(random, [*_NUMBERS, len(data), len(data) + 1, len(data) - 9])
    order = _pick(random, ["little", "big"])
    return with_checksums(_overwrite(data, at, (number % (1 << 8 * width)).to_bytes(width, order)))


def header_bits(data: bytes, random: Random) -> bytes:
    damaged = bytearray(data)
    for _ in range(int(random.integers(1, 6))):
        at = _pick(random, parts(data)) + int(random.integers(0, 32))
        if at < len(damaged):
            damaged[at] ^= 1 << int(random.integers(8))
    return with_checksums(bytes(damaged))


def any_bits(data: bytes, random: Random) -> bytes:
    damaged = bytearray(data)
    for at in random.integers(0, max(len(data), 1), int(random.integers(1, 20))):
        if at < len(damaged):
            damaged[at] ^= 1 << int(random.integers(8))
    return with_checksums(bytes(damaged))


def truncated(data: bytes, random: Random) -> bytes:
    if random.random() < 0.5:
        return data[: _pick(random, parts(data)) + int(random.integers(0, 40))]
    return data[: int(random.integers(0, len(data) + 1))]


def removed_range(data: bytes, random: Random) -> bytes:
    start, length = int(random.integers(len(data) + 1)), int(2 ** random.uniform(0, 12))
    return data[:start] + data[start + length :]


def inserted_range(data: bytes, random: Random) -> bytes:
    start, length = int(random.integers(len(data) + 1)), int(2 ** random.uniform(0, 12))
    new = _pick(random, [bytes(length), b"\xff" * length, random.bytes(length)])
    return data[:start] + new + data[start:]


def swapped_parts(data: bytes, random: Random) -> bytes:
    starts = [*parts(data), len(data)]
    pieces = [data[a:b] for a, b in pairwise(starts)]
    if len(pieces) > 1:
        i, j = random.integers(len(pieces), size=2)
        pieces[i], pieces[j] = pieces[j], pieces[i]
    return b"".join(pieces)


def repeated_part(data: bytes, random: Random) -> bytes:
    starts = [*parts(data), len(data)]
    i = int(random.integers(len(starts) - 1))
    return (
        data[: starts[i]]
        + data[starts[i] : starts[i + 1]] * int(random.integers(2, 5))
        + (data[starts[i + 1] :])
    )


def removed_part(data: bytes, random: Random) -> bytes:
    starts = [*parts(data), len(data)]
    i = int(random.integers(len(starts) - 1))
    return data[: starts[i]] + data[starts[i + 1] :]


def tag_in_front(data: bytes, random: Random) -> bytes:
    length = int(2 ** random.uniform(0, 13))
    stated = _pick(random, [length, length, length, length + 1, 0, 1 << 27])
    size = bytes(stated >> shift & 127 for shift in (21, 14, 7, 0))
    id3 = b"ID3" + _pick(random, [b"\x03\0\0", b"\x04\0\0", b"\x02\0\x80"]) + size + bytes(length)
    ape = b"APETAGEX" + struct.pack("<IIII", 2000, length + 32, 0, 0xA0000000) + bytes(8 + length)
    return _pick(random, [id3, id3, ape, bytes(length), random.bytes(length), b"junk"]) + data


def tag_behind(data: bytes, random: Random) -> bytes:
    length = int(2 ** random.uniform(0, 13))
    id3v1 = b"TAG" + bytes(125)
    ape = bytes(length) + b"APETAGEX" + struct.pack("<IIII", 2000, length + 32, 1, 0) + bytes(8)
    lyrics = b"LYRICSBEGIN" + bytes(length) + b"000011LYRICS200" + id3v1
    kinds = [id3v1, ape, ape + id3v1, lyrics, bytes(length), random.bytes(length)]
    return data + _pick(random, kinds)


def another_behind(data: bytes, random: Random) -> bytes:
    return data + _pick(random, seeds()).data


def frames_of_another(data: bytes, random: Random) -> bytes:
    """The frames of a recording of the same kind follow: another rate, other channels."""
    same = [s.data for s in seeds() if s.data[:3] == data[:3]]
    other = _pick(random, same or [data])
    starts = parts(other)
    return data + other[_pick(random, starts[: max(len(starts) // 2, 1)]) :]


def sample_values(data: bytes, random: Random) -> bytes:
    """Extremes among floats, or loud and silent stretches of others."""
    at = len(data) // 4 + int(random.integers(len(data) // 2 + 1)) & ~7
    value = _pick(random, _FLOATS)
    values = [struct.pack("<f", value), struct.pack("<d", value), struct.pack(">f", value)]
    count = int(2 ** random.uniform(0, 10))
    return _overwrite(data, at, _pick(random, [*values, b"\0\0", b"\xff\x7f"]) * count)[: len(data)]


def unchanged(data: bytes, _random: Random) -> bytes:
    return data


OPERATIONS = [
    field, field, field, header_bits, header_bits, any_bits, truncated, truncated, removed_range,
    inserted_range, swapped_parts, repeated_part, removed_part, tag_in_front, tag_in_front,
    tag_behind, another_behind, frames_of_another, frames_of_another, sample_values, unchanged,
]  # fmt: skip
