"""Runs a real S3 server, SeaweedFS, on this machine with its own folder and ports."""

import json
import random
import socket
import subprocess
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

ACCESS_KEY = "tester"
GUEST_KEY = "guest"  # has read, list and write permission below GUEST_PREFIX only
GUEST_PREFIX = "shared/guest"
SECRET_KEY = "not-a-secret"
HOST = "127.0.0.1"

_SERVICES = ("s3", "master", "volume", "filer", "admin")
_GRPC_OFFSET = 10_000  # each service listens for gRPC on its port plus this
# Both ports stay below 32768, where the range for outgoing connections begins.
_LOWEST, _HIGHEST = 11_000, 22_000
_READY_SECONDS = 30.0  # usually one
_ATTEMPTS = 3  # another process may take a port between the check and the start


@contextmanager
def s3_endpoint(folder: Path) -> Iterator[str]:
    """Runs a server with its data in ``folder`` and yields its URL.

    Raises:
        RuntimeError: the server did not start.
    """
    for attempt in range(_ATTEMPTS):
        port = free_block()
        home = folder / str(attempt)
        home.mkdir()
        process = _start(home, port)
        try:
            url = f"http://{HOST}:{port}"
            if _becomes_ready(process, url):
                yield url
                return
        finally:
            _stop(process, port)
    log = (home / "log").read_text(errors="replace")
    raise RuntimeError(f"SeaweedFS did not start:\n{log[-2000:]}")


def environment(endpoint: str, key: str = ACCESS_KEY, secret: str = SECRET_KEY) -> dict[str, str]:
    """The environment variables that point any S3 client to the server."""
    return {
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def free_block() -> int:
    """The first of a block of consecutive ports, one per service, free with their gRPC ports."""
    for _ in range(100):
        first = random.randrange(_LOWEST, _HIGHEST, len(_SERVICES))
        if all(map(_block_is_free, (first, first + _GRPC_OFFSET))):
            return first
    raise RuntimeError("no free block of ports")


def _block_is_free(first: int) -> bool:
    with ExitStack() as sockets:
        for port in range(first, first + len(_SERVICES)):
            try:
                sockets.enter_context(socket.socket()).bind((HOST, port))
            except OSError:
                return False
    return True


def _start(home: Path, port: int) -> subprocess.Popen:
    weed = Path(sysconfig.get_path("scripts")) / "weed"
    identities = [
        _identity(ACCESS_KEY, ["Admin", "Read", "List", "Tagging", "Write"]),
        _identity(GUEST_KEY, [f"{action}:{GUEST_PREFIX}*" for action in ("Read", "List", "Write")]),
    ]
    (home / "s3.json").write_text(json.dumps({"identities": identities}))
    ports = [f"-{service}.port={port + index}" for index, service in enumerate(_SERVICES)]
    disabled = ["-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    disabled += ["-master.telemetry=false", "-s3.autoCreateBucket=false"]  # as on AWS
    local = ["-dir=.", f"-ip={HOST}", f"-ip.bind={HOST}", "-s3.config=s3.json"]
    local += ["-s3.localSocket=s3.sock", "-filer.localSocket=filer.sock"]
    command = [weed, "-logtostderr=true", "mini", *local, *ports, *disabled]
    with (home / "log").open("wb") as log:
        return subprocess.Popen(command, cwd=home, stdout=log, stderr=log)


def _identity(key: str, actions: list[str]) -> dict[str, object]:
    credentials = [{"accessKey": key, "secretKey": SECRET_KEY}]
    return {"name": key, "credentials": credentials, "actions": actions}


def _becomes_ready(process: subprocess.Popen, url: str) -> bool:
    deadline = time.monotonic() + _READY_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/healthz", timeout=1):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    return False


def _stop(process: subprocess.Popen, port: int) -> None:
    process.kill()  # its data is not needed after the tests
    process.wait()
    for offset in range(_GRPC_OFFSET, _GRPC_OFFSET + len(_SERVICES)):
        for socket_file in Path("/tmp").glob(f"seaweedfs-*-grpc-{port + offset}.sock"):
            socket_file.unlink(missing_ok=True)  # SeaweedFS ignores TMPDIR
