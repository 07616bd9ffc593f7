"""jobs.train with Ray: killed at every level and continued, on one worker, two, and two nodes."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import ray
from ray.cluster_utils import Cluster
from training_runs import SPLITS, flags, load_weights, read_history, short_run, write_corpus

from ser_core.errors import CheckpointError, CorpusError, OutputError, RunError, UsageError
from ser_core.labeling.config import LabelConfig
from ser_core.labeling.job import label_corpus
from ser_core.models.checkpoint import load_checkpoint
from ser_core.reporting import libraries
from ser_core.training import driver, job
from ser_core.training.dataset import split_datasets
from ser_core.training.job import train
from ser_core.training.run_folder import TrainingOutput
from tests.log_lines import messages

TIMEOUT = 200  # s, for what takes 15 s on two idle cores


@pytest.fixture(scope="module", autouse=True)
def frequent_polls():
    """Ray Train looks at its workers every 2 s by default, and takes one report each time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
        yield


pytestmark = pytest.mark.usefixtures("ray_of_two_cores")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def make_config(corpus):
    return partial(short_run, corpus)


@pytest.fixture(scope="module")
def undisturbed(make_config, tmp_path_factory):
    """A run that nothing interrupts: its config and its result."""
    config = make_config(tmp_path_factory.mktemp("runs") / "run", calibrate=True)
    return config, train(config)


@pytest.fixture(scope="module")
def single_worker(make_config, tmp_path_factory):
    """A run without dropout, LayerDrop and SpecAugment, which differ by worker."""
    return train(make_config(tmp_path_factory.mktemp("single") / "run", "deterministic.json"))


def command_of(config):
    settings = [f"--{name.replace('_', '-')}={value}" for name, value in flags(config).items()]
    return [sys.executable, "-m", "jobs.train", *settings]


def without_seconds(history):
    return history.drop(columns="seconds")


def assert_like_single_worker(folder, expected):
    """Equal but for rounding.

    AdamW divides a gradient by its own size: where it is 0 but for rounding, as for the biases of
    the keys, a weight moves as far as any other. A gradient summed wrongly moves all of them.
    """
    weights, expected_weights = load_weights(f"{folder}/last"), load_weights(expected.last)
    differences = np.concatenate(
        [np.abs(expected_weights[name] - array).ravel() for name, array in weights.items()]
    )
    assert (differences > 1e-5).mean() < 0.01
    pd.testing.assert_frame_equal(
        read_history(folder), without_seconds(expected.history), rtol=0, atol=1e-4
    )


def processes_below(pid, name):
    """The pids of Ray's processes of that name below another; others may run Ray here, too."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has ended
            if name in " ".join(process.cmdline()):
                found.append(process.pid)
    return sorted(found)


def start(config, polls_s):
    """Starts the command with a Ray of its own, in a process group of its own."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = polls_s
    return subprocess.Popen(
        command_of(config),
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )


def test_a_run_killed_at_every_level_continues_in_a_bucket(undisturbed, bucket):
    config, expected = undisturbed
    config = config.model_copy(update={"output": f"{bucket}/run"})
    first = start(config, polls_s="6")  # an epoch every 6 s, which is time to kill it
    assert any("epoch 1 of 6" in line for line in first.stderr)
    os.kill(processes_below(first.pid, "ray::TrainController")[-1], signal.SIGKILL)
    error = messages(first.communicate(timeout=TIMEOUT)[1])[-1]
    assert re.fullmatch(r"error: training stopped \(.* controller died\); rerun .*", error)
    assert first.returncode == 1

    second = start(config, polls_s="6")
    assert any(" epoch " in line for line in second.stderr)
    os.killpg(second.pid, signal.SIGKILL)
    second.communicate()
    assert 2 <= len(pd.read_csv(f"{config.output}/history.csv")) < 6

    third = start(config, polls_s="0.2")
    assert "epoch 2 of 6" not in third.communicate(timeout=TIMEOUT)[1]
    assert third.returncode == 0
    pd.testing.assert_frame_equal(
        read_history(config.output), without_seconds(expected.history), check_exact=True
    )
    for name, folder in (("best", expected.best), ("last", expected.last)):
        expected_weights = load_weights(folder)
        for key, array in load_checkpoint(f"{config.output}/{name}").weights.items():
            np.testing.assert_array_equal(array, expected_weights[key])
    folder = TrainingOutput(config.output).folder
    files = folder.fs.find(f"{folder.root}/checkpoints")
    assert len([path for path in files if path.endswith("/training_state.pt")]) <= 2


def test_a_killed_worker_is_replaced_and_two_workers_equal_one(
    make_config, single_worker, tmp_path, monkeypatch
):
    """Seven recordings in batches of three: one worker has none of the last batch."""
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "2")  # an epoch: time to kill a worker
    changes = {"workers": 2, "accumulate": 2}
    config = make_config(tmp_path / "run", "deterministic.json", **changes)
    future = ThreadPoolExecutor(1).submit(train, config)
    deadline = time.monotonic() + TIMEOUT
    while not (tmp_path / "run" / "history.csv").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(processes_below(os.getpid(), "ray::RayTrainWorker")[-1], signal.SIGKILL)
    future.result(TIMEOUT)
    assert_like_single_worker(config.output, single_worker)
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").glob("epoch-*"))
    assert len(kept) <= 2
    assert "epoch-6" in kept


