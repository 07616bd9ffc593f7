"""`ray job submit` to a cluster with token authentication, as from a laptop."""

import itertools
import json
import os
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sysconfig
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pytest
from recordings import speech_like, write_audio

ROOT = Path(__file__).parents[2]
RAY = Path(sysconfig.get_path("scripts")) / "ray"
RECORDINGS = 6
START_SECONDS = 240.0  # ten on an idle machine
JOB_SECONDS = 300.0  # twenty on an idle machine
# Below those of Ray's workers and of outgoing connections, which other tests open at any moment.
PORTS = range(7_000, 8_000)

T = TypeVar("T")


@dataclass(frozen=True)
class Head:
    """A running head node.

    Attributes:
        url: of its dashboard, which accepts jobs.
        metrics: the URL of its metrics.
        token: authenticates requests.
        folder: holds its temporary files.
        environment: for commands that use the token.
    """

    url: str
    metrics: str
    token: str
    folder: Path
    environment: dict[str, str]

    def get(self, path: str, token: str | None = None) -> Any:
        """The dashboard's response to a GET request, from JSON."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        request = urllib.request.Request(f"{self.url}{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)

    def submit(self, job: str, *command: str, **environment: str) -> subprocess.CompletedProcess:
        """Runs `ray job submit` and waits until the job has ended."""
        options = ["--address", self.url, "--working-dir", ROOT, "--submission-id", job]
        return subprocess.run(
            [RAY, "job", "submit", *options, "--", "python", "-m", *command],
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=JOB_SECONDS,
            check=False,
        )

    def job(self, job: str) -> Any:
        """The cluster's details of a job, once it has ended."""

        def ended() -> Any:
            details = self.get(f"/api/jobs/{job}", self.token)
            return details if details["status"] in ("SUCCEEDED", "FAILED", "STOPPED") else None

        return wait_for(ended, JOB_SECONDS)


def wait_for(condition: Callable[[], T | None], seconds: float) -> T:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(OSError):  # the server does not listen yet
            result = condition()
            if result is not None:
                return result
        time.sleep(0.2)
    raise TimeoutError(f"not within {seconds} s: {condition.__qualname__}")


def free_ports(count: int) -> list[int]:
    return list(itertools.islice(filter(is_free, random.sample(PORTS, len(PORTS))), count))


