"""The processes of a training run, on Ray Train: what each does, and what it tells the driver.

After each epoch all of it goes into ``state.pt``, written whole and last; a run begun anew goes on
from there. It knows no corpus.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Self, cast

import numpy as np
import ray
import ray.train.torch
import torch
from ray.train import RunConfig, ScalingConfig, TrainingFailedError
from ray.util.queue import Queue
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ser_core.errors import RunError, UsageError
from ser_core.evaluation.metrics import accuracy, at_temperature, cross_entropy, uar
from ser_core.models.classifier import Precision, resolve_precision
from ser_core.training.dataset import Utterances
from ser_core.training.initialization import Start
from ser_core.training.run_folder import History, TrainingOutput
from ser_core.training.trainer import Learner, Recipe

_TOLD_SECONDS = 0.5  # between two words of a worker about an epoch


@dataclass(frozen=True)
class Job:
    """What the workers share, through Ray's object store."""

    output: str
    epochs: int
    recipe: Recipe  # its precision still as the user gave it
    start: Start
    utterances: Mapping[str, Utterances]


class _Heard(NamedTuple):
    """Within an epoch: how many recordings the run has behind it."""

    recordings: int


class _EpochDone(NamedTuple):
    row: dict[str, float]
    seconds: float


class Learned(NamedTuple):
    """The end of a run: its epochs, and logits by checkpoint and split."""

    history: History
    logits: dict[str, dict[str, np.ndarray]]
    device: str


class _Stopped(NamedTuple):
    """The workers are gone, well or not."""

    error: Exception | None


# ---- in the workers ------------------------------------------------------------------------------


def _work(loop: Mapping[str, Any]) -> None:
    """One worker's part, from the first epoch that is not done to the last logits."""
    job: Job = ray.get(loop["job"])
    context, device = ray.train.get_context(), ray.train.torch.get_device()
    recipe = replace(
        job.recipe, precision=_precision(cast(Precision, job.recipe.precision), device)
    )
    rank, world = context.get_world_rank(), context.get_world_size()
    learner, output = Learner(job.start, recipe, device, rank, world), TrainingOutput(job.output)
    tell = loop["messages"].put if rank == 0 else lambda _: None
    history: History = []
    if state := output.state():
        learner.restore(state)
        history = state["history"]
    train = job.utterances["train"]
    while learner.epochs < job.epochs:
        began, behind = time.monotonic(), learner.epochs * len(train.truth)
        row = _epoch(learner, job.utterances, _seldom(tell, behind))
        history.append(row)
        if rank == 0:
            if best_of(history) is row:
                output.write_weights("best", learner.weights())
            output.write_state(learner.state(), history)
        tell(_EpochDone(row, time.monotonic() - began))
    if rank == 0:
        output.write_weights("last", learner.weights())
    logits = {"last": _logits(learner, job.utterances)}
    learner.model.load_state_dict(output.weights("best"))
    logits["best"] = _logits(learner, job.utterances)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    tell(Learned(history, logits, f"{world} × {name}, {recipe.precision}"))


def _precision(precision: Precision, device: torch.device) -> str:
    if precision == "auto" and device.type == "cpu":
        return "fp32"
    return resolve_precision(precision, device)


def best_of(history: History) -> dict[str, float]:
    """The epoch that did best on validation: by UAR, and among equals by loss."""
    return max(history, key=lambda row: (row["validation_uar"], -row["validation_loss"]))


def _epoch(
    learner: Learner, utterances: Mapping[str, Utterances], heard: Callable[[int], None]
) -> dict[str, float]:
    rate, validation = learner.learning_rate, utterances["validation"]
    loss, hits = learner.train_epoch(utterances["train"], heard)
    logits = learner.predict(validation.waveforms)
    prediction = logits.argmax(axis=1)
    return {
        "epoch": learner.epochs,
        "learning_rate": rate,
        "loss": loss,
        "accuracy": hits,
        "validation_loss": cross_entropy(at_temperature(logits, 1.0), validation.truth),
        "validation_accuracy": accuracy(validation.truth, prediction),
        "validation_uar": uar(validation.truth, prediction),
    }


