"""What each worker of Ray Train does: it trains on a dataset, and reports a checkpoint each epoch.

It raises RunError where another try would fail, too; Ray Train restarts it after anything else.
"""

import contextlib
import io
import math
import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, cast

import numpy as np
import ray
import ray.train.torch
import safetensors.torch
import torch
import torch.distributed as dist
from ray.exceptions import ActorDiedError, GetTimeoutError, RayError
from ray.train import Checkpoint

from ser_core.errors import RunError
from ser_core.models.classifier import resolve_precision
from ser_core.settings import Precision
from ser_core.storage.folder import storage_errors
from ser_core.training.checkpoint_storage import read_file
from ser_core.training.dataset import Dataset
from ser_core.training.initialization import InitialModel
from ser_core.training.run_folder import BEST, LAST, History, best_epoch
from ser_core.training.trainer import Recipe, Trainer, train_and_validate

WEIGHTS = "model.safetensors"
BUG = "a bug stopped training"
_STATE = "training_state.pt"
_HEARTBEAT_SECONDS = 5.0
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "memoryerror")  # in lower case
# What a worker meets whose device fails, or whose peer is gone.
_TRANSIENT = (*_OUT_OF_MEMORY, "cuda error", "gloo", "nccl")


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


def work(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of ``Outcome``.

    Args:
        config: ``task``, a reference to a ``TrainingTask``, and ``heartbeats``, an actor.

    Raises:
        RunError: another try would fail, too: a bug, or storage that was retried for minutes.
        RuntimeError: another try may succeed.
    """
    beat = _heartbeat(config["heartbeats"])
    try:
        beat()
        return _train(ray.get(config["task"]), beat)
    except RunError:
        raise
    except Exception as error:  # as text, since not every exception can be sent to the driver
        text = traceback.format_exc().strip()
        if _is_transient(error, text):
            raise RuntimeError(text) from None
        raise RunError(f"{BUG}:\n{text}") from None


def is_out_of_memory(text: str) -> bool:
    """Whether a traceback tells of memory that ran out, a device's or the machine's."""
    return any(sign in text.lower() for sign in _OUT_OF_MEMORY)


def _is_transient(error: Exception, text: str) -> bool:
    transient = isinstance(error, (OSError, RayError, dist.DistError))
    return transient or any(sign in text.lower() for sign in _TRANSIENT)


def _heartbeat(heartbeats: Any) -> Callable[[], None]:
    """A function that tells the driver that this worker is alive, every few seconds at most."""
    last = -math.inf

    def beat() -> None:
        nonlocal last
        if time.monotonic() - last < _HEARTBEAT_SECONDS:
            return
        last = time.monotonic()
        try:
            ray.get(heartbeats.beat.remote(), timeout=_HEARTBEAT_SECONDS)
        except ActorDiedError:  # it is restarted unless the driver has ended it
            raise RunError("the driver has ended the run") from None
        except GetTimeoutError:
            return

    return beat


def _train(task: TrainingTask, beat: Callable[[], None]) -> dict[str, Any]:
    """Trains from the latest checkpoint to the last epoch, then predicts with best and last."""
    device = ray.train.torch.get_device()
    precision = _resolve(cast(Precision, task.recipe.precision), device)
    recipe = replace(task.recipe, precision=precision)
    trainer = Trainer(task.initial, recipe, device, _prepare, beat)
    history: History = []
    if latest := ray.train.get_checkpoint():
        state = torch.load(io.BytesIO(_read(latest, _STATE)), "cpu", weights_only=True)
        trainer.restore(safetensors.torch.load(_read(latest, WEIGHTS)), state["trainer"])
        history = state["history"]
    while trainer.epochs < task.epochs:
        history.append(train_and_validate(trainer, task.datasets))
        _report(trainer, history, task.initial)
    logits = {LAST: _predict(trainer, task.datasets)}
    reported = ray.train.get_all_reported_checkpoints()
    best = max(reported, key=lambda item: item.metrics["best"]).checkpoint
    trainer.network.load_state_dict(safetensors.torch.load(_read(best, WEIGHTS)))
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
        with _checkpoint_errors():
            ray.train.report(metrics)
        return
    with _checkpoint_errors(), TemporaryDirectory() as folder:
        safetensors.torch.save_file(
            trainer.weights(), os.path.join(folder, WEIGHTS), metadata={"format": "pt"}
        )
        state = {"trainer": trainer.state(), "history": history}
        torch.save(state, os.path.join(folder, _STATE))
        for name, content in initial.files().items():
            Path(folder, name).write_bytes(content)
        checkpoint = Checkpoint.from_directory(folder)
        ray.train.report(metrics, checkpoint, checkpoint_dir_name=f"epoch-{epoch}")


@contextlib.contextmanager
def _checkpoint_errors() -> Iterator[None]:
    """Raises what storage raises as RunError; but a process may die here as anywhere else."""
    try:
        with storage_errors("a checkpoint could not be written"):
            yield
    except RunError as error:
        if isinstance(error.__cause__, RayError):
            raise error.__cause__ from None
        raise


def _predict(trainer: Trainer, datasets: Mapping[str, Dataset]) -> dict[str, np.ndarray]:
    return {name: trainer.predict(datasets[name].waveforms) for name in ("validation", "test")}


def _read(checkpoint: Checkpoint, name: str) -> bytes:
    return read_file(checkpoint.filesystem, f"{checkpoint.path}/{name}")
