"""Every input has one form, a new form is one module, and other inputs are refused."""

import zipfile

import pandas as pd
import pytest
from misbehaving_store import BUCKET
from recordings import write_manifest

from ser_core import sources
from ser_core.errors import CorpusError, RecordingError, RunError, Status, UsageError
from ser_core.sources.forms import open_source, read_members
from ser_core.sources.recording import Recording
from ser_core.storage.reading import Stopwatch


def test_missing_and_unsupported_inputs_are_refused(folder, refusal):
    assert "no such file" in refusal(folder / "nowhere")
    assert "no such file" in refusal(folder / "nowhere.csv")
    assert "not one of: a recording" in refusal(folder / "notes.unknown")


@pytest.mark.usefixtures("deadline")
@pytest.mark.parametrize("name", ["", "/calls", "/1.wav", "/calls.csv", "/calls.parquet"])
@pytest.mark.parametrize(
    ("deadline", "fault", "error", "words"),
    [
        (0.5, "silent", RunError, "cannot be reached (no complete answer within 0.5 s); the same"),
        (0.5, 503, RunError, "cannot be reached ("),
        (60.0, 403, CorpusError, "cannot be read ("),
    ],
    indirect=["deadline"],
)
def test_storage_out_of_reach_is_told_from_a_bad_command(store, refusal, name, fault, error, words):
    store.fault = lambda *_: fault
    assert words in refusal(f"s3://{BUCKET}{name}", error)


@pytest.mark.parametrize("name", ["nowhere", "nowhere.csv", "nowhere.wav"])
def test_a_missing_object_is_a_bad_command(store, refusal, name):
    store.objects = {"calls/1.wav": b"x"}
    assert "there is no such file or folder" in refusal(f"s3://{BUCKET}/{name}")


def test_an_input_with_a_password_is_refused_without_showing_it():
    with pytest.raises(UsageError) as caught:
        open_source(["ftp://me:s3cr3t@host/calls"])
    assert "FSSPEC_FTP_PASSWORD" in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


# ---- a new form ----------------------------------------------------------------------------------

ZIP_FORM = '''
"""Zip archives as ``--input``."""

import zipfile

import pyarrow as pa

from ser_core.errors import RecordingError, Status
from ser_core.sources.interface import Page
from ser_core.sources.recording import Recording
from ser_core.storage.listing import is_file
from ser_core.storage.reading import open_file


DESCRIPTION = "a zip archive"
EXTENSIONS = ("zip",)


def recognizes(uri):
    return uri.endswith(".zip") and is_file(uri)


def open_source(uris, options):
    return ZipSource(uris)


class ZipSource:
    columns = pa.schema([])

    def __init__(self, uris):
        self.uris = uris

    def pages(self):
        for uri in self.uris:
            with open_file(uri) as handle, zipfile.ZipFile(handle) as archive:
                yield Page([
                    Recording(uri, info.file_size, f"{info.CRC}", member=info.filename)
                    for info in archive.infolist()
                ])


def read_members(uri, recordings, stopwatch):
    with open_file(uri, None, stopwatch) as handle, zipfile.ZipFile(handle) as archive:
        for recording in recordings:
            try:
                yield archive.read(recording.member)
            except KeyError:
                yield RecordingError(Status.NOT_FOUND, "no longer in the archive")
'''


@pytest.fixture
def with_zip_form(tmp_path, monkeypatch):
    """Adds a module to the package and changes nothing else."""
    (tmp_path / "forms").mkdir()
    (tmp_path / "forms" / "zipped.py").write_text(ZIP_FORM)
    monkeypatch.setattr(sources, "__path__", [*sources.__path__, str(tmp_path / "forms")])


def write_zip(path, *members):
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members:
            file.writestr(name, content)
    return str(path)


def recordings_of(*inputs):
    return [r for page in open_source(inputs).pages() for r in page.recordings]


