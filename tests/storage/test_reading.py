"""What keeps a recording from being opened has a status of its own."""

import os
import subprocess
import sys

import pytest

from ser_core.errors import RecordingError, Status
from ser_core.storage.reading import open_recording


def status_of(path):
    with pytest.raises(RecordingError) as caught, open_recording(str(path), None):
        pass
    return caught.value.status, str(caught.value)


def test_missing(tmp_path):
    assert status_of(tmp_path / "gone.wav")[0] is Status.NOT_FOUND


def test_dangling_link(tmp_path):
    (tmp_path / "x.wav").symlink_to(tmp_path / "nowhere.wav")
    status, words = status_of(tmp_path / "x.wav")
    assert status is Status.NOT_FOUND
    assert "link" in words


def test_pipe_is_refused_rather_than_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.wav")
    status, words = status_of(tmp_path / "x.wav")
    assert status is Status.DECODE_ERROR
    assert "regular file" in words


def test_forbidden(tmp_path):
    """In a process without root's rights, which would read it all the same."""
    path = tmp_path / "x.wav"
    path.write_bytes(b"RIFF")
    path.chmod(0)
    for folder in [tmp_path, *tmp_path.parents][:3]:
        folder.chmod(folder.stat().st_mode | 0o055)
    code = (
        "import sys; from ser_core.errors import RecordingError\n"
        "import os; from ser_core.storage.reading import open_recording\n"
        "if os.geteuid() == 0: os.seteuid(65534)\n"
        "try:\n"
        "    with open_recording(sys.argv[1], None): print('opened')\n"
        "except RecordingError as error: print(error.status)\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "permission_denied"


def test_name_that_is_not_utf8(tmp_path):
    """GBK names are common in older Chinese corpora; the path in the table leads to the file."""
    from ser_core.storage.listing import list_files

    os.close(os.open(os.fsencode(tmp_path) + b"/\xd6\xd0.wav", os.O_CREAT))
    (entry,) = list_files(str(tmp_path), lambda _: True)
    assert entry.path.encode()  # is text
    assert entry.size == 0
    with open_recording(entry.path, None) as handle:
        assert handle.read() == b""
