"""The fine-tuning loop: optimizer, schedule, epochs and their state; no files, no Ray.

All randomness of an epoch derives from (seed, epoch, rank), so an epoch that is repeated after a
crash is the same epoch.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from ser_core.evaluation import metrics
from ser_core.models.hubert import HubertForSpeechClassification
from ser_core.models.input_values import pad_and_normalize
from ser_core.training.dataset import Dataset
from ser_core.training.initialization import InitialModel

# The model card's, under "Training setting".
BODY_RATE = 0.2  # times the learning rate, for the parameters with `hubert` in their name
BETAS = (0.93, 0.98)
WEIGHT_DECAY = 0.2
STEP_EPOCHS = 10
GAMMA = 0.3

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        learning_rate: of the head, in the first epochs.
        batch_size: recordings per step, over all workers and passes.
        accumulate: forward passes that a worker makes for its share of a batch.
        precision: ``fp32``; or ``bf16`` or ``fp16`` wherever autocast considers it safe.
        gradient_checkpointing: recompute activations instead of storing them.
        seed: of the order of recordings, dropout, LayerDrop and SpecAugment.
    """

    learning_rate: float
    batch_size: int
    accumulate: int
    precision: str
    gradient_checkpointing: bool
    seed: int


def build_optimizer(model: nn.Module, learning_rate: float) -> torch.optim.AdamW:
    """The card's AdamW: the body at a fifth of the head's learning rate."""
    named = list(model.named_parameters())
    body = [parameter for name, parameter in named if "hubert" in name]
    head = [parameter for name, parameter in named if "hubert" not in name]
    groups = [
        {"params": body, "lr": BODY_RATE * learning_rate},
        {"params": head, "lr": learning_rate},
    ]
    return torch.optim.AdamW(groups, betas=BETAS, weight_decay=WEIGHT_DECAY)


