"""Kaldi's data directories: utterances, segments, speakers; commands in them are never executed."""

import fsspec
import lhotse
import numpy as np
import pytest
from lhotse.kaldi import export_to_kaldi
from listed_rows import listed_rows
from recordings import write_audio

from ser_core.errors import CorpusError
from ser_core.sources import kaldi, text_files
from ser_core.sources.forms import open_source
from ser_core.sources.interface import InputOptions


@pytest.fixture
def directory(tmp_path):
    """A directory of one name for each file, with the lines that a test gives it."""

    def write(**files):
        for name, text in files.items():
            (tmp_path / name.replace("wav_scp", "wav.scp")).write_text(text)
        return tmp_path

    return write


SCP = "utt1 audio/1.wav\nutt2 /data/my calls/2.flac\nutt3\taudio/3.wav\n"
CALLS = "call-b b.wav\ncall-a a.wav\n"
SEGMENTS = "anna-1 call-a 0.5 2.25\nanna-2 call-b 3 4.5\nbob-1 call-a 10 -1\n"


def test_a_recording_is_an_utterance(directory):
    folder = directory(wav_scp=SCP)
    expected = [
        {"path": path, "start": None, "duration": None, "utterance": name}
        for name, path in [
            ("utt1", "audio/1.wav"),
            ("utt2", "/data/my calls/2.flac"),
            ("utt3", "audio/3.wav"),
        ]
    ]
    assert listed_rows(folder) == listed_rows(folder / "wav.scp") == expected
    uris = [r.uri for page in open_source([str(folder)]).pages() for r in page.recordings]
    assert uris[:2] == [f"{folder}/audio/1.wav", "/data/my calls/2.flac"]


@pytest.mark.parametrize("page", [1, 2, 10_000])
def test_segments_are_stretches(directory, monkeypatch, page):
    monkeypatch.setattr(text_files, "PAGE_ROWS", page)
    folder = directory(
        wav_scp=CALLS,
        segments=SEGMENTS,
        utt2spk="anna-1 anna\nanna-2 anna\nbob-1 bob\n",
        text="anna-1 good  morning \nanna-10 a\nanna-11 b\nanna-12 c\nbob-1\n",
    )
    assert listed_rows(folder) == [
        {
            "path": "a.wav",
            "start": 0.5,
            "duration": 1.75,
            "utterance": "anna-1",
            "speaker": "anna",
            "text": "good  morning",
        },
        {
            "path": "b.wav",
            "start": 3.0,
            "duration": 1.5,
            "utterance": "anna-2",
            "speaker": "anna",
            "text": None,
        },
        {
            "path": "a.wav",
            "start": 10.0,
            "duration": None,
            "utterance": "bob-1",
            "speaker": "bob",
            "text": "",
        },
    ]


def test_a_directory_that_lhotse_wrote(tmp_path):
    for name in ("b", "a"):
        write_audio(tmp_path / f"{name}.wav", np.zeros(64_000))
    recordings = lhotse.RecordingSet.from_dir(tmp_path, "*.wav")
    supervisions = lhotse.SupervisionSet.from_segments(
        lhotse.SupervisionSegment(f"{who}-{n}", name, n, 0.75, text=f"word {n}", speaker=who)
        for who, name in (("zoe", "a"), ("anna", "b"))
        for n in range(3)
    )
    export_to_kaldi(recordings, supervisions, tmp_path / "data")
    assert listed_rows(tmp_path / "data") == [
        {
            "path": str(tmp_path / f"{one.recording_id}.wav"),
            "start": one.start,
            "duration": one.duration,
            "utterance": one.id,
            "speaker": one.speaker,
            "text": one.text,
        }
        for one in sorted(supervisions, key=lambda one: one.id)
    ]


def test_windows_line_ends_and_blank_lines(directory):
    folder = directory(wav_scp="\ufeffutt1 1.wav\r\n\r\nutt2 2.wav\r\n", utt2spk="utt1 a\r\n")
    rows = [(row["path"], row["utterance"], row["speaker"]) for row in listed_rows(folder)]
    assert rows == [("1.wav", "utt1", "a"), ("2.wav", "utt2", None)]


@pytest.mark.parametrize("path", ["touch executed |", "| touch executed", "sox a.wav -t wav - |"])
def test_a_command_is_refused_and_not_executed(directory, path, monkeypatch):
    folder = directory(wav_scp=f"utt1 1.wav\nutt2 {path}\n")
    monkeypatch.chdir(folder)
    with pytest.raises(CorpusError) as caught:
        listed_rows(folder)
    assert str(caught.value) == (
        f"--input {folder}/wav.scp: line 2: the recording utt2 is a command, which is never"
        " executed; save its output and name the file"
    )
    assert not (folder / "executed").exists()


