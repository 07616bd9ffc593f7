"""Training whose processes, disk and bucket fail: it continues, or ends with a clear error."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import s3fs
import seaweed
from harness import SABOTAGE, Command, Job, run
from ray.cluster_utils import Cluster
from recordings import speech_like, write_audio
from sabotage.breaking_rates import CRASH
from training_runs import flags, load_weights, read_history, short_run, write_corpus

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1200)]
SECONDS = 400.0  # for what takes 20 s on two idle cores


class Train(Command):
    """``python -m jobs.train`` with its flags."""

    def argv(self):
        settings = [f"--{name.replace('_', '-')}={value}" for name, value in self.flags.items()]
        return [sys.executable, "-m", "jobs.train", *settings]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@dataclass
class Runs:
    """Builds commands, and the faults that they are to meet."""

    corpus: Path
    faults: Path

    def command(self, output, polls=0.2, environment=None, **changes):
        environment = {
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(SABOTAGE),
            "TRAINING_FAULTS": str(self.faults),
            "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": str(polls),
        } | (environment or {})
        return Train(flags(short_run(self.corpus, output, **changes)), environment)

    def inject(self, *names):
        for name in names:
            (self.faults / name).touch()


@pytest.fixture
def runs(corpus, tmp_path):
    (tmp_path / "faults").mkdir()
    return Runs(corpus, tmp_path / "faults")


@pytest.fixture(scope="module")
def undisturbed(corpus, tmp_path_factory):
    """The output of a run that nothing disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "faults").mkdir()
    ended = run(Runs(corpus, folder / "faults").command(folder / "run"), SECONDS)
    assert ended.code == 0, ended.stderr
    return folder / "run"


def assert_same(output, expected):
    """The same bits, and nothing left over."""
    pd.testing.assert_frame_equal(read_history(output), read_history(expected), check_exact=True)
    for name in ("best", "last"):
        weights, others = load_weights(f"{output}/{name}"), load_weights(f"{expected}/{name}")
        assert weights.keys() == others.keys()
        for key, array in weights.items():
            np.testing.assert_array_equal(array, others[key])
    names = [path.name for path in Path(output).rglob("*")]
    assert not [name for name in names if name.endswith(".tmp") or name == "claim.json"]


def assert_stopped(ended, reason):
    assert ended.code == 1, ended.stderr
    assert re.fullmatch(rf"error: training stopped \({reason}\); rerun .*", ended.last_line), (
        ended.stderr
    )


@pytest.mark.parametrize(
    "faults",
    [
        ["kill@build", "kill@epoch2", "kill@upload4"],
        ["exit@epoch1", "leave@epoch3", "kill@upload6"],
    ],
)
def test_workers_that_are_gone_are_replaced(runs, undisturbed, tmp_path, faults):
    runs.inject(*faults)
    ended = run(runs.command(tmp_path / "run"), SECONDS)
    assert ended.code == 0, ended.stderr
    assert not list(runs.faults.iterdir())
    assert_same(tmp_path / "run", undisturbed)


def test_a_worker_that_dies_at_start_up_is_replaced(runs, undisturbed, tmp_path):
    with Job(runs.command(tmp_path / "run")) as job:
        worker = job.until(lambda: job.family.named("RayTrainWorker"), "a worker")[0]
        worker.kill()
        ended = job.wait(SECONDS)
    assert ended.code == 0, ended.stderr
    assert_same(tmp_path / "run", undisturbed)


def test_workers_that_always_die_end_the_run_and_the_next_continues(runs, undisturbed, tmp_path):
    runs.inject(*[f"kill@epoch3-{n}" for n in range(4)])
    ended = run(runs.command(tmp_path / "run"), SECONDS)
    assert_stopped(ended, "a worker process died")
    assert not list(runs.faults.iterdir())
    ended = run(runs.command(tmp_path / "run"), SECONDS)
    assert ended.code == 0, ended.stderr
    assert "epoch 1 of 6" not in ended.stderr
    assert "epoch 3 of 6" in ended.stderr
    assert_same(tmp_path / "run", undisturbed)


