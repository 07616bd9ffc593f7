"""Every input has one form, a new form is one module, and other inputs are refused."""

import zipfile

import pandas as pd
import pytest
from misbehaving_store import BUCKET
from recordings import write_manifest

from ser_core import sources
from ser_core.errors import CorpusError, RecordingError, RunError, Status, UsageError
from ser_core.sources.forms import open_recording, open_source
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
        open_source("ftp://me:s3cr3t@host/calls")
    assert "FSSPEC_FTP_PASSWORD" in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


# ---- a new form ----------------------------------------------------------------------------------

ZIP_FORM = '''
"""Zip archives as ``--input``."""

import io
import zipfile
from contextlib import contextmanager

import pyarrow as pa

from ser_core.errors import RecordingError, Status
from ser_core.sources.interface import Page
from ser_core.sources.recording import Recording
from ser_core.storage.listing import is_file
from ser_core.storage.reading import open_file


DESCRIPTION = "a zip archive"


def recognizes(uri):
    return uri.endswith(".zip") and is_file(uri)


def open_source(uri, _allow_outside):
    return ZipSource(uri)


class ZipSource:
    columns = pa.schema([])

    def __init__(self, uri):
        self.uri = uri

    def pages(self):
        with open_file(self.uri) as handle, zipfile.ZipFile(handle) as archive:
            yield Page([
                Recording(self.uri, info.file_size, f"{info.CRC}", member=info.filename)
                for info in archive.infolist()
            ])


@contextmanager
def open_member(recording, stopwatch):
    with open_file(recording.uri, None, stopwatch) as handle, zipfile.ZipFile(handle) as archive:
        try:
            yield io.BytesIO(archive.read(recording.member))
        except KeyError:
            raise RecordingError(Status.NOT_FOUND, "no longer in the archive") from None
'''


@pytest.fixture
def with_zip_form(tmp_path, monkeypatch):
    """Adds a module to the package and changes nothing else."""
    (tmp_path / "forms").mkdir()
    (tmp_path / "forms" / "zipped.py").write_text(ZIP_FORM)
    monkeypatch.setattr(sources, "__path__", [*sources.__path__, str(tmp_path / "forms")])


@pytest.mark.usefixtures("with_zip_form")
def test_a_new_form_is_one_module(tmp_path):
    archive = tmp_path / "calls.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("1.wav", b"one")
        file.writestr("2.wav", b"two")
    recordings = [r for page in open_source(str(archive)).pages() for r in page.recordings]
    assert [recording.path for recording in recordings] == [
        f"{archive}::1.wav",
        f"{archive}::2.wav",
    ]
    assert len({recording.file_id for recording in recordings}) == 2
    with open_recording(recordings[1], Stopwatch()) as handle:
        assert handle.read() == b"two"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("1.wav", b"one")
    with (
        pytest.raises(RecordingError) as caught,
        open_recording(recordings[1], Stopwatch()),
    ):
        pass
    assert caught.value.status is Status.NOT_FOUND


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
