"""URIs resolve to a file system and a path, whatever characters they contain."""

import errno
import http.server
import re
import sys
import threading
import time
from types import SimpleNamespace

import fsspec
import pytest
from aiohttp import ClientResponseError

from ser_core.errors import OutputError, UsageError
from ser_core.storage.filesystem import CredentialsError, absolute, is_transient, join, resolve
from ser_core.storage.folder import Folder
from ser_core.storage.protocols import object_store

ODD = ["a::b.wav", "zip::a.wav", "a b+c#d%20.wav", "what?*[1].wav", "名 字.wav"]


@pytest.mark.parametrize("name", ODD)
def test_special_characters_in_names(tmp_path, name):
    (tmp_path / name).write_bytes(b"local")
    fs, path = resolve(f"{tmp_path}/{name}")
    assert fs.cat_file(path) == b"local"
    fsspec.filesystem("memory").pipe_file(f"/odd/{name}", b"remote")
    for uri in (f"memory://odd/{name}", f"memory:///odd/{name}"):
        fs, path = resolve(uri)
        assert fs.cat_file(path) == b"remote"


def test_uris_of_a_protocol_share_a_file_system():
    assert resolve("memory://a/b")[0] is resolve("memory://c/d")[0]


def test_absolute_uris(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute("x/../y/") == f"{tmp_path}/y"
    assert absolute(f"file://{tmp_path}/y") == f"{tmp_path}/y"
    assert absolute(f"/{tmp_path}/y") == absolute(f"file:///{tmp_path}/y") == f"{tmp_path}/y"
    assert absolute(join("/data", "x/y://../../../../etc")) == "/etc"
    assert absolute("s3://bucket/y/") == "s3://bucket/y"
    assert absolute(b"\xd6.wav".decode("utf-8", "surrogateescape")).encode()  # printable


@pytest.mark.parametrize("uri", ["a\0b", "/data/a\0b", "file:///a\0b"])
def test_a_path_with_a_nul_character_is_refused(uri):
    with pytest.raises(UsageError, match=r"b': a path cannot contain a NUL character"):
        absolute(uri)


@pytest.mark.parametrize(
    ("uri", "remedy"),
    [
        ("sftp://host/x", "paramiko"),
        ("nope://x", "Protocol not known: nope"),
        ("gss://bucket/x", "did you mean gs?"),
        ("S3://bucket/x", "did you mean s3?"),
        ("hdfs://host/x", "(install Hadoop's client, and set JAVA_HOME, HADOOP_HOME and CLASSPATH"),
        ("github://x", "org"),
    ],
)
def test_an_unsupported_protocol_is_refused(uri, remedy, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    with pytest.raises(UsageError) as caught:
        resolve(uri)
    message = str(caught.value)
    assert f"no installed package supports {uri.partition('://')[0]}:// (" in message
    assert remedy in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("uri", "remedy"),
    [
        ("ftp://me:s3cr3t@host/a.wav", "FSSPEC_FTP_PASSWORD"),
        ("sftp://me:s3c@r3t@host:22/a.wav", "FSSPEC_SFTP_PASSWORD"),
        ("s3://key:s3cr3t@bucket/a.wav", "FSSPEC_S3_PASSWORD"),
        ("ftp://me:s3cr3t s3c@host/a.wav", "FSSPEC_FTP_PASSWORD"),
        ("ftp://me:x/s3cr3t@host/a.wav", "FSSPEC_FTP_PASSWORD"),
        ("https://s3cr3t@host/a.wav", "~/.config/fsspec"),
        ("https://host/a.wav?X-Amz-Signature=s3cr3t&X-Amz-Expires=9", "s3://bucket/key"),
        ("https://host/a.wav?sv=1&sig=s3cr3t", "s3://bucket/key"),
    ],
)
def test_a_uri_with_a_secret_is_refused_without_showing_it(uri, remedy):
    with pytest.raises(UsageError) as caught:
        resolve(uri)
    assert remedy in str(caught.value)
    assert "s3cr3t" not in str(caught.value)
    assert "s3c" not in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    ["memory://a/me:you@b?token=c.wav", "http://host:80/a@b.wav", "memory://me@host/a.wav"],
)
def test_a_uri_without_a_secret_is_not_refused(uri):
    assert resolve(uri)


def http_error(status):
    return ClientResponseError(SimpleNamespace(real_url="http://host"), (), status=status)


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (http_error(503), True),
        (http_error(429), True),
        (http_error(408), True),
        (http_error(403), False),
        (http_error(405), False),
        (http_error(501), False),
        (NotImplementedError(), False),
        (OSError(errno.ELOOP, "a link to itself"), False),
        (OSError("connection closed"), True),
        (OSError(errno.EBUSY, "SlowDown"), True),
        (TimeoutError(), True),
        (ConnectionRefusedError(), True),
        (OSError(errno.EINVAL, "InvalidBucketName"), False),
        (PermissionError(), False),
        (FileNotFoundError(), False),
        (CredentialsError("ExpiredToken"), False),
        (UsageError("no such protocol"), False),
    ],
)
def test_what_a_retry_can_help(error, transient):
    assert is_transient(error) is transient


@pytest.fixture
def web_server():
    """The URI of a server that has no files and takes none."""
    handler = http.server.BaseHTTPRequestHandler
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_an_output_that_cannot_be_written_at_all_is_refused_at_once(web_server):
    started = time.monotonic()
    with pytest.raises(OutputError):
        Folder(f"{web_server}/labels").probe()
    assert time.monotonic() - started < 30  # s, and not a deadline of 60


@pytest.mark.parametrize(
    ("uri", "extra"),
    [("s3://b/x", "s3"), ("s3a://b/x", "s3"), ("gs://b/x", "gcs"), ("az://b/x", "azure")],
)
def test_a_store_whose_client_is_not_installed_is_refused(uri, extra, monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("obstore", "ser_core.storage."))]:
        if name.startswith("obstore") or name.endswith((".s3", ".google", ".azure", "_store")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "obstore", None)
    object_store.cache_clear()
    with pytest.raises(UsageError, match=re.escape(f"(pip install 'ser-batch[{extra}]')")):
        resolve(uri)
