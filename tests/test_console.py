"""What a job says is one line on standard error, without credentials."""

import errno
import io
import sys

import pytest

from ser_core.console import say, show


def test_what_is_said_has_no_credentials(capsys):
    say("3 recordings of ftp://me:s3cr3t@host/calls and https://host/a.wav?X-Amz-Signature=5ec2e7")
    printed = capsys.readouterr()
    shown = "3 recordings of ftp://***@host/calls and https://host/a.wav?X-Amz-Signature=***\n"
    assert (printed.out, printed.err) == ("", shown)


def test_a_path_stays_as_it_is(capsys):
    show("calls/a:phone:b[red].wav: sad")
    assert capsys.readouterr().out == "calls/a:phone:b[red].wav: sad\n"


class Full(io.StringIO):
    """A file on a full disk."""

    def write(self, _):
        raise OSError(errno.ENOSPC, "No space left on device")


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [Full, closed, lambda: None])
def test_a_stream_that_cannot_be_written_does_not_end_the_job(monkeypatch, stream):
    monkeypatch.setattr(sys, "stdout", stream())
    monkeypatch.setattr(sys, "stderr", stream())
    say("a line")
    show("a table")
