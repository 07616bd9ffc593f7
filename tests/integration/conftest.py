"""Servers that the integration tests talk to."""

import os
import uuid
from collections.abc import Iterator

import pytest
import s3fs
import seaweed


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory) -> Iterator[str]:
    """The URL of a running S3 server."""
    with seaweed.s3_endpoint(tmp_path_factory.mktemp("seaweed")) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def bucket(s3_server) -> Iterator[str]:
    """The URI of a bucket; for the module, the standard variables lead to its server."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("AWS_"):
                patch.delenv(name)
        for name, value in seaweed.environment(s3_server).items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()  # an instance keeps the variables it began with
        name = f"corpora-{uuid.uuid4().hex[:8]}"
        s3fs.S3FileSystem().mkdir(name)
        yield f"s3://{name}"
        s3fs.S3FileSystem.clear_instance_cache()
