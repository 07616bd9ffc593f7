"""Whether the number of samples that a file states is true, found out by a look at its end.

These are trusted where a file is not decoded to its end:

- uncompressed samples: libsndfile counts their bytes;
- MP3: the count of a Xing or Info tag whose number of bytes is that of the file;
- FLAC: the count that is the end of the last frame;
- Ogg: the position that ends the last page, if it continues the page before;
- other codecs of libsndfile: the count whose last sample can be decoded;
- FFmpeg's containers: see `ser_core.audio.ffmpeg`.
"""

import struct
from typing import BinaryIO

import soundfile

from ser_core.audio import flac, ogg
from ser_core.audio.file_view import size_of

_COUNTED = ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW")  # subtypes of libsndfile
_MIN_BYTES_PER_SECOND = 1  # FLAC of silence at 8 kHz has 2
_MP3_BYTES_PER_SECOND = range(1_000, 80_001)  # 8 to 640 kbit/s


def is_plausible(seconds: float, size: int) -> bool:
    """Whether a codec could store so many seconds in so many bytes."""
    return seconds * _MIN_BYTES_PER_SECOND <= size


def is_at_end(source: BinaryIO) -> bool:
    """Whether a file has been read to its end, or to the tags there; its position stays."""
    position = source.tell()
    end = size_of(source) - _trailing_tags(source)
    source.seek(position)
    return position >= end


def verified_frames(file: soundfile.SoundFile, source: BinaryIO, num_read: int) -> int | None:
    """The number of samples per channel, or None if it may be wrong.

    Args:
        file: has been read as far as it will be.
        source: the bytes that it is read from.
        num_read: samples per channel that were read.
    """
    frames: int = file.frames
    if not is_plausible(frames / file.samplerate, size_of(source)):
        return None
    all_read, at_end = num_read == frames, is_at_end(source)
    goes_on = all_read and not at_end  # after what should be the last sample
    if file.format == "MP3":
        verified = (all_read and at_end) or xing_agrees(source, frames / file.samplerate)
    elif file.format == "FLAC":
        verified = not goes_on and flac.last_sample(source, id3_length(source)) == frames
    elif file.format == "OGG":
        verified = not goes_on and ogg.end_continues(source)
    elif file.subtype.startswith(_COUNTED):
        verified = True
    else:
        verified = all_read or _last_can_be_decoded(file)
    return frames if verified else None


def _last_can_be_decoded(file: soundfile.SoundFile) -> bool:
    try:
        file.seek(file.frames - 1)
        return len(file.read(1)) == 1
    except soundfile.LibsndfileError:
        return False


# ---- MP3 -----------------------------------------------------------------------------------------

_ID3_HEADER = 10  # bytes
_ID3V1 = 128  # bytes
_APE_FOOTER = 32  # bytes
_XING_TOLERANCE = 0.01  # the last frame, or padding


def id3_length(source: BinaryIO) -> int:
    """Bytes of the ID3v2 tags that a file begins with."""
    return id3_bounds(source)[-1]


def id3_bounds(source: BinaryIO) -> list[int]:
    """0, and where each of the ID3v2 tags at the beginning of a file ends."""
    bounds = [0]
    while True:
        source.seek(bounds[-1])
        header = source.read(_ID3_HEADER)
        if len(header) < _ID3_HEADER or header[:3] != b"ID3":
            return bounds
        high, middle, low, lowest = (byte & 127 for byte in header[6:])
        length = high << 21 | middle << 14 | low << 7 | lowest
        bounds.append(bounds[-1] + _ID3_HEADER + length)


def has_xing(source: BinaryIO) -> bool:
    """Whether the first frame of an MP3 has a tag that counts the frames."""
    return _xing(source) is not None


def xing_agrees(source: BinaryIO, seconds: float) -> bool:
    """Whether the tag's number of bytes is that of the file, and could last so long."""
    num_bytes = _xing(source)
    if not num_bytes or int(num_bytes / seconds) not in _MP3_BYTES_PER_SECOND:
        return False
    audio = size_of(source) - id3_length(source) - _trailing_tags(source)
    return abs(num_bytes - audio) <= _XING_TOLERANCE * audio + 2 * _ID3V1


def _xing(source: BinaryIO) -> int | None:
    """The number of bytes in the tag, 0 if it has none, or None if there is no tag."""
    source.seek(id3_length(source))
    start = source.read(4096)
    at = max(start.find(b"Xing"), start.find(b"Info"))
    if at < 0 or len(start) < at + 16 or not _is_first_in_frame(start, at):
        return None
    flags, _, num_bytes = struct.unpack(">III", start[at + 4 : at + 16])
    return num_bytes if flags & 3 == 3 else 0


def _is_first_in_frame(data: bytes, at: int) -> bool:
    """Whether a tag follows the header of a frame and zeros; libsndfile takes others for sound."""
    for num_zeros in (9, 17, 32):  # the side information of MPEG-2 and 1, mono and stereo
        header = data[max(at - num_zeros - 4, 0) : at - num_zeros]
        if len(header) == 4 and header[0] == 0xFF and header[1] >= 0xE0:
            mpeg_1, mono = header[1] >> 3 & 3 == 3, header[3] >> 6 == 3
            # The first two may be a checksum.
            if num_zeros == (17 if mpeg_1 == mono else 32 if mpeg_1 else 9):
                return not any(data[at - num_zeros + 2 : at])
    return False


def _trailing_tags(source: BinaryIO) -> int:
    """Bytes of ID3v1 and APE tags at the end."""
    source.seek(max(size_of(source) - _ID3V1 - _APE_FOOTER, 0))
    end = source.read()
    length = _ID3V1 if end[-_ID3V1:].startswith(b"TAG") else 0
    footer = end[len(end) - length - _APE_FOOTER : len(end) - length]
    if footer.startswith(b"APETAGEX"):
        length += _APE_FOOTER + int.from_bytes(footer[12:16], "little")
    return length
