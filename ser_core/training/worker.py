"""Training on Ray Train: what each worker does, and how the driver follows it; it knows no corpus.

Workers report a checkpoint after each epoch. Ray Train stores it in the output folder, restarts
workers that die from the latest one, and hands it to the next run of the same command.
"""

import contextlib
import io
import os
import time
from collections.abc import Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any, NamedTuple, cast

import numpy as np
import ray
import ray.train.torch
import safetensors.torch
import torch
from ray.exceptions import RayActorError, RayError
from ray.train import (
    Checkpoint,
    CheckpointConfig,
    FailureConfig,
    Result,
    RunConfig,
    ScalingConfig,
    TrainingFailedError,
    UserCallback,
)

from ser_core.errors import RunError, UsageError
from ser_core.evaluation.metrics import accuracy, at_temperature, cross_entropy, uar
from ser_core.models.classifier import resolve_precision
from ser_core.settings import Precision
from ser_core.training.dataset import Dataset
from ser_core.training.initialization import InitialModel
from ser_core.training.progress import EpochDisplay
from ser_core.training.run_folder import BEST, CHECKPOINTS, LAST, History, TrainingOutput
from ser_core.training.trainer import Recipe, Trainer

_POLL_SECONDS = 1.0  # between two looks of the driver at the history
_MAX_WORKER_FAILURES = 3  # over a whole run; what fails more often has a reason
_MAX_START_FAILURES = 10  # Ray Train waits a minute each time for the workers' CPUs or GPUs
_WEIGHTS, _STATE = "model.safetensors", "training_state.pt"


@dataclass(frozen=True)
class Job:
    """What the workers share, through Ray's object store."""

    output: str
    epochs: int
    recipe: Recipe  # its precision as the user gave it
    initial: InitialModel
    datasets: Mapping[str, Dataset]


class Outcome(NamedTuple):
    """The end of a run.

    Attributes:
        history: a row per epoch.
        logits: by checkpoint (``best``, ``last``), then by split.
        device: what the workers computed on.
    """

    history: History
    logits: Mapping[str, Mapping[str, np.ndarray]]
    device: str


def best_epoch(history: History) -> dict[str, float]:
    """The epoch with the highest UAR on validation, and of these the one with the lowest loss."""
    return max(history, key=lambda row: (row["validation_uar"], -row["validation_loss"]))


# ---- in the workers ------------------------------------------------------------------------------


def _work(config: Mapping[str, Any]) -> dict[str, Any]:
    """Trains from the latest checkpoint to the last epoch, then predicts with best and last."""
    job: Job = ray.get(config["job"])
    device = ray.train.torch.get_device()
    precision = _resolve(cast(Precision, job.recipe.precision), device)
    trainer = Trainer(job.initial, replace(job.recipe, precision=precision), device, _prepare)
    history: History = []
    if latest := ray.train.get_checkpoint():
        state = torch.load(io.BytesIO(_read(latest, _STATE)), "cpu", weights_only=True)
        trainer.restore(safetensors.torch.load(_read(latest, _WEIGHTS)), state["trainer"])
        history = state["history"]
    while trainer.epochs < job.epochs:
        history.append(_train_epoch(trainer, job.datasets))
        _report(trainer, history, job.initial)
    logits = {LAST: _predict(trainer, job.datasets)}
    reported = ray.train.get_all_reported_checkpoints()
    best = max(reported, key=lambda item: item.metrics["best"]).checkpoint
    trainer.network.load_state_dict(safetensors.torch.load(_read(best, _WEIGHTS)))
    logits[BEST] = _predict(trainer, job.datasets)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    workers = ray.train.get_context().get_world_size()
    return {"history": history, "logits": logits, "device": f"{workers} × {name}, {precision}"}


def _resolve(precision: Precision, device: torch.device) -> str:
    if precision == "auto" and device.type == "cpu":
        return "fp32"
    return resolve_precision(precision, device)


def _prepare(network: torch.nn.Module) -> torch.nn.Module:
    # LayerDrop and SpecAugment leave different parameters unused in each process.
    options = {"find_unused_parameters": True}
    prepared = ray.train.torch.prepare_model(network, parallel_strategy_kwargs=options)
    return cast(torch.nn.Module, prepared)


def _train_epoch(trainer: Trainer, datasets: Mapping[str, Dataset]) -> dict[str, float]:
    """Trains for an epoch; its row of ``history.csv``."""
    started, rate = time.monotonic(), trainer.learning_rate
    loss, correct = trainer.train_epoch(datasets["train"])
    validation = datasets["validation"]
    logits = trainer.predict(validation.waveforms)
    prediction = logits.argmax(axis=1)
    return {
        "epoch": trainer.epochs,
        "learning_rate": rate,
        "loss": loss,
        "accuracy": correct,
        "validation_loss": cross_entropy(at_temperature(logits, 1.0), validation.truth),
        "validation_accuracy": accuracy(validation.truth, prediction),
        "validation_uar": uar(validation.truth, prediction),
        "seconds": time.monotonic() - started,
    }


def _report(trainer: Trainer, history: History, initial: InitialModel) -> None:
    """Reports the last epoch with its checkpoint, of which the first worker writes the files."""
    epoch = trainer.epochs
    # What Ray Train keeps the best checkpoint by: the last epoch that was the best so far.
    best = epoch if best_epoch(history) is history[-1] else 0
    metrics = {"history": list(history), "best": best}
    if ray.train.get_context().get_world_rank() > 0:
        ray.train.report(metrics)
        return
    with TemporaryDirectory() as folder:
        safetensors.torch.save_file(
            trainer.weights(), os.path.join(folder, _WEIGHTS), metadata={"format": "pt"}
        )
        state = {"trainer": trainer.state(), "history": history}
        torch.save(state, os.path.join(folder, _STATE))
        for name, content in initial.files().items():
            Path(folder, name).write_bytes(content)
        checkpoint = Checkpoint.from_directory(folder)
        ray.train.report(metrics, checkpoint, checkpoint_dir_name=f"epoch-{epoch}")