@pytest.mark.usefixtures("with_zip_form")
def test_a_new_form_is_one_module(tmp_path):
    archive = write_zip(tmp_path / "calls.zip", ("1.wav", b"one"), ("2.wav", b"two"))
    recordings = recordings_of(archive)
    assert [recording.path for recording in recordings] == [
        f"{archive}::1.wav",
        f"{archive}::2.wav",
    ]
    assert len({recording.file_id for recording in recordings}) == 2
    assert list(read_members(archive, recordings, Stopwatch())) == [b"one", b"two"]
    write_zip(archive, ("1.wav", b"one"))
    first, second = read_members(archive, recordings, Stopwatch())
    assert (first, second.status) == (b"one", Status.NOT_FOUND)


@pytest.mark.usefixtures("with_zip_form")
def test_a_file_that_breaks_off_still_gives_an_answer_for_each_member(monkeypatch):
    from ser_core.sources import zipped

    def break_off(*_):
        yield b"one"
        raise RecordingError(Status.UNAVAILABLE, "no answer")

    monkeypatch.setattr(zipped, "read_members", break_off)
    recordings = [Recording("/gone.zip", member=f"{number}.wav") for number in range(3)]
    first, *others = read_members("/gone.zip", recordings, Stopwatch())
    assert first == b"one"
    assert [error.status for error in others] == [Status.UNAVAILABLE] * 2
    (error,) = read_members("/gone.unknown", recordings[:1], Stopwatch())
    assert "no input form opens its file" in str(error)


@pytest.mark.usefixtures("with_zip_form")
@pytest.mark.parametrize("pattern", ["*.zip", "[ab].zip", "**/*.zip", "{a,b,a}.zip"])
def test_a_pattern_of_packed_files_stands_for_them_in_order(tmp_path, pattern):
    for name in "ba":
        write_zip(tmp_path / f"{name}.zip", ("1.wav", b"one"))
    (tmp_path / ".c.zip").write_bytes(b"hidden")
    paths = [recording.path for recording in recordings_of(str(tmp_path / pattern))]
    assert paths == [f"{tmp_path}/a.zip::1.wav", f"{tmp_path}/b.zip::1.wav"]


@pytest.mark.usefixtures("with_zip_form")
def test_files_that_one_pattern_names_are_looked_at_once(tmp_path, monkeypatch):
    """A request for each of 5,000 shards would take a minute before anything is listed."""
    from ser_core.sources import zipped

    asked = []
    monkeypatch.setattr(zipped, "is_file", lambda uri: asked.append(uri) or True)
    for name in ("0.zip", "1.zip", "2.zip"):
        write_zip(tmp_path / name, (name, b""))
    assert len(recordings_of(str(tmp_path / "{0..2}.zip"))) == 3
    assert asked == [f"{tmp_path}/0.zip"]


@pytest.mark.usefixtures("with_zip_form")
def test_a_pattern_of_packed_files_that_matches_none_is_refused(tmp_path, refusal):
    assert refusal(tmp_path / "*.zip").endswith(": no file matches")


def test_at_most_one_form_recognizes_an_input(folder):
    from ser_core.sources import file, manifest
    from ser_core.sources import folder as folders

    write_manifest(pd.DataFrame({"path": ["a.wav"]}), folder / "m.csv")
    for uri, expected in (
        (folder, folders),
        (folder / "a.wav", file),
        (folder / "m.csv", manifest),
        (folder / "notes.unknown", None),
        (folder / "nowhere", folders),
    ):
        forms = [form for form in (file, folders, manifest) if form.recognizes(str(uri))]
        assert forms == ([expected] if expected else [])


def test_folders_are_asked_last(folder, tmp_path, monkeypatch):
    """Another form may take a folder with certain files in it."""
    (tmp_path / "forms").mkdir()
    form = ZIP_FORM.replace('uri.endswith(".zip") and is_file(uri)', "is_file(f'{uri}/index.zz')")
    (tmp_path / "forms" / "zz.py").write_text(
        form.replace("a zip archive", "a folder of its own form")
    )
    monkeypatch.setattr(sources, "__path__", [*sources.__path__, str(tmp_path / "forms")])
    (folder / "index.zz").write_text("x a.wav")
    (opened,) = open_source([str(folder)]).opened
    assert type(opened.source).__module__ == "ser_core.sources.zz"