def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order of the recordings in an epoch, shape ``(count,)``.

    >>> epoch_order(34, 1, 4).tolist() == epoch_order(34, 2, 4).tolist()
    False
    """
    return np.random.default_rng([seed, epoch]).permutation(count)


def _seed_generators(*seeds: int) -> None:
    seed = int(np.random.SeedSequence(seeds).generate_state(1)[0])
    torch.manual_seed(seed)  # dropout and LayerDrop
    np.random.seed(seed)  # transformers draws its SpecAugment masks from it


class Trainer:
    """A network in training, on the device of this process.

    Where torch's process group has more than one process, each trains on its share of a batch.

    Attributes:
        network: the network itself, without the wrapper that synchronizes gradients.
        optimizer: the card's.
        epochs: how many are done.
    """

    def __init__(
        self,
        initial: InitialModel,
        recipe: Recipe,
        device: torch.device,
        prepare: Callable[[nn.Module], nn.Module] = lambda network: network,
        before_pass: Callable[[], None] = lambda: None,
    ) -> None:
        """Builds network, optimizer and schedule.

        Args:
            initial: the weights before the first step.
            recipe: how to train.
            device: where to compute.
            prepare: wraps the network in ``DistributedDataParallel`` if there are more processes.
            before_pass: called before every forward pass.
        """
        self.network: HubertForSpeechClassification = initial.build().to(device)  # type: ignore[arg-type]
        if recipe.gradient_checkpointing:
            self.network.gradient_checkpointing_enable()
        self.epochs = 0
        self._recipe, self._device = recipe, device
        grouped = dist.is_initialized()
        self._rank, self._world = (dist.get_rank(), dist.get_world_size()) if grouped else (0, 1)
        self._preprocessing = initial.preprocessing
        self.optimizer = build_optimizer(self.network, recipe.learning_rate)
        self._schedule = torch.optim.lr_scheduler.StepLR(self.optimizer, STEP_EPOCHS, GAMMA)
        self._scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")
        self._prepared = prepare(self.network)
        self._before_pass = before_pass

    @property
    def learning_rate(self) -> float:
        """The head's, in the coming epoch."""
        return float(self.optimizer.param_groups[-1]["lr"])

    def train_epoch(self, dataset: Dataset) -> tuple[float, float]:
        """One pass over the recordings, in this epoch's order.

        Returns:
            Mean loss and accuracy, by the network as it was at each step, with dropout.
        """
        epoch, recipe = self.epochs + 1, self._recipe
        _seed_generators(recipe.seed, epoch, self._rank)
        self._prepared.train()
        order = epoch_order(recipe.seed, epoch, len(dataset.truth))
        totals = torch.zeros(2, dtype=torch.float64, device=self._device)
        for start in range(0, len(order), recipe.batch_size):
            totals += self._step(dataset, order[start : start + recipe.batch_size])
        self._schedule.step()
        self.epochs = epoch
        if self._world > 1:
            dist.all_reduce(totals)
        loss, correct = (totals / len(order)).tolist()
        return loss, correct

    def _step(self, dataset: Dataset, batch: np.ndarray) -> torch.Tensor:
        """One step of the optimizer; returns this process's summed loss and correct count."""
        totals = torch.zeros(2, dtype=torch.float64, device=self._device)
        self.optimizer.zero_grad()
        share = batch[self._rank :: self._world]
        # DDP averages over the processes: with their number as the factor, this is the mean over
        # the batch. A last batch can be smaller than their number; a process that is left without
        # a share computes a gradient of zero, since DDP waits for every process.
        factor = self._world if len(share) else 0
        passes = np.array_split(share, min(self._recipe.accumulate, len(share) or 1))
        for number, part in enumerate(passes, start=1):
            indices = part if len(part) else batch[:1]
            target = torch.from_numpy(dataset.truth[indices]).to(self._device)
            with self._synchronized(number == len(passes)):
                waveforms = [dataset.waveforms[index] for index in indices]
                logits = self._logits(self._prepared, waveforms)
                # The same as the card's loss of one-hot targets.
                loss = cross_entropy(logits, target, reduction="sum")
                self._scaler.scale(loss * factor / len(batch)).backward()
            if factor:
                totals += torch.stack([loss.detach(), (logits.argmax(dim=1) == target).sum()])
        self._scaler.step(self.optimizer)
        self._scaler.update()
        return totals

    def _synchronized(self, last: bool) -> AbstractContextManager[None]:
        """Gradients are exchanged between processes in the last pass of a step only."""
        if last or not isinstance(self._prepared, DistributedDataParallel):
            return nullcontext()
        return self._prepared.no_sync()

    def _logits(self, network: nn.Module, waveforms: Sequence[np.ndarray]) -> torch.Tensor:
        self._before_pass()
        values, _ = pad_and_normalize(waveforms, self._preprocessing, self._device)
        dtype = _DTYPES.get(self._recipe.precision)
        with torch.autocast(self._device.type, dtype, enabled=dtype is not None):
            logits: torch.Tensor = network(values)
        return logits.float()

    @torch.no_grad()
    def predict(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Logits of every recording, float32 of shape ``(len(waveforms), num_class)``."""
        self.network.eval()
        size = max(1, self._recipe.batch_size // (self._world * self._recipe.accumulate))
        mine = waveforms[self._rank :: self._world]
        batches = [mine[start : start + size] for start in range(0, len(mine), size)]
        logits = [self._logits(self.network, batch).cpu().numpy() for batch in batches]
        num_class = int(self.network.config.num_class)
        share = np.concatenate([np.empty((0, num_class), np.float32), *logits])
        shares = [share] * self._world
        if self._world > 1:
            dist.all_gather_object(shares, share)
        gathered = np.empty((len(waveforms), num_class), np.float32)
        for rank, share in enumerate(shares):
            gathered[rank :: self._world] = share
        return gathered

    def weights(self) -> dict[str, torch.Tensor]:
        """The network's tensors on the CPU, as a copy."""
        state = self.network.state_dict()
        return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}

    def state(self) -> dict[str, Any]:
        """Everything but the weights that the next epoch depends on."""
        return {
            "epochs": self.epochs,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def restore(self, weights: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
        """Continues from ``weights()`` and ``state()`` of another trainer."""
        self.epochs = state["epochs"]
        self.network.load_state_dict(weights)
        self.optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self._scaler.load_state_dict(state["scaler"])


def train_and_validate(trainer: Trainer, datasets: Mapping[str, Dataset]) -> dict[str, float]:
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
        "validation_loss": metrics.cross_entropy(
            metrics.at_temperature(logits, 1.0), validation.truth
        ),
        "validation_accuracy": metrics.accuracy(validation.truth, prediction),
        "validation_uar": metrics.uar(validation.truth, prediction),
        "seconds": time.monotonic() - started,
    }
