"""Tags and junk before the sound; the same bytes give the same samples from everywhere."""

import io
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ser_core.audio import file_view
from ser_core.audio.decode import decode
from ser_core.errors import Status
from tests.audio.encoding import by_command, by_libsndfile, decode_file, encoded, id3, refused


def odd_files(folder: Path) -> dict[str, tuple[str, bytes]]:
    wav, mp3 = by_libsndfile(folder, "x.wav"), by_libsndfile(folder, "x.mp3")
    # Frames of many rates, no count of them: the number of samples is a guess from the file's size.
    unstated = encoded(folder, "y.mp3", 4.0, 16000, 1, "-q:a", "0", "-write_xing", "0")
    w64, aiff = by_libsndfile(folder, "x.w64"), by_libsndfile(folder, "x.aiff")
    stating_less = wav[:4] + struct.pack("<I", len(wav) - 8 - 24) + wav[8:]
    return {
        "a tag before WAV": ("wav", id3(2000) + wav),
        "a tag of 10 bytes before WAV": ("wav", id3(0) + b"\0\0" + wav),
        "a tag of 11 bytes before AIFF": ("aiff", id3(20) + id3(1) + b"\0" + aiff),
        "a tag before a WAV that states less": ("wav", id3(20) + stating_less + bytes(9)),
        "a tag before FLAC": ("flac", id3(20) + id3(50) + by_libsndfile(folder, "x.flac")),
        "junk before MP3": ("mp3", b"junk!" * 200 + mp3),
        "zeros before MP3": ("mp3", bytes(3000) + mp3),
        "a tag that is longer than it says": ("mp3", id3(20)[:-7] + mp3),
        "tags before MP3": ("mp3", id3(2000) + id3(20) + unstated),
        "three tags before MP3": ("mp3", id3(500) + id3(900) + id3(20) + unstated),
        "W64 from a pipe": (
            "w64",
            w64[:16] + b"\xff" * 8 + w64[24:96] + b"\xff" * 7 + b"\x7f" + w64[104:],
        ),
    }


@pytest.mark.parametrize(
    "name",
    [
        "a tag before WAV",
        "a tag of 10 bytes before WAV",
        "a tag of 11 bytes before AIFF",
        "a tag before a WAV that states less",
        "a tag before FLAC",
        "junk before MP3",
        "zeros before MP3",
        "a tag that is longer than it says",
        "tags before MP3",
        "three tags before MP3",
        "W64 from a pipe",
    ],
)
def test_the_same_bytes_give_librosas_samples_from_everywhere(tmp_path, monkeypatch, name):
    suffix, data = odd_files(tmp_path)[name]
    path = tmp_path / f"odd.{suffix}"
    path.write_bytes(data)
    with soundfile.SoundFile(path) as file:  # by path, as librosa.load does
        expected = file.read(dtype="float32")
    np.testing.assert_array_equal(decode_file(path).waveform, expected)
    np.testing.assert_array_equal(decode(io.BytesIO(data)).waveform, expected)
    monkeypatch.setattr(file_view, "_IN_MEMORY", -1)  # as a large file is read from S3
    ranged = io.BufferedReader(io.FileIO(path))
    np.testing.assert_array_equal(decode(ranged).waveform, expected)


@pytest.mark.parametrize("length", [0, 1])
def test_behind_a_short_tag_libsndfile_knows_no_flac(tmp_path, length):
    """So FFmpeg reads it for librosa, to 16 bits."""
    path = tmp_path / "odd.flac"
    path.write_bytes(id3(length) + by_libsndfile(tmp_path, "x.flac", subtype="PCM_24"))
    with pytest.raises(soundfile.LibsndfileError):
        soundfile.info(path)
    np.testing.assert_array_equal(decode_file(path).waveform, by_command(path))


def test_a_temporary_copy_has_no_name_while_it_is_decoded(tmp_path, monkeypatch):
    """So that a child that is killed leaves no file."""
    data = b"junk!" * 200 + by_libsndfile(tmp_path, "x.mp3")
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    named: list[list[Path]] = []
    read_in_one = soundfile.SoundFile.read

    def watched(self, *args, **kwargs):
        named.append(list(folder.iterdir()))
        return read_in_one(self, *args, **kwargs)

    monkeypatch.setattr(soundfile.SoundFile, "read", watched)
    decode(io.BytesIO(data))
    assert named == [[]]


def test_a_temporary_folder_that_cannot_be_written(tmp_path, monkeypatch):
    data = b"junk!" * 200 + by_libsndfile(tmp_path, "x.mp3")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    assert refused(data).status is Status.UNAVAILABLE
