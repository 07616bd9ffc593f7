"""Reads what libsndfile recognizes: WAV, FLAC, Ogg, MP3, AIFF and others, as ``librosa.load`` does.

The samples of Ogg Opus come from `opus.py` where it can decode them.
"""

import re
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, Literal

import soundfile

from ser_core.audio import ogg, opus
from ser_core.audio.file_view import size_of, view
from ser_core.audio.samples import (
    BLOCK_SAMPLES,
    Mixer,
    Samples,
    UnreadableError,
    num_to_read,
    refuse_format,
)
from ser_core.audio.totals import (
    has_xing,
    id3_bounds,
    is_at_end,
    is_plausible,
    verified_frames,
    xing_agrees,
)
from ser_core.errors import RecordingError, Status

_UNRECOGNISED = 1  # SF_ERR_UNRECOGNISED_FORMAT
_UNKNOWN_FRAMES = 1 << 62  # a FLAC that was written to a pipe has 2**63 - 1
# Formats that libsndfile decodes behind a tag, given a descriptor, and the order of the bytes in
# which they state their size: there, it reads no further. Through callbacks it mislays the start of
# the samples. An MP3 it reads right in both ways behind one tag; of several, it counts the first
# for sound in one way and not in the other, if nothing states the number of samples.
_AFTER_TAG: dict[bytes, Literal["little", "big"] | None] = {
    b"RIFF": "little", b"RIFX": "big", b"FORM": "big", b".snd": None, b"dns.": None, b"fLaC": None,
}  # fmt: skip
# libsndfile reads so many bytes before it skips a tag. If the tag is shorter, it looks for the
# format behind these bytes, and takes the file for shorter than it is, even more so through
# callbacks.
_SNIFFED = 12


class _Sound(soundfile.SoundFile):  # type: ignore[misc]  # soundfile has no types
    """Read without a seek after each read, as `SoundFile` does it; damaged files may refuse one."""

    def seekable(self) -> bool:
        return False

    def seek_if_possible(self, frame: int) -> None:
        if super().seekable():
            self.seek(frame)


def read_samples(source: BinaryIO, mixer: Mixer, seconds: float | None) -> Samples:
    """Reads a file's beginning, or all of it.

    Args:
        source: a ``file_view.view``.
        mixer: receives the samples.
        seconds: how much of it; None for all.

    Raises:
        UnreadableError: FFmpeg may know better.
        RecordingError: its rate, its number of channels or its positions are not accepted.
        MemoryError: libsndfile could not allocate memory.
    """
    tags = id3_bounds(source)
    if any(end - start < _SNIFFED for start, end in pairwise(tags)):
        return read_samples_by_name(source, "", mixer, seconds)
    source.seek(tags[-1])
    marker, size = source.read(4), source.read(4)
    if tags[-1] and marker in _AFTER_TAG:
        order = _AFTER_TAG[marker]
        length = 8 + int.from_bytes(size, order) & 0xFFFFFFFF if order else None
        source = view(source, tags[-1], length)
    elif len(tags) > 2:
        source = view(source, tags[-2])
    source.seek(0)
    return _read(partial(_Sound, source, closefd=False), source, mixer, seconds)


def read_samples_by_name(
    source: BinaryIO, suffix: str, mixer: Mixer, seconds: float | None
) -> Samples:
    """Like ``read_samples``, but a file name tells libsndfile the format.

    ``librosa.load`` gives libsndfile a path, whose extension counts where the content does not
    begin as the format does: MP3 with junk before its first frame. The source keeps its position.

    Raises:
        UnreadableError: FFmpeg may know better.
        RecordingError: also if the temporary folder cannot be written.
    """
    position = source.tell()
    try:
        return _read(partial(_open_by_name, source, suffix), source, mixer, seconds)
    finally:
        source.seek(position)


