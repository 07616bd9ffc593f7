"""What a job says is one line on standard error, without credentials."""

from ser_core.console import say


def test_what_is_said_has_no_credentials(capsys):
    say("3 recordings of ftp://me:s3cr3t@host/calls and https://host/a.wav?X-Amz-Signature=5ec2e7")
    printed = capsys.readouterr()
    shown = "3 recordings of ftp://***@host/calls and https://host/a.wav?X-Amz-Signature=***\n"
    assert (printed.out, printed.err) == ("", shown)
