"""Opening files, and the status of each reason why one cannot be opened."""

import os
import subprocess
import sys

import pytest

from ser_core.errors import RecordingError, Status
from ser_core.storage.reading import open_file


def status_of(path):
    with pytest.raises(RecordingError) as caught, open_file(str(path)):
        pass
    return caught.value.status, str(caught.value)


def test_a_missing_file(tmp_path):
    assert status_of(tmp_path / "gone.wav")[0] is Status.NOT_FOUND


def test_a_dangling_link(tmp_path):
    (tmp_path / "x.wav").symlink_to(tmp_path / "nowhere.wav")
    status, reason = status_of(tmp_path / "x.wav")
    assert status is Status.NOT_FOUND
    assert "link" in reason


def test_a_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "x.wav")
    status, reason = status_of(tmp_path / "x.wav")
    assert status is Status.DECODE_ERROR
    assert "regular file" in reason


def test_a_file_without_read_permission(tmp_path):
    """Runs in a process that gives up root permissions, since root can read any file."""
    path = tmp_path / "x.wav"
    path.write_bytes(b"RIFF")
    path.chmod(0)
    for folder in [tmp_path, *tmp_path.parents][:3]:
        folder.chmod(folder.stat().st_mode | 0o055)
    code = (
        "import sys; from ser_core.errors import RecordingError\n"
        "import os; from ser_core.storage.reading import open_file\n"
        "if os.geteuid() == 0: os.seteuid(65534)\n"
        "try:\n"
        "    with open_file(sys.argv[1]): print('opened')\n"
        "except RecordingError as error: print(error.status)\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "permission_denied"
