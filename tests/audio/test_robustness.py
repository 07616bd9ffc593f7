"""Whatever the bytes of a recording are, decoding returns true samples or a RecordingError."""

import contextlib
import io
import os
import struct
import subprocess
import tempfile
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest
import soundfile
from recordings import speech_like, write_audio, write_with_ffmpeg

from ser_core.audio import file_view, libsndfile, samples
from ser_core.audio.constants import SEGMENT_SAMPLES
from ser_core.audio.decode import decode
from ser_core.audio.resample import resample, to_mono
from ser_core.errors import RecordingError, Status
from ser_core.storage.reading import open_file
from tests.fuzz.ogg import positions, with_checksums, with_stream_number


def decode_file(path, whole=False):
    with open_file(str(path)) as handle:
        return decode(handle, whole)


def refused(data: bytes) -> RecordingError:
    with pytest.raises(RecordingError) as caught:
        decode(io.BytesIO(data))
    return caught.value


def encoded(folder: Path, name: str, seconds=2.0, rate=16000, channels=1, *options) -> bytes:
    recorded = speech_like(seconds, rate, channels, seed=channels)
    return write_with_ffmpeg(folder / name, recorded, rate, *options).read_bytes()


def by_libsndfile(folder: Path, name: str, seconds=2.0, rate=16000, channels=1, **options) -> bytes:
    recorded = speech_like(seconds, rate, channels, seed=channels)
    return write_audio(folder / name, recorded, rate, **options).read_bytes()