def _logits(learner: Learner, utterances: Mapping[str, Utterances]) -> dict[str, np.ndarray]:
    return {name: learner.predict(utterances[name].waveforms) for name in ("validation", "test")}


def _seldom(tell: Callable[[Any], None], behind: int) -> Callable[[int], None]:
    """Tells how many recordings the run has behind it, and is silent for a while after that."""
    last = time.monotonic()

    def told(count: int) -> None:
        nonlocal last
        if time.monotonic() - last > _TOLD_SECONDS:
            tell(_Heard(behind + count))
            last = time.monotonic()

    return told


# ---- in the driver -------------------------------------------------------------------------------


def run(job: Job, workers: int | None) -> Learned:
    """Starts the workers, shows how they get on, and returns what they leave.

    Args:
        job: what they do.
        workers: how many; None is one for each GPU of the cluster, or one on CPUs.

    Raises:
        UsageError: there are not as many GPUs.
        RunError: they stopped before the end.
    """
    scaling = _scaling(workers)
    messages = Queue(actor_options={"num_cpus": 0})
    learned: Learned | None = None
    with TemporaryDirectory() as scratch, _Display(job) as display:
        trainer = ray.train.torch.TorchTrainer(
            _work,
            train_loop_config={"job": ray.put(job), "messages": messages},
            scaling_config=scaling,
            run_config=RunConfig(name="run", storage_path=scratch),  # Ray keeps nothing of ours
        )
        # In a thread of its own: Ctrl-C goes to this one, where it ends the command.
        threading.Thread(target=_fit, args=(trainer, messages), daemon=True).start()
        while not isinstance(message := messages.get(), _Stopped):
            if isinstance(message, Learned):
                learned = message
            else:
                display.show(message)
    messages.shutdown()
    if learned is None:
        raise RunError(_why(message.error))
    return learned


def _fit(trainer: ray.train.torch.TorchTrainer, messages: Queue) -> None:
    try:
        trainer.fit()
    except TrainingFailedError as error:
        messages.put(_Stopped(error))
    else:
        messages.put(_Stopped(None))


def _why(error: Exception | None) -> str:
    if "out of memory" in str(error).lower():
        return "out of memory: the same command with --accumulate 4 goes on with less"
    return f"the workers stopped; the same command goes on after the last epoch\n{error}"


def _scaling(workers: int | None) -> ScalingConfig:
    """A process for each GPU of the cluster; without any, one with all cores of a node."""
    gpus = int(ray.cluster_resources().get("GPU", 0))
    if gpus:
        if workers and workers > gpus:
            raise UsageError(f"--workers {workers}: the cluster has {gpus} GPUs")
        return ScalingConfig(num_workers=workers or gpus, use_gpu=True)
    workers = workers or 1
    cores = max(int(node["Resources"].get("CPU", 1)) for node in ray.nodes() if node["Alive"])
    share = {"CPU": max(1, cores // workers)}  # Ray gives a process as many threads
    return ScalingConfig(num_workers=workers, resources_per_worker=share)


class _Display:
    """A bar on a terminal, and everywhere a line per epoch, on standard error."""

    def __init__(self, job: Job) -> None:
        self._epochs = job.epochs
        console = Console(stderr=True, soft_wrap=True, highlight=False)
        columns = (BarColumn(), TextColumn("{task.percentage:.0f} %"), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task("", total=job.epochs * len(job.utterances["train"].truth))

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, message: _Heard | _EpochDone) -> None:
        """Moves the bar, or prints the epoch's line."""
        if isinstance(message, _Heard):
            self._bar.update(self._task, completed=message.recordings)
            return
        row = message.row
        self._bar.console.print(
            f"epoch {row['epoch']} of {self._epochs}: loss {row['loss']:.4f}, accuracy"
            f" {row['accuracy']:.3f}; validation loss {row['validation_loss']:.4f}, accuracy"
            f" {row['validation_accuracy']:.3f}, UAR {row['validation_uar']:.3f};"
            f" {message.seconds:.0f} s"
        )
