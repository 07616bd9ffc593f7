"""A URI leads to one file, whatever characters its name has."""

import fsspec
import pytest

from ser_core.errors import UsageError
from ser_core.storage.filesystem import absolute, resolve

ODD = ["a::b.wav", "zip::a.wav", "a b+c#d%20.wav", "what?*[1].wav", "名 字.wav"]


@pytest.mark.parametrize("name", ODD)
def test_odd_names_are_found_locally_and_remotely(tmp_path, name):
    (tmp_path / name).write_bytes(b"local")
    fs, path = resolve(f"{tmp_path}/{name}")
    assert fs.cat_file(path) == b"local"
    fsspec.filesystem("memory").pipe_file(f"/odd/{name}", b"remote")
    for uri in (f"memory://odd/{name}", f"memory:///odd/{name}"):
        fs, path = resolve(uri)
        assert fs.cat_file(path) == b"remote"


def test_one_bucket_is_one_file_system():
    assert resolve("memory://a/b")[0] is resolve("memory://c/d")[0]


def test_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute("x/../y/") == f"{tmp_path}/y"
    assert absolute(f"file://{tmp_path}/y") == f"{tmp_path}/y"
    assert absolute("s3://bucket/y/") == "s3://bucket/y"
    assert absolute(b"\xd6.wav".decode("utf-8", "surrogateescape")).encode()  # printable


@pytest.mark.parametrize(
    ("uri", "remedy"),
    [("gs://bucket/x", r"pip install 'ser-batch\[gcs\]'"), ("nope://x", "nope")],
)
def test_a_protocol_that_nothing_installed_supports(uri, remedy):
    with pytest.raises(UsageError, match=rf"no installed package supports .*{remedy}"):
        resolve(uri)
