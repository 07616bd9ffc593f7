"""Messages without the secrets of URIs and of the environment."""

import pytest

from ser_core.errors import without_credentials, without_uri_credentials


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ftp://u:p w@h/x: failed", "ftp://***@h/x: failed"),
        ("ftp://u:p/w@h/x", "ftp://***@h/x"),
        ("ftp://u:p@w@h/x", "ftp://***@h/x"),
        ("https://token@host/x", "https://***@host/x"),
        ("HTTP://token@host", "HTTP://***@host"),
        ("(url='http://u:se/cret@host/b')", "(url='http://***@host/b')"),
        ("https://h/x?a=1&api_key=abc, again", "https://h/x?a=1&api_key=***, again"),
        ("https://h/x?Policy=a.b_&Key-Pair-Id=K: no", "https://h/x?Policy=***&Key-Pair-Id=***: no"),
    ],
)
def test_secrets_of_uris(text, shown):
    assert without_uri_credentials(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "http://host:80/a@b.wav",
        "--input http://host: not reached; ask me@example.org",
        "http://[::1]:80/a@b.wav",
        "sftp://me@host/a.wav",
        "s3://arn:aws:s3:eu-west-1:1:accesspoint/calls/a@b.wav",
        "https://host/a@b.wav?kind=wav, https://host/c@d",
        "memory://a/me:you@b",
    ],
)
def test_what_is_no_secret(text):
    assert without_uri_credentials(text) == text


def test_secrets_of_the_environment(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "abc/def+0123")
    monkeypatch.setenv("FSSPEC_FTP_PASSWORD", "correct horse")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "user:s3cr3t/s3cr3t@host")
    monkeypatch.setenv("MY_TOKEN", "wav")  # a word
    text = "user:s3cr3t/s3cr3t@host: abc/def+0123 and correct horse do not open a.wav"
    assert without_credentials(text) == "user:***@host: *** and *** do not open a.wav"