def test_a_worker_that_is_stopped_is_replaced(runs, tmp_path):
    runs.inject("stop@epoch2")
    patience = {"RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "5"}  # 600 s by default
    ended = run(runs.command(tmp_path / "run", environment=patience, workers=2), SECONDS)
    assert ended.code == 0, ended.stderr
    assert len(read_history(tmp_path / "run")) == 6


def test_a_worker_that_hangs_ends_the_run_and_the_next_continues(runs, undisturbed, tmp_path):
    runs.inject("hang@epoch3")
    ended = run(runs.command(tmp_path / "run", environment={"SILENCE_SECONDS": "40"}), SECONDS)
    assert_stopped(ended, r"no worker has given a sign of life for \d+ s")
    ended = run(runs.command(tmp_path / "run"), SECONDS)
    assert ended.code == 0, ended.stderr
    assert_same(tmp_path / "run", undisturbed)


@pytest.mark.parametrize(
    ("stop", "reason"),
    [
        (signal.SIGKILL, "Ray Train's controller died"),
        (signal.SIGSTOP, r"no worker has given a sign of life for \d+ s"),
    ],
)
def test_a_controller_that_fails_ends_the_run(runs, undisturbed, tmp_path, stop, reason):
    slow = runs.command(tmp_path / "run", polls=3, environment={"SILENCE_SECONDS": "40"})
    with Job(slow) as job:
        job.until(lambda: "epoch 1 of 6" in job.stderr(), "an epoch", SECONDS)
        job.family.named("TrainController")[-1].send_signal(stop)
        ended = job.wait(SECONDS)
    assert_stopped(ended, reason)
    ended = run(runs.command(tmp_path / "run"), SECONDS)
    assert ended.code == 0, ended.stderr
    assert_same(tmp_path / "run", undisturbed)


def test_a_driver_that_is_killed_is_continued_at_once(runs, undisturbed, tmp_path):
    with Job(runs.command(tmp_path / "run", polls=3)) as job:
        job.until(lambda: "epoch 1 of 6" in job.stderr(), "an epoch", SECONDS)
        job.kill()
        assert not job.family.left_after(90)
    assert (tmp_path / "run" / "claim.json").exists()
    ended = run(runs.command(tmp_path / "run"), SECONDS)
    assert ended.code == 0, ended.stderr
    assert "epoch 1 of 6" not in ended.stderr
    assert_same(tmp_path / "run", undisturbed)


def test_a_second_run_in_the_folder_is_refused(runs, undisturbed, tmp_path):
    runs.inject("hang@epoch3")
    with Job(runs.command(tmp_path / "run")) as first:
        first.until(lambda: not list(runs.faults.iterdir()), "the fault", SECONDS)
        second = run(runs.command(tmp_path / "run"), SECONDS)
        first.kill()
    assert second.code == 2, second.stderr
    assert re.fullmatch(r"error: --output .*another run is writing there.*", second.last_line)
    ended = run(runs.command(tmp_path / "run"), SECONDS)
    assert ended.code == 0, ended.stderr
    assert_same(tmp_path / "run", undisturbed)


def test_a_bug_in_one_of_two_workers_is_not_retried(runs, tmp_path):
    runs.inject("bug@epoch2-1", "bug@epoch2-2", "bug@epoch2-3")
    ended = run(runs.command(tmp_path / "run", workers=2), SECONDS)
    assert ended.code == 1
    assert "error: a bug stopped training:\nTraceback" in ended.stderr
    assert "IndexError: made by the test" in ended.stderr
    assert list(runs.faults.iterdir())
    for fault in runs.faults.iterdir():
        fault.unlink()
    assert run(runs.command(tmp_path / "run", workers=2), SECONDS).code == 0


# ---- the output ----------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path):
    """A file system of eight MiB."""
    if os.geteuid():
        pytest.skip("only root may mount a small file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk):
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return filler


def test_a_full_disk_ends_the_run_and_room_lets_it_continue(runs, undisturbed, disk):
    with Job(runs.command(disk / "run", polls=3)) as job:
        job.until(lambda: "epoch 1 of 6" in job.stderr(), "an epoch", SECONDS)
        filler = fill(disk)
        started = time.monotonic()
        ended = job.wait(SECONDS)
    assert_stopped(ended, ".*No space left on device.*")
    assert time.monotonic() - started < 120
    filler.unlink()
    ended = run(runs.command(disk / "run"), SECONDS)
    assert ended.code == 0, ended.stderr
    assert "epoch 1 of 6" not in ended.stderr
    assert_same(disk / "run", undisturbed)


def test_a_read_only_disk_is_refused_before_training(runs, disk):
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    ended = run(runs.command(disk / "run"), SECONDS)
    assert ended.code == 2, ended.stderr
    assert re.fullmatch(r"error: --output .*", ended.last_line)


# ---- the bucket ----------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path):
    """A real S3 server that can be killed and started again with its data, on the same ports."""
    server = Server(tmp_path / "seaweed")
    yield server
    server.stop()


class Server:
    def __init__(self, home):
        self.home, self.port, self.process = home, seaweed.free_block(), None
        self.url = f"http://{seaweed.HOST}:{self.port}"
        home.mkdir()
        self.start()
        self.fs = s3fs.S3FileSystem(
            key=seaweed.ACCESS_KEY, secret=seaweed.SECRET_KEY, endpoint_url=self.url
        )
        self.fs.mkdir("runs")

    def start(self):
        self.process = seaweed._start(self.home, self.port)
        assert seaweed._becomes_ready(self.process, self.url)

    def stop(self):
        self.process.kill()
        self.process.wait()

    def history(self, name):
        with self.fs.open(f"runs/{name}/history.csv") as file:
            return pd.read_csv(file, float_precision="round_trip").drop(columns="seconds")


def test_a_bucket_that_is_away_for_half_a_minute_is_waited_for(runs, undisturbed, server):
    command = runs.command("s3://runs/run", polls=3, environment=seaweed.environment(server.url))
    with Job(command) as job:
        job.until(lambda: "epoch 1 of 6" in job.stderr(), "an epoch", SECONDS)
        server.stop()
        time.sleep(30)
        server.start()
        ended = job.wait(SECONDS)
    assert ended.code == 0, ended.stderr
    pd.testing.assert_frame_equal(server.history("run"), read_history(undisturbed))


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGSTOP])
def test_a_bucket_that_stays_away_ends_the_run(runs, undisturbed, server, stop):
    environment = seaweed.environment(server.url)
    impatient = environment | {"RETRY_SECONDS": "60"}  # 600 s by default
    with Job(runs.command("s3://runs/run", polls=3, environment=impatient)) as job:
        job.until(lambda: "epoch 1 of 6" in job.stderr(), "an epoch", SECONDS)
        server.process.send_signal(stop)
        started = time.monotonic()
        ended = job.wait(SECONDS)
    assert_stopped(ended, ".+")
    assert time.monotonic() - started < 300
    server.stop()
    server.start()
    ended = run(runs.command("s3://runs/run", environment=environment), SECONDS)
    assert ended.code == 0, ended.stderr
    assert "epoch 1 of 6" not in ended.stderr
    pd.testing.assert_frame_equal(server.history("run"), read_history(undisturbed))