@pytest.mark.parametrize(
    ("files", "file", "reason"),
    [
        (
            {"wav_scp": "u1 a.ark:1234\n"},
            "wav.scp",
            "line 1: the recording u1 is a place in an arch",
        ),
        ({"wav_scp": "u1 a.wav\nu2\n"}, "wav.scp", "line 2: only a name, u2"),
        ({"wav_scp": ""}, "wav.scp", "the manifest has no rows"),
        (
            {"wav_scp": "u1 a.wav\nu2 a.wav\n"},
            "wav.scp",
            "the manifest has a recording twice: a.wav",
        ),
        ({"wav_scp": "u1 ../a.wav\n"}, "wav.scp", "the manifest names ../a.wav, which is outside"),
        (
            {"wav_scp": "u1 s3://b/a.wav\n"},
            "wav.scp",
            "the manifest names s3://b/a.wav, which is on",
        ),
        ({"wav_scp": "u1 a\0.wav\n"}, "wav.scp", r"row 1: the path 'a\x00.wav' contains a NUL"),
        (
            {"segments": "s call-a 0\n"},
            "segments",
            "line 1: not an utterance, a recording, a start",
        ),
        ({"segments": "s call-a 0 1 A\n"}, "segments", "line 1: not an utterance, a recording, "),
        (
            {"segments": "s call-c 0 1\n"},
            "segments",
            "line 1: the recording call-c is not in wav.scp",
        ),
        ({"segments": "s call-a 0 x\n"}, "segments", "line 1: 'x' is not a time in seconds"),
        ({"segments": "s call-a -2 1\n"}, "segments", "line 1: '-2' is not a time in seconds"),
        ({"segments": "s call-a 2 1\n"}, "segments", "line 1: it ends before it starts"),
        ({"segments": "", "wav_scp": "r a\nr b\n"}, "wav.scp", "the recording r is there twice"),
        (
            {"segments": SEGMENTS, "utt2spk": "b x\na y\n"},
            "utt2spk",
            "a comes after b; sort the file",
        ),
        (
            {"wav_scp": CALLS, "text": "a x\n"},
            "wav.scp",
            "call-a comes after call-b; sort the files",
        ),
        ({"wav_scp": SCP, "utt2spk": "utt1\nutt0 x\n"}, "utt2spk", "utt0 comes after utt1"),
    ],
)
def test_what_is_no_data_directory_is_refused_in_one_line(directory, files, file, reason):
    folder = directory(**{"wav_scp": CALLS} | files)
    with pytest.raises(CorpusError) as caught:
        kaldi.open_source([str(folder)], InputOptions())
    assert str(caught.value).startswith(f"--input {folder}/{file}: {reason}")
    assert "\n" not in str(caught.value)


def test_which_inputs_are_data_directories(directory, tmp_path, monkeypatch):
    folder = directory(wav_scp=SCP)
    (tmp_path / "other").mkdir()
    for name, expected in [("", True), ("wav.scp", True), ("other", False), ("gone", False)]:
        assert kaldi.recognizes(str(folder / name)) == expected
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/kaldi/wav.scp", b"utt1 1.wav\n")
    assert kaldi.recognizes("memory://kaldi")
    assert listed_rows("memory://kaldi")[0]["path"] == "1.wav"
    asked = []
    monkeypatch.setattr(kaldi, "is_file", lambda uri: asked.append(uri) or False)
    for name in ("1.wav", "m.csv.gz", "shard-000.tar", "paths.txt", "*.parquet"):
        assert not kaldi.recognizes(f"s3://bucket/{name}")
    assert not asked  # one request less for each of many files


def test_a_folder_that_may_not_be_listed_is_not_taken_for_one(monkeypatch):
    def forbidden(_):
        raise PermissionError

    monkeypatch.setattr(kaldi, "is_file", forbidden)
    assert not kaldi.recognizes("s3://bucket/calls")


def test_several_directories(directory, tmp_path):
    folder = directory(wav_scp=SCP, utt2spk="utt1 anna\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "wav.scp").write_text("utt1 1.wav\n")
    rows = listed_rows(folder, tmp_path / "other", path_column="sound")  # of another input
    assert [(row["utterance"], row["speaker"]) for row in rows] == [
        ("utt1", "anna"),
        ("utt2", None),
        ("utt3", None),
        ("utt1", None),
    ]
