"""URIs resolve to a file system and a path, whatever characters they contain."""

import fsspec
import pytest

from ser_core.errors import UsageError
from ser_core.storage.filesystem import absolute, resolve

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
    assert absolute("s3://bucket/y/") == "s3://bucket/y"
    assert absolute(b"\xd6.wav".decode("utf-8", "surrogateescape")).encode()  # printable


@pytest.mark.parametrize(
    ("uri", "remedy"),
    [("gs://bucket/x", r"pip install 'ser-batch\[gcs\]'"), ("nope://x", "nope")],
)
def test_an_unsupported_protocol_is_refused(uri, remedy):
    with pytest.raises(UsageError, match=rf"no installed package supports .*{remedy}"):
        resolve(uri)