def test_two_nodes_equal_one(make_config, single_worker, tmp_path):
    config = make_config(tmp_path / "run", "deterministic.json", workers=2)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        environment = {**os.environ, "RAY_ADDRESS": cluster.address}
        subprocess.run(command_of(config), env=environment, check=True, timeout=TIMEOUT)
    finally:
        cluster.shutdown()
    assert_like_single_worker(config.output, single_worker)


def test_more_workers_than_cores_are_refused(make_config, tmp_path):
    with pytest.raises(UsageError, match="--workers 3: the cluster has 2 CPUs"):
        train(make_config(tmp_path / "run", workers=3))
    assert not (tmp_path / "run").exists()


def test_no_cluster_is_an_error_before_the_corpus_is_read(make_config, tmp_path, monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setattr(job, "read_corpus", None)  # a call would raise TypeError
    with pytest.raises(UsageError, match=r"RAY_ADDRESS 127\.0\.0\.1:1: no Ray cluster answers"):
        train(make_config(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_model_and_output_are_checked_before_decoding(make_config, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "load_waveforms", None)  # a call would raise TypeError
    with pytest.raises(CheckpointError, match=r"--model .*/missing\.json"):
        train(make_config(tmp_path / "run", "missing.json"))
    assert not (tmp_path / "run").exists()
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"--output .*/file: cannot be used"):
        train(make_config(tmp_path / "file"))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bug_stops_the_run_with_its_traceback_and_is_not_retried(
    make_config, tmp_path, monkeypatch, workers
):
    """A class index beyond the network's classes raises in the workers' loss."""

    def wrong_truth(*args):
        datasets = split_datasets(*args)
        train_set = datasets["train"]
        return datasets | {"train": replace(train_set, truth=train_set.truth + 7)}

    config = make_config(tmp_path / "run", epochs=1, workers=workers)
    with monkeypatch.context() as patch:
        patch.setattr(job, "split_datasets", wrong_truth)
        patch.setattr(driver, "_MAX_WORKER_FAILURES", 1000)  # retries would reach the time limit
        with pytest.raises(RunError, match=r"^a bug stopped training:\nTraceback") as caught:
            train(config)
    assert "in train_epoch" in str(caught.value)
    assert "IndexError: Target" in str(caught.value)
    assert len(train(config).history) == 1  # once the bug is fixed, the same command runs


def test_jobs_label_takes_a_trained_checkpoint(undisturbed, tmp_path):
    config, result = undisturbed
    manifest = f"{config.output}/split.csv"
    label_corpus(
        LabelConfig(input=manifest, output=str(tmp_path), model=result.best, precision="fp32")
    )
    rows = pd.read_parquet(tmp_path)
    test = rows[rows["split"] == "test"]
    accuracy = (test["label"].astype(str) == test["truth"]).mean()
    assert accuracy == result.metrics["best"]["test"]["accuracy"]


def test_a_checkpoint_describes_itself(undisturbed):
    config, result = undisturbed
    settings = json.loads(Path(result.best, "config.json").read_bytes())
    assert settings["id2label"] == {"0": "angry", "1": "sad"}
    assert settings["label2id"] == {"angry": 0, "sad": 1}
    assert settings["num_class"] == 2
    assert settings["classifier_dropout"] == 0.1
    assert settings["temperature"] > 0
    card = Path(result.best, "README.md").read_text()
    split = pd.read_csv(f"{config.output}/split.csv")
    assert len(split) == len(SPLITS)
    assert "broken.wav" not in set(split["path"].str.rsplit("/").str[-1])
    for fact in ("seed 34", "speakers: 3", "AdamW", f"{result.metrics['best']['test']['uar']:.3f}"):
        assert fact in card
    for picture in ("accuracy.png", "loss.png"):
        assert Path(result.best, picture).read_bytes()[:4] == b"\x89PNG"
    best = result.history.sort_values(["validation_uar", "validation_loss"]).iloc[-1]
    assert result.metrics["best"]["validation"]["uar"] >= best["validation_uar"]


@pytest.mark.parametrize(
    "changes", [{"learning_rate": 2e-3}, {"seed": 35}, {"batch_size": 4}, {"precision": "bf16"}]
)
def test_another_run_in_the_same_folder_is_refused(undisturbed, changes):
    config, _ = undisturbed
    with pytest.raises(OutputError, match=rf"--output .*a different {next(iter(changes))};"):
        train(config.model_copy(update=changes))


def test_a_split_without_validation_is_refused(make_config, corpus, tmp_path):
    table = pd.read_csv(corpus / "manifest.csv")
    data = corpus / "without_validation.csv"
    table[table["split"] != "validation"].to_csv(data, index=False)
    with pytest.raises(CorpusError, match="`validation`"):
        train(make_config(tmp_path / "run").model_copy(update={"data": str(data)}))
    assert not (tmp_path / "run").exists()


def test_missing_libraries_are_an_error_before_training(make_config, tmp_path, monkeypatch):
    monkeypatch.setattr(libraries.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"pip install 'ser-batch\[train\]'"):
        train(make_config(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
