"""Fixtures shared by many tests: checkpoints and real recordings."""

import os
from collections.abc import Iterator
from pathlib import Path

import imageio_ffmpeg
import pytest
import torch
from checkpoints import save_card_style
from misbehaving_store import BUCKET, Store, running_store
from recordings import SHARED_DATA

from examples.make_checkpoint import SMALL
from ser_core.models.card import Card
from ser_core.storage.filesystem import resolve, retry_transient


@pytest.fixture(scope="session", autouse=True)
def ffmpeg_for_librosa(tmp_path_factory):
    """Puts `ffmpeg` on the PATH, through which librosa.load reads m4a and webm."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory) -> Path:
    return save_card_style(tmp_path_factory.mktemp("small"), **SMALL)


@pytest.fixture(scope="session")
def full_checkpoint(tmp_path_factory) -> Path:
    return save_card_style(tmp_path_factory.mktemp("full"))


@pytest.fixture(scope="session")
def small_card(small_checkpoint) -> Card:
    return Card(small_checkpoint)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings; tests that use it are skipped where nobody has named one."""
    if not os.environ.get("SER_TEST_DATA"):
        pytest.skip("set SER_TEST_DATA to a folder with real recordings (see CONTRIBUTING.md)")
    assert SHARED_DATA.is_dir(), f"SER_TEST_DATA={SHARED_DATA} is not a folder"
    return SHARED_DATA


@pytest.fixture(scope="session")
def one_thread():
    """The networks are so small that several threads spend more time waiting than computing."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def store(monkeypatch) -> Iterator[Store]:
    """An S3 server to which the AWS variables point, and that misbehaves as it is told."""
    with running_store() as (server, environment):
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        resolve(f"s3://{BUCKET}")[0].connection(BUCKET)  # no deadline is spent on loading botocore
        yield server


DEADLINE = 2.0


@pytest.fixture
def deadline(request, monkeypatch) -> float:
    """Shortens the deadline of requests, s; less where a test needs no request to succeed."""
    seconds = getattr(request, "param", DEADLINE)
    monkeypatch.setattr(retry_transient, "__defaults__", (seconds,))
    return seconds
