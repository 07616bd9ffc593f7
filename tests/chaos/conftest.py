"""Commands, corpora, and an S3 server behind the proxy that breaks it."""

import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import s3fs
import seaweed
from faulty_proxy import FaultyProxy
from harness import Command
from recordings import speech_like, write_audio

# It patches what is imported after it; pytest would import it in search of doctests.
collect_ignore = ["sabotage"]
_DISTINCT = 20  # the other recordings are hard links


@pytest.fixture
def command(small_checkpoint) -> Callable[..., Command]:
    """Builds ``python -m jobs.label`` with the small checkpoint."""

    def build(corpus: Any, output: Any, environment: Any = None, **flags: Any) -> Command:
        common = {"input": corpus, "output": output, "model": small_checkpoint, "precision": "fp32"}
        return Command(common | flags, dict(environment or {}))

    return build


@pytest.fixture(scope="session")
def speech(tmp_path_factory) -> list[Path]:
    """Recordings of half a second to three."""
    folder = tmp_path_factory.mktemp("speech")
    return [
        write_audio(folder / f"{n}.wav", speech_like(0.5 + n % 6 / 2, seed=n))
        for n in range(_DISTINCT)
    ]


@pytest.fixture
def make_corpus(speech) -> Callable[[Path, int], list[Path]]:
    """Fills a folder with so many recordings and returns their paths."""

    def make(folder: Path, count: int) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{number:04}.wav" for number in range(count)]
        for number, path in enumerate(paths):
            path.write_bytes(speech[number % len(speech)].read_bytes())
        return paths

    return make


@dataclass(frozen=True)
class Bucket:
    """A new bucket on a real S3 server, seen by the tests directly and by jobs through the proxy.

    Attributes:
        uri: ``s3://NAME``.
        proxy: to switch faults.
        environment: of a job.
    """

    uri: str
    proxy: FaultyProxy
    environment: dict[str, str]

    def upload(self, prefix: str, files: dict[str, bytes]) -> list[str]:
        """Writes objects below a prefix and returns their URIs."""
        objects = {f"{self.uri}/{prefix}/{name}": data for name, data in files.items()}
        s3fs.S3FileSystem().pipe(objects)
        return list(objects)


@pytest.fixture(scope="session")
def s3_proxy(tmp_path_factory) -> Iterator[tuple[str, FaultyProxy]]:
    """The URL of an S3 server, and the proxy before it."""
    with (
        seaweed.s3_endpoint(tmp_path_factory.mktemp("seaweed")) as endpoint,
        FaultyProxy(endpoint) as proxy,
    ):
        yield endpoint, proxy


@pytest.fixture
def bucket(s3_proxy, monkeypatch) -> Iterator[Bucket]:
    """A new bucket without faults."""
    endpoint, proxy = s3_proxy
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in seaweed.environment(endpoint).items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()  # cached instances keep the old variables
    name = f"chaos-{uuid.uuid4().hex[:8]}"
    s3fs.S3FileSystem().mkdir(name)
    yield Bucket(f"s3://{name}", proxy, seaweed.environment(proxy.url))
    proxy.clear()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def faults(tmp_path) -> Path:
    """The folder whose files break classifiers: see sabotage/label_faults.py."""
    folder = tmp_path / "faults"
    folder.mkdir()
    return folder
