"""Training on Ray Train: what each worker does, and how the driver follows it; it knows no corpus.

Workers report a checkpoint after each epoch. Ray Train stores it in the output folder, restarts
workers that die from the latest one, and hands it to the next run of the same command.
"""

import contextlib
import io
import os
import traceback
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
from ser_core.models.classifier import resolve_precision
from ser_core.settings import Precision
from ser_core.storage.folder import storage_errors
from ser_core.training.dataset import Dataset
from ser_core.training.initialization import InitialModel
from ser_core.training.progress import EpochDisplay
from ser_core.training.run_folder import (
    BEST,
    CHECKPOINTS,
    LAST,
    History,
    TrainingOutput,
    best_epoch,
)
from ser_core.training.trainer import Recipe, Trainer, train_and_validate

_POLL_SECONDS = 5.0  # between two reads of the history by the driver: each is a request
_MAX_WORKER_FAILURES = 3  # over a whole run; more failures mean a persistent cause
_MAX_START_FAILURES = 10  # Ray Train waits a minute each time for the workers' CPUs or GPUs
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "memoryerror")  # in lower case
_TRANSIENT = (RunError, OSError, RayError)  # what another try may not meet again
_BUG = "a bug stopped training"
_WEIGHTS, _STATE = "model.safetensors", "training_state.pt"


@dataclass(frozen=True)
class TrainingTask:
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


# ---- in the workers ------------------------------------------------------------------------------


def _work(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of ``Outcome``; or ``bug``, a traceback, after a failure that would repeat itself.

    Ray Train restarts the workers after any exception. A bug would only fail again, so a single
    worker returns it. One of several raises it: the others wait for it in a collective operation.
    """
    try:
        return _train(ray.get(config["task"]))
    except Exception as error:
        text = traceback.format_exc()
        alone = ray.train.get_context().get_world_size() == 1
        transient = isinstance(error, _TRANSIENT) or _is_out_of_memory(text) or "CUDA error" in text
        if transient or not alone:
            raise
        return {"bug": text}


def _is_out_of_memory(text: str) -> bool:
    return any(sign in text.lower() for sign in _OUT_OF_MEMORY)


def _train(task: TrainingTask) -> dict[str, Any]:
    """Trains from the latest checkpoint to the last epoch, then predicts with best and last."""
    device = ray.train.torch.get_device()
    precision = _resolve(cast(Precision, task.recipe.precision), device)
    trainer = Trainer(task.initial, replace(task.recipe, precision=precision), device, _prepare)
    history: History = []
    if latest := ray.train.get_checkpoint():
        state = torch.load(io.BytesIO(_read(latest, _STATE)), "cpu", weights_only=True)
        trainer.restore(safetensors.torch.load(_read(latest, _WEIGHTS)), state["trainer"])
        history = state["history"]
    while trainer.epochs < task.epochs:
        history.append(train_and_validate(trainer, task.datasets))
        _report(trainer, history, task.initial)
    logits = {LAST: _predict(trainer, task.datasets)}
    reported = ray.train.get_all_reported_checkpoints()
    best = max(reported, key=lambda item: item.metrics["best"]).checkpoint
    trainer.network.load_state_dict(safetensors.torch.load(_read(best, _WEIGHTS)))
    logits[BEST] = _predict(trainer, task.datasets)
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


def _report(trainer: Trainer, history: History, initial: InitialModel) -> None:
    """Reports the last epoch with its checkpoint, of which the first worker writes the files."""
    epoch = trainer.epochs
    # What Ray Train keeps the best checkpoint by: the last epoch that was the best so far.
    best = epoch if best_epoch(history) is history[-1] else 0
    metrics = {"history": list(history), "best": best}
    if ray.train.get_context().get_world_rank() > 0:
        with storage_errors("a checkpoint could not be written"):
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
        with storage_errors("a checkpoint could not be written"):
            ray.train.report(metrics, checkpoint, checkpoint_dir_name=f"epoch-{epoch}")


def _predict(trainer: Trainer, datasets: Mapping[str, Dataset]) -> dict[str, np.ndarray]:
    return {name: trainer.predict(datasets[name].waveforms) for name in ("validation", "test")}


def _read(checkpoint: Checkpoint, name: str) -> bytes:
    with (
        storage_errors("a checkpoint could not be read"),
        checkpoint.filesystem.open_input_stream(f"{checkpoint.path}/{name}") as stream,
    ):
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


def run_workers(task: TrainingTask, scaling: ScalingConfig) -> Outcome:
    """Runs the workers and shows their progress; writes the weights of ``best`` and ``last``.

    Args:
        task: what they do.
        scaling: how many there are and what each gets, from ``scale``.

    Raises:
        RunError: training stopped before the end.
    """
    output = TrainingOutput(task.output)
    filesystem, path = output.storage()
    trainer = ray.train.torch.TorchTrainer(
        _work,
        train_loop_config={"task": ray.put(task)},
        scaling_config=scaling,
        run_config=RunConfig(
            name=CHECKPOINTS,
            storage_path=path,
            storage_filesystem=filesystem,
            checkpoint_config=CheckpointConfig(num_to_keep=1, checkpoint_score_attribute="best"),
            failure_config=FailureConfig(
                max_failures=_MAX_WORKER_FAILURES, controller_failure_limit=_MAX_START_FAILURES
            ),
            callbacks=[_WriteHistory(task.output)],
        ),
    )
    result = _fit(trainer, output, task.epochs)
    if bug := result.return_value.get("bug"):
        raise RunError(f"{_BUG}:\n{bug.strip()}")
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
    """Why training stopped, and what to do: one line, and a bug's traceback."""
    message = str(error)
    if _is_out_of_memory(message) or "low on memory" in message:
        return "out of memory; rerun with --accumulate 4 to continue with smaller passes"
    if "Unable to set up cluster storage" in message:  # a RuntimeError like any other, in Ray Train
        problem = "not every node can write there"
        return f"--output {output}: {problem}; give a bucket, or a folder that all nodes share"
    failures = list(getattr(error, "worker_failures", {}).values())
    dead = any(isinstance(failure, RayActorError) for failure in failures)
    text = str(failures[0] if failures else error).strip()
    last_line = text.splitlines()[-1].strip().removeprefix("ser_core.errors.RunError: ")
    if isinstance(error, RayActorError) and "creation task" not in message:
        reason = "Ray Train's controller died"
    elif dead:
        reason = "a worker process died"
    elif "Traceback (most recent call last)" in text and "ser_core.errors.RunError: " not in text:
        return f"{_BUG}:\n{text}"
    else:
        reason = last_line
    remedy = "rerun the same command to continue after the last finished epoch"
    return f"training stopped ({reason}); {remedy}"


def scale(workers: int | None) -> ScalingConfig:
    """A worker for each GPU of the cluster; without GPUs, one with all cores of a node.

    Args:
        workers: how many, instead of that.

    Raises:
        UsageError: the cluster has too few GPUs or CPUs.
    """
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