def is_free(port: int) -> bool:
    with socket.socket() as candidate, suppress(OSError):
        candidate.bind(("127.0.0.1", port))
        return True
    return False


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    # Not tmp_path: Ray creates sockets there, and their paths are limited to 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    token = secrets.token_hex(16)
    (folder / "token").write_text(token)
    gcs, dashboard, agent, client, metrics = free_ports(5)
    environment = {name: v for name, v in os.environ.items() if not name.startswith("RAY_")}
    environment |= {
        "HOME": str(folder),  # so that the user's own token is not used
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "RAY_DASHBOARD_STARTUP_TIMEOUT_S": f"{START_SECONDS:.0f}",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_metrics_report_interval_ms": "500",  # not 10 s, in which a small job may be done
        "NO_PROXY": "127.0.0.1",
    }
    # Jobs run the first `python` in the PATH of the head node.
    environment["PATH"] = f"{RAY.parent}{os.pathsep}{environment['PATH']}"
    command = [RAY, "start", "--head", "--block", "--num-cpus=2", f"--temp-dir={folder / 'ray'}"]
    command += [f"--port={gcs}", "--include-dashboard=true", f"--dashboard-port={dashboard}"]
    command += [f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}"]
    command += [f"--metrics-export-port={metrics}", "--object-store-memory=200000000"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        urls = f"http://127.0.0.1:{dashboard}", f"http://127.0.0.1:{metrics}/metrics"
        running = Head(*urls, token, folder, environment)

        def accepts_jobs() -> Any:
            if process.poll() is not None:
                raise RuntimeError((folder / "log").read_text())
            socket.create_connection(("127.0.0.1", agent), 10).close()  # it starts the jobs
            return running.get("/api/jobs/", token)

        wait_for(accepts_jobs, START_SECONDS)
        yield running
    finally:
        stop(process)
        shutil.rmtree(folder, ignore_errors=True)


def stop(process: subprocess.Popen) -> None:
    """Ends the head node's process group: itself and everything it started."""
    os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(5)  # s; a full shutdown may take half a minute
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for number in range(RECORDINGS):
        write_audio(folder / f"{number}.wav", speech_like(1.0, seed=number))
    return folder


@pytest.fixture(scope="module")
def metrics() -> set[str]:
    """The names of the metrics that were on the endpoint while the job ran, once it has ended."""
    return set()


@pytest.fixture(scope="module")
def labels(head, corpus, small_checkpoint, tmp_path_factory, metrics) -> Path:
    """The output of a submitted job."""
    output = tmp_path_factory.mktemp("output") / "labels"
    flags = ["--input", str(corpus), "--output", str(output), "--model", str(small_checkpoint)]
    with scraping(head, metrics):
        submitted = head.submit("labels", "jobs.label", *flags)
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    return output


@contextmanager
def scraping(head: Head, names: set[str]) -> Iterator[None]:
    """Within it, adds the names of all metrics, as Prometheus would see them."""
    ended = threading.Event()

    def scrape() -> None:
        while not ended.wait(0.5):
            with suppress(OSError), urllib.request.urlopen(head.metrics, timeout=10) as response:
                names.update(re.findall(r"^(\w+)[{ ]", response.read().decode(), re.M))

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_a_submitted_job_labels_every_recording(head, corpus, labels):
    assert head.job("labels")["status"] == "SUCCEEDED"
    rows = pd.read_parquet(labels)
    assert sorted(rows["path"]) == sorted(map(str, corpus.iterdir()))
    assert set(rows["status"]) == {"ok"}
    (report,) = (labels / "__runs").glob("*.json")
    assert json.loads(report.read_text())["by_status"] == {"ok": RECORDINGS}


@pytest.mark.usefixtures("labels")
def test_the_endpoint_has_what_the_dashboard_shows(metrics):
    dashboard = json.loads((ROOT / "deploy" / "grafana.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    shown = {name for query in queries for name in re.findall(r"\bray_\w+", query)}
    assert len(shown) >= 10
    assert shown <= metrics, f"not on Ray's endpoint: {shown - metrics}"


@pytest.mark.usefixtures("labels")
def test_only_the_code_is_uploaded(head):
    """Ray honours `.gitignore`; the virtual environment alone has several GB."""
    (package,) = head.folder.glob("ray/session_2*/runtime_resources/working_dir_files/_ray_pkg_*/")
    assert (package / "jobs" / "label.py").is_file()
    assert not (package / ".venv").exists()
    assert not (package / ".git").exists()
    assert sum(file.stat().st_size for file in package.rglob("*")) < 20e6


def test_a_mistyped_flag_exits_with_2_and_one_line(head, corpus, tmp_path):
    submitted = head.submit("typo", "jobs.label", "--inptu", str(corpus), "--output", str(tmp_path))
    assert submitted.returncode != 0
    assert "did you mean --input?" in submitted.stdout
    assert "Traceback" not in head.get("/api/jobs/typo/logs", head.token)["logs"]
    job = head.job("typo")
    assert (job["status"], job["driver_exit_code"]) == ("FAILED", 2)


def test_requests_without_the_token_are_refused(head):
    submitted = head.submit("nobody", "jobs.label", "--help", RAY_AUTH_MODE="disabled")
    assert submitted.returncode != 0
    assert "authentication" in submitted.stderr
    for token, code in ((None, 401), ("wrong", 403)):
        with pytest.raises(urllib.error.HTTPError, match=str(code)):
            head.get("/api/jobs/", token)
    known = {job["submission_id"] for job in head.get("/api/jobs/", head.token)}
    assert "nobody" not in known