def _predict(trainer: Trainer, datasets: Mapping[str, Dataset]) -> dict[str, np.ndarray]:
    return {name: trainer.predict(datasets[name].waveforms) for name in ("validation", "test")}


def _read(checkpoint: Checkpoint, name: str) -> bytes:
    with checkpoint.filesystem.open_input_stream(f"{checkpoint.path}/{name}") as stream:
        content: bytes = stream.read()
    return content


# ---- in Ray Train's controller -------------------------------------------------------------------


class _WriteHistory(UserCallback):  # type: ignore[misc]
    """Writes ``history.csv`` once an epoch's checkpoint is in the output folder."""

    def __init__(self, output: str) -> None:
        self._output = output

    def after_report(
        self,
        run_context: object,  # noqa: ARG002 (Ray Train passes all three by name)
        metrics: list[dict[str, Any]],
        checkpoint: Checkpoint | None,  # noqa: ARG002
    ) -> None:
        TrainingOutput(self._output).write_history(metrics[0]["history"])


# ---- in the driver -------------------------------------------------------------------------------


def run(job: Job, workers: int | None) -> Outcome:
    """Runs the workers and shows their progress; writes the weights of ``best`` and ``last``.

    Args:
        job: what they do.
        workers: how many; None is one for each GPU of the cluster, or one on CPUs.

    Raises:
        UsageError: the cluster has too few GPUs or CPUs.
        RunError: training stopped before the end.
    """
    output = TrainingOutput(job.output)
    filesystem, path = output.storage()
    trainer = ray.train.torch.TorchTrainer(
        _work,
        train_loop_config={"job": ray.put(job)},
        scaling_config=_scaling(workers),
        run_config=RunConfig(
            name=CHECKPOINTS,
            storage_path=path,
            storage_filesystem=filesystem,
            checkpoint_config=CheckpointConfig(num_to_keep=1, checkpoint_score_attribute="best"),
            failure_config=FailureConfig(
                max_failures=_MAX_WORKER_FAILURES, controller_failure_limit=_MAX_START_FAILURES
            ),
            callbacks=[_WriteHistory(job.output)],
        ),
    )
    result = _fit(trainer, output, job.epochs)
    best = max(result.best_checkpoints, key=lambda item: item[1]["best"])[0]
    for name, checkpoint in ((BEST, best), (LAST, result.checkpoint)):
        output.folder.write(f"{name}/{_WEIGHTS}", _read(checkpoint, _WEIGHTS))
    outcome = Outcome(**result.return_value)
    output.write_history(outcome.history)
    return outcome


def _fit(trainer: ray.train.torch.TorchTrainer, output: TrainingOutput, epochs: int) -> Result:
    """Waits for the workers and shows each epoch as soon as ``history.csv`` has it."""
    future: Future[Result] = Future()

    def fit() -> None:
        try:
            future.set_result(trainer.fit())
        except BaseException as error:  # whatever it is, the driver must not wait for ever
            future.set_exception(error)

    with EpochDisplay(epochs, output.history()) as display:
        # In the main thread, Ray Train would handle Ctrl-C and exit with 0.
        Thread(target=fit, daemon=True).start()
        done = False
        while not done:
            done = bool(wait([future], _POLL_SECONDS).done)
            with contextlib.suppress(Exception):  # storage may fail now and answer next time
                display.show(output.history())
    try:
        return future.result()
    except (TrainingFailedError, RayError) as error:
        raise RunError(_explain(error, output.folder.uri)) from error


def _explain(error: Exception, output: str) -> str:
    """One line: why training stopped, and what to do."""
    message = str(error)
    if "out of memory" in message.lower() or "low on memory" in message:
        return "out of memory; rerun with --accumulate 4 to continue with smaller passes"
    if "Unable to set up cluster storage" in message:  # a RuntimeError like any other, in Ray Train
        problem = "not every node can write there"
        return f"--output {output}: {problem}; give a bucket, or a folder that all nodes share"
    failures = list(getattr(error, "worker_failures", {}).values())
    dead = any(isinstance(failure, RayActorError) for failure in failures)
    if isinstance(error, RayActorError) and "creation task" not in message:
        reason = "Ray Train's controller died"
    elif dead:
        reason = "a worker process died"
    else:
        reason = str(failures[0] if failures else error).strip().splitlines()[-1].strip()
    remedy = "rerun the same command to continue after the last finished epoch"
    return f"training stopped ({reason}); {remedy}"


def _scaling(workers: int | None) -> ScalingConfig:
    """A worker for each GPU of the cluster; without GPUs, one with all cores of a node."""
    resources = ray.cluster_resources()
    gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
    if workers and workers > (gpus or cpus):
        available = f"{gpus} GPUs" if gpus else f"{cpus} CPUs"
        raise UsageError(f"--workers {workers}: the cluster has {available}")
    if gpus:
        return ScalingConfig(num_workers=workers or gpus, use_gpu=True)
    workers = workers or 1
    cores = max(int(node["Resources"].get("CPU", 1)) for node in ray.nodes() if node["Alive"])
    share = {"CPU": max(1, cores // workers)}  # Ray gives a process as many threads
    return ScalingConfig(num_workers=workers, resources_per_worker=share)