# ---- two nodes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("replaced", [True, False])
def test_a_node_that_is_lost(runs, tmp_path, replaced):
    """With another node, the run continues; without, it ends with a clear error."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    environment = {
        "RAY_ADDRESS": cluster.address,
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "10",  # 60 s by default, ten times
    }
    try:
        node = cluster.add_node(num_cpus=1)
        command = runs.command(tmp_path / "run", polls=3, environment=environment, workers=2)
        with Job(command) as job:
            job.until(lambda: "epoch 1 of 6" in job.stderr(), "an epoch", SECONDS)
            cluster.remove_node(node, allow_graceful=False)
            if replaced:
                cluster.add_node(num_cpus=1)
            ended = job.wait(SECONDS)
    finally:
        cluster.shutdown()
    if replaced:
        assert ended.code == 0, ended.stderr
        assert len(read_history(tmp_path / "run")) == 6
    else:
        assert_stopped(ended, "the CPUs or GPUs for the workers did not become free")
    assert not (tmp_path / "run" / "claim.json").exists()


# ---- the corpus ----------------------------------------------------------------------------------


def test_a_recording_that_crashes_the_decoder_is_left_out(runs, corpus, tmp_path):
    folder = tmp_path / "corpus"
    shutil.copytree(corpus, folder)
    write_audio(folder / "0.wav", speech_like(1.0), rate=CRASH)
    command = Runs(folder, runs.faults).command(tmp_path / "run", epochs=1)
    ended = run(command, SECONDS)
    assert ended.code == 0, ended.stderr
    assert re.search(r"skipped .*2 of 15 recordings .*0\.wav: the decoder crashed", ended.stderr)