def _open_by_name(source: BinaryIO, suffix: str) -> _Sound:
    """Opens a copy, which needs its name no longer: a child that is killed later leaves no file."""
    try:
        with tempfile.TemporaryDirectory(prefix="ser-") as folder:
            path = Path(folder, f"recording{suffix}")
            source.seek(0)
            with path.open("wb") as copy:
                shutil.copyfileobj(source, copy)
            source.seek(0)  # not at its end, which it has not been decoded to
            return _Sound(path)
    except OSError as error:
        reason = f"the temporary folder cannot be written: {error!r}"
        raise RecordingError(Status.UNAVAILABLE, reason) from None


def _read(
    opened: Callable[[], _Sound], source: BinaryIO, mixer: Mixer, seconds: float | None
) -> Samples:
    try:
        with opened() as sound:
            refuse_format(sound.samplerate, sound.channels)
            if sound.frames >= _UNKNOWN_FRAMES:
                raise UnreadableError("The number of samples is not known.", recognised=True)
            return _read_sound(sound, source, mixer, seconds)
    except soundfile.LibsndfileError as error:
        if "malloc" in error.error_string:
            raise MemoryError(error.error_string) from None
        recognised = error.code != _UNRECOGNISED
        raise UnreadableError(error.error_string, recognised) from None


def _read_sound(sound: _Sound, source: BinaryIO, mixer: Mixer, seconds: float | None) -> Samples:
    rate = sound.samplerate
    limit = num_to_read(seconds, rate)
    wanted = int(min(sound.frames, limit))
    is_opus = (sound.subtype, rate) == ("OPUS", opus.RATE)
    if not (is_opus and opus.read_if_regular(source, mixer, wanted, sound.frames)):
        _read_blocks(sound, source, mixer, wanted)
    ended = mixer.num_samples < wanted
    stated = _stated_frames(sound, source, ended)
    decoded = mixer.num_samples
    frames = decoded if ended else verified_frames(sound, source, decoded)
    mixer.finish(rate)
    return Samples(
        rate,
        duration=None if frames is None else frames / rate,
        stated=None if stated is None else min(stated, limit) / rate,
    )


def _read_blocks(sound: _Sound, source: BinaryIO, mixer: Mixer, wanted: int) -> None:
    """Reads by libsndfile itself.

    Raises:
        RecordingError: the positions of Ogg pages go back.
    """
    while mixer.num_samples < wanted:
        ahead = min(wanted - mixer.num_samples, max(BLOCK_SAMPLES // sound.channels, 1))
        block = sound.read(ahead, dtype="float32", always_2d=True)
        mixer.add(block, sound.samplerate)
        if len(block) < ahead:
            break
    if wanted == sound.frames:  # `librosa.load` reads all, so that the seek goes to the end
        sound.seek_if_possible(mixer.num_samples)
    if sound.subtype == "OPUS" and ogg.opus_positions_go_back(source, source.tell()):
        raise RecordingError(Status.DECODE_ERROR, "the positions of its Ogg pages go back")


# libsndfile reduces the size that a WAV or AIFF header states to that of the file, and logs it.
_SHORTENED = re.compile(r"^\s*(?:data|SSND|Data Size)\s*:\s*(\d+) \(should be (\d+)\)", re.M)
# Writers that cannot seek put such a value where the size belongs; it states nothing.
_UNKNOWN_SIZE = 0x7FFF0000


def _stated_frames(sound: soundfile.SoundFile, source: BinaryIO, ended: bool) -> int | None:
    """How many samples per channel there should be, or None if nothing says so."""
    frames: int = sound.frames
    seconds = frames / sound.samplerate
    if not is_plausible(seconds, size_of(source)):
        return None
    if sound.format == "MP3":
        # Only a tag in the first frame counts frames; without it the number is a guess. If all of
        # the file is there and has been decoded, the tag is wrong.
        wrong = ended and is_at_end(source) and xing_agrees(source, seconds)
        return frames if has_xing(source) and not wrong else None
    shortened = _SHORTENED.search(sound.extra_info)
    if shortened and int(shortened[2]) < int(shortened[1]) < _UNKNOWN_SIZE:
        return round(frames * int(shortened[1]) / max(int(shortened[2]), 1))
    return frames
