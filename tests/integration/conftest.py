"""Ray and S3 fixtures of the integration tests."""

import os
import uuid
from collections.abc import Iterator

import pytest
import ray
import s3fs
import seaweed

from ser_core.storage.protocols import object_store


@pytest.fixture(scope="module")
def ray_of_two_cores() -> Iterator[None]:
    """Ray for training tests; with one thread per process, results are bit-identical."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory) -> Iterator[str]:
    """The URL of a running S3 server."""
    with seaweed.s3_endpoint(tmp_path_factory.mktemp("seaweed")) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def bucket(s3_server) -> Iterator[str]:
    """The URI of a new bucket; the AWS variables point to its server during the module."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("AWS_"):
                patch.delenv(name)
        for name, value in seaweed.environment(s3_server).items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()  # cached instances keep the old variables
        object_store.cache_clear()
        name = f"corpora-{uuid.uuid4().hex[:8]}"
        s3fs.S3FileSystem().mkdir(name)
        yield f"s3://{name}"
        s3fs.S3FileSystem.clear_instance_cache()
        object_store.cache_clear()