def by_command(path: Path) -> np.ndarray:
    """The whole recording, decoded by FFmpeg's own command."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "fatal", "-i", path]
    command += ["-c:a", "pcm_s16le", "-f", "wav", "-"]
    wav = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True).stdout
    recorded, rate = soundfile.read(io.BytesIO(wav), dtype="float32", always_2d=True)
    return resample(to_mono(recorded.T), rate)


# ---- formats -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rate", "channels", "options"),
    [
        ("x.mov", 16000, 1, ["-c:a", "pcm_s16le"]),
        ("x.mov", 16000, 6, ["-c:a", "pcm_s16le"]),
        ("x.mov", 16000, 8, ["-c:a", "pcm_s16le"]),
        ("x.mov", 16000, 16, ["-c:a", "pcm_s16le"]),
        ("x.m4a", 48000, 8, ["-c:a", "aac"]),
        ("x.webm", 48000, 8, ["-c:a", "libopus", "-mapping_family", "1"]),
        ("x.mka", 48000, 12, ["-c:a", "libopus", "-mapping_family", "255"]),
    ],
)
def test_many_channels_through_ffmpeg(tmp_path, name, rate, channels, options):
    encoded(tmp_path, name, 1.0, rate, channels, *options)
    recording = decode_file(tmp_path / name)
    np.testing.assert_array_equal(recording.waveform, by_command(tmp_path / name))
    assert (recording.duration, recording.sampling_rate) == (pytest.approx(1), rate)


@pytest.mark.parametrize(
    ("head", "mode", "num_bytes", "rate"),
    [(b"#!AMR\n", b"\x3c", 31, 8000), (b"#!AMR-WB\n", b"\x44", 60, 16000)],
)
def test_amr(tmp_path, head, mode, num_bytes, rate):
    random = np.random.default_rng(0)
    path = tmp_path / "x.amr"
    path.write_bytes(head + b"".join(mode + random.bytes(num_bytes) for _ in range(2 * 50)))
    recording = decode_file(path)
    np.testing.assert_array_equal(recording.waveform, by_command(path))
    assert (recording.duration, recording.sampling_rate) == (2, rate)


def flac_frames(data: bytes) -> bytes:
    at, last = 4, False
    while not last:
        last = bool(data[at] >> 7)
        at += 4 + int.from_bytes(data[at + 1 : at + 4], "big")
    return data[at:]


def without_total(flac: bytes) -> bytes:
    """As written to a pipe."""
    return flac[:21] + bytes([flac[21] & 0xF0]) + bytes(4) + flac[26:]


def test_a_flac_that_was_written_to_a_pipe(tmp_path):
    flac = by_libsndfile(tmp_path, "x.flac")
    expected = decode(io.BytesIO(flac)).waveform
    for whole in (False, True):
        recording = decode(io.BytesIO(without_total(flac)), whole)
        np.testing.assert_array_equal(recording.waveform, expected)
        assert recording.duration == 2


@pytest.mark.parametrize("channels", [(1, 2), (2, 1), (6, 1)])
def test_a_flac_whose_channels_change(tmp_path, channels):
    first, second = (encoded(tmp_path, f"{c}.flac", 2, 16000, c) for c in channels)
    path = tmp_path / "spliced.flac"
    path.write_bytes(without_total(first) + flac_frames(second))
    recording = decode_file(path)
    np.testing.assert_array_equal(recording.waveform, by_command(path))
    assert recording.duration == 4


@pytest.mark.parametrize(
    "kinds",
    [
        [(16000, 1), (24000, 1)],
        [(44100, 2), (16000, 2)],
        [(16000, 1), (16000, 2)],
        [(16000, 6), (16000, 1)],
        [(16000, 1), (24000, 2), (16000, 6)],
    ],
)
def test_an_aac_whose_rate_or_channels_change(tmp_path, kinds):
    path = tmp_path / "spliced.aac"
    path.write_bytes(b"".join(encoded(tmp_path, "x.aac", 2, *kind) for kind in kinds))
    recording = decode_file(path, whole=True)
    np.testing.assert_array_equal(recording.waveform, by_command(path))
    assert recording.sampling_rate == kinds[0][0]


@pytest.mark.parametrize("second", [(2.0, 24000, 2), (2.0, 16000, 1)])
@pytest.mark.parametrize("suffix", ["mp3", "ogg", "flac"])
def test_what_libsndfile_reads_of_spliced_files_is_what_librosa_reads(tmp_path, suffix, second):
    """Also if the end of the file is like that of the first recording."""
    parts = [by_libsndfile(tmp_path, f"x.{suffix}", *kind) for kind in [(2.0, 16000, 1), second]]
    if suffix == "ogg" and second == (2.0, 16000, 1):  # RFC 3533 forbids it
        parts = [with_stream_number(part, 1) for part in parts]
    first, other = parts
    recording = decode(io.BytesIO(first + other))
    np.testing.assert_array_equal(recording.waveform, decode(io.BytesIO(first)).waveform)
    assert recording.duration is None  # more follows


@pytest.mark.parametrize("seconds", [(2, 2), (2, 9), (9, 2), (9, 9)])
@pytest.mark.parametrize("suffix", ["webm", "mka", "wma"])
def test_spliced_files_are_read_as_by_ffmpegs_command(tmp_path, suffix, seconds):
    kinds = [(seconds[0], 48000, 1), (seconds[1], 48000, 2)]
    path = tmp_path / f"spliced.{suffix}"
    path.write_bytes(b"".join(encoded(tmp_path, f"x.{suffix}", *kind) for kind in kinds))
    expected = by_command(path)
    first, whole = decode_file(path), decode_file(path, whole=True)
    np.testing.assert_array_equal(whole.waveform, expected)
    np.testing.assert_array_equal(first.waveform, expected[:SEGMENT_SAMPLES])
    assert whole.duration == pytest.approx(len(expected) / 16000, abs=1e-4)
    assert first.duration in (None, whole.duration)


def test_a_gsm_wav_which_cannot_be_sought_in(tmp_path):
    wav = by_libsndfile(tmp_path, "x.wav", 1, 8000, 1, subtype="GSM610")
    recorded, rate = soundfile.read(tmp_path / "x.wav", dtype="float32")
    recording = decode(io.BytesIO(wav))
    np.testing.assert_array_equal(recording.waveform, resample(recorded, rate))
    assert recording.duration == len(recorded) / rate


def test_long_recordings_are_mixed_block_by_block(tmp_path, monkeypatch):
    data = by_libsndfile(tmp_path, "x.flac", 3, 16000, 2)
    expected = decode(io.BytesIO(data), whole=True).waveform
    read: list[int] = []
    read_in_one = soundfile.SoundFile.read

    def counted(self, frames=-1, *args, **kwargs):
        read.append(frames)
        return read_in_one(self, frames, *args, **kwargs)

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    monkeypatch.setattr(libsndfile, "BLOCK_SAMPLES", 2 * 1001)
    monkeypatch.setattr(samples, "BLOCK_SAMPLES", 2 * 1001)
    np.testing.assert_array_equal(decode(io.BytesIO(data), whole=True).waveform, expected)
    assert max(read) == 1001


# ---- the same bytes ------------------------------------------------------------------------------


def id3(length: int) -> bytes:
    size = bytes(length >> shift & 127 for shift in (21, 14, 7, 0))
    return b"ID3\x03\0\0" + size + bytes(length)


def odd_files(folder: Path) -> dict[str, tuple[str, bytes]]:
    wav, mp3 = by_libsndfile(folder, "x.wav"), by_libsndfile(folder, "x.mp3")
    # Frames of many rates, no count of them: the number of samples is a guess from the file's size.
    unstated = encoded(folder, "y.mp3", 4.0, 16000, 1, "-q:a", "0", "-write_xing", "0")
    w64 = by_libsndfile(folder, "x.w64")
    return {
        "a tag before WAV": ("wav", id3(2000) + wav),
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


# ---- durations -----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "m4a", "webm", "wma", "mka"])
def test_durations_of_sound_files_are_known_without_decoding_them(tmp_path, suffix):
    write = by_libsndfile if suffix in ("wav", "flac", "ogg") else encoded
    assert decode(io.BytesIO(write(tmp_path, f"x.{suffix}", 9))).duration == pytest.approx(
        9, abs=0.1
    )


def flac_with_total(flac: bytes, total: int) -> bytes:
    return flac[:21] + bytes([flac[21] & 0xF0]) + total.to_bytes(4, "big") + flac[26:]


def with_xing_bytes(mp3: bytes, factor: float) -> bytes:
    at = max(mp3.find(b"Xing"), mp3.find(b"Info")) + 12
    (num_bytes,) = struct.unpack(">I", mp3[at : at + 4])
    return mp3[:at] + struct.pack(">I", int(num_bytes * factor)) + mp3[at + 4 :]


def with_mdhd_duration(mp4: bytes, duration: int) -> bytes:
    at = mp4.index(b"mdhd") + 4 + 16
    return mp4[:at] + struct.pack(">I", duration) + mp4[at + 4 :]


LIES = {
    "a FLAC total too high": ("flac", lambda b: flac_with_total(b, 16000 * 3600)),
    "a FLAC total too low": ("flac", lambda b: flac_with_total(b, 16000 * 7)),
    "MP3 without a tag": ("mp3", lambda b: b.replace(b"Xing", b"----").replace(b"Info", b"----")),
    "a Xing tag of a longer file": ("mp3", lambda b: with_xing_bytes(b, 3)),
    "a second MP3 behind": ("mp3", lambda b: b + b),
    "a second Ogg behind": ("ogg", lambda b: b + b.replace(b[14:18], b"two!")),
    "AAC without a duration": ("aac", lambda b: b),
}


@pytest.mark.parametrize("name", LIES)
def test_a_duration_that_cannot_be_verified_is_none(tmp_path, name):
    suffix, lie = LIES[name]
    write = by_libsndfile if suffix in ("flac", "ogg") else encoded
    data = write(tmp_path, f"x.{suffix}", 9)
    recording = decode(io.BytesIO(lie(data)))
    if name != "MP3 without a tag":  # whose frame is taken for sound without it
        np.testing.assert_array_equal(recording.waveform, decode(io.BytesIO(data)).waveform)
    assert recording.duration is None
    assert recording.duration != decode(io.BytesIO(data), whole=True).duration


@pytest.mark.parametrize("clock", [48_000, 13_000])
def test_a_duration_by_a_wrong_clock_is_none(tmp_path, clock):
    data = encoded(tmp_path, "x.m4a", 9)
    at = data.index(b"mdhd") + 4 + 12
    assert data[at : at + 4] == struct.pack(">I", 16_000)
    wrong = data[:at] + struct.pack(">I", clock) + data[at + 4 :]
    assert decode(io.BytesIO(wrong)).duration is None


def test_an_absurd_count_of_frames_is_ignored(tmp_path):
    data = encoded(tmp_path, "x.m4a")
    assert decode(io.BytesIO(with_mdhd_duration(data, 16000 * 3600 * 24))).duration < 3


def test_a_video_is_longer_than_its_sound(tmp_path):
    source = write_audio(tmp_path / "x.wav", speech_like(7))
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", source]
    command += ["-f", "lavfi", "-i", "color=size=32x32:rate=5:duration=12", tmp_path / "x.mp4"]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    assert decode_file(tmp_path / "x.mp4").duration == pytest.approx(7, abs=0.1)


def test_verifying_a_duration_reads_little(tmp_path, monkeypatch):
    monkeypatch.setattr(file_view, "_IN_MEMORY", -1)

    class Counted(io.FileIO):
        num_bytes = 0

        def read(self, size=-1, /):
            data = super().read(size)
            Counted.num_bytes += len(data)
            return data

    for suffix in ("flac", "m4a", "webm"):
        write = by_libsndfile if suffix == "flac" else encoded
        size = len(write(tmp_path, f"x.{suffix}", 120))
        Counted.num_bytes = 0
        with Counted(tmp_path / f"x.{suffix}") as handle:
            assert decode(handle).duration == pytest.approx(120, abs=0.1)
        assert Counted.num_bytes < 0.1 * size + (800 << 10), suffix


# ---- refusals ------------------------------------------------------------------------------------


def opus_whose_position_jumps(folder: Path, page: int, position: int) -> bytes:
    opus = by_libsndfile(folder, "x.ogg", 7, subtype="OPUS")
    at = positions(opus, b"OggS")[page] + 6
    return with_checksums(opus[:at] + position.to_bytes(8, "little") + opus[at + 8 :])


@pytest.mark.parametrize("position", [(1 << 31) + 300_000, 1 << 40, (1 << 64) - 100_000])
@pytest.mark.parametrize("whole", [False, True])
def test_an_opus_of_which_libsndfile_returns_unwritten_memory(tmp_path, position, whole):
    data = opus_whose_position_jumps(tmp_path, 7, position)
    with pytest.raises(RecordingError, match="the positions of its Ogg pages go back") as caught:
        decode(io.BytesIO(data), whole)
    assert caught.value.status is Status.DECODE_ERROR


def test_an_opus_page_in_which_no_packet_ends(tmp_path):
    data = opus_whose_position_jumps(tmp_path, 7, (1 << 64) - 1)
    assert len(decode(io.BytesIO(data)).waveform) == SEGMENT_SAMPLES


def wav_of_rate(rate: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, speech_like(0.5), 16000, format="WAV")
    data = file.getvalue()
    return data[:24] + struct.pack("<I", rate) + data[28:]


@pytest.mark.parametrize("rate", [1, 999, 768_001, (1 << 31) - 1])
def test_rates_that_no_recording_has(rate):
    error = refused(wav_of_rate(rate))
    assert error.status is Status.DECODE_ERROR
    assert f"the sampling rate is {rate} Hz, not between 1 and 768 kHz" in str(error)


@pytest.mark.parametrize("rate", [1_000, 768_000])
def test_rates_at_the_bounds_are_accepted(rate):
    assert decode(io.BytesIO(wav_of_rate(rate))).sampling_rate == rate


def test_a_rate_of_0_is_refused():
    assert refused(wav_of_rate(0)).status is Status.DECODE_ERROR


def test_too_many_channels(tmp_path):
    data = by_libsndfile(tmp_path, "x.wav", 0.1, 8000, 257)
    assert "257 channels, not between 1 and 256" in str(refused(data))


def test_a_track_without_a_decoder(tmp_path):
    mov = encoded(tmp_path, "x.mov", 1, 16000, 1, "-c:a", "pcm_s16le")
    error = refused(mov.replace(b"sowt", b"????"))
    assert error.status is Status.DECODE_ERROR
    assert "no decoder for its audio track" in str(error)


@pytest.mark.parametrize("value", [3e38, -3e38])
def test_samples_that_overflow_when_resampled(tmp_path, value):
    samples = np.full(8000, value, np.float32)
    samples[::2] *= -1
    samples[3000:5000] = value
    path = write_audio(tmp_path / "x.wav", samples, 44100, subtype="FLOAT")
    assert "resampling overflows" in str(refused(path.read_bytes()))


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("std::bad_alloc")])
def test_running_out_of_memory_is_too_large(monkeypatch, error):
    def exhaust(*_):
        raise error

    monkeypatch.setattr("ser_core.audio.decode.resample", exhaust)
    caught = refused(wav_of_rate(16000))
    assert caught.status is Status.TOO_LARGE
    assert "--decode-memory" in str(caught)


# ---- one file reads no other ---------------------------------------------------------------------

MPD = """<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"
profiles="urn:mpeg:dash:profile:isoff-on-demand:2011" mediaPresentationDuration="PT2S"><Period>
<AdaptationSet mimeType="audio/mp4"><Representation id="1" bandwidth="1">
<BaseURL>file://{secret}</BaseURL></Representation></AdaptationSet></Period></MPD>"""
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n"
PLAYLISTS = {
    "ffconcat": "ffconcat version 1.0\nfile secret.wav\n",
    "ffconcat, absolute": "ffconcat version 1.0\nfile '{secret}'\n",
    "HLS": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2.0,\n{secret}\n#EXT-X-ENDLIST\n",
    "DASH": MPD,
    "SDP": SDP,
    "M3U": "#EXTM3U\n{secret}\n",
    "PLS": "[playlist]\nFile1={secret}\nNumberOfEntries=1\n",
    "XSPF": "<playlist><trackList><track><location>{secret}</location></track></trackList>"
    "</playlist>",
    "a path": "{secret}\n",
}


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """The URLs that FFmpeg asks to open while a recording is decoded."""
    asked: list[str] = []
    open_container = av.open

    def watched(*args, io_open, **kwargs):
        def asking(url, *rest):
            asked.append(url)
            return io_open(url, *rest)

        return open_container(*args, io_open=asking, **kwargs)

    monkeypatch.setattr(av, "open", watched)
    return asked


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_a_playlist_reads_no_other_file(tmp_path, monkeypatch, opened, kind):
    monkeypatch.chdir(tmp_path)
    secret = write_audio(tmp_path / "secret.wav", speech_like(2))
    (tmp_path / "x.wav").write_text(PLAYLISTS[kind].format(secret=secret))
    with pytest.raises(RecordingError) as caught:
        decode_file(tmp_path / "x.wav")
    assert caught.value.status is Status.DECODE_ERROR
    assert opened == []


# FFmpeg reads HLS, DASH and others by names and MIME types, too; these it knows by their content.
@pytest.mark.parametrize("kind", ["ffconcat", "ffconcat, absolute", "SDP", "PLS"])
def test_the_formats_of_playlists_are_not_allowed(kind):
    assert "not a format that is allowed" in str(refused(PLAYLISTS[kind].encode()))


def test_a_mov_refers_to_no_other_file(tmp_path, monkeypatch, opened):
    monkeypatch.chdir(tmp_path)
    secret = write_audio(tmp_path / "secret.raw", speech_like(2), format="RAW", subtype="PCM_16")
    mov = encoded(tmp_path, "x.mov", 2, 16000, 1, "-c:a", "pcm_s16le")
    inside = b"\0\0\0\x0curl \0\0\0\x01"
    target = os.fsencode(secret) + b"\0"
    outside = struct.pack(">I", 12 + len(target)) + b"url \0\0\0\0" + target
    assert mov.count(inside) == 1
    for data in (mov.replace(inside, outside), mov.replace(inside, inside[:-1] + b"\0")):
        with contextlib.suppress(RecordingError):
            decode(io.BytesIO(data))
        assert opened == []
