"""The fine-tuning loop: optimiser, schedule, epochs and their state; no files, no Ray.

Everything random in an epoch derives from (seed, epoch, rank), so that an epoch begun anew after a
kill is the same epoch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy

from ser_core.models.classifier import pad_and_normalize
from ser_core.models.hubert import HubertForSpeechClassification
from ser_core.training.dataset import Utterances
from ser_core.training.initialization import Start

# The model card's, under "Training setting".
BODY_RATE = 0.2  # of the learning rate, for the parameters with `hubert` in their name
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
        batch_size: recordings per step, over all processes and passes.
        accumulate: forward passes that a process makes of its share of a batch.
        precision: ``fp32``; or ``bf16`` or ``fp16`` wherever autocast finds it safe.
        gradient_checkpointing: compute activations again rather than keep them.
        seed: of the order of recordings, dropout and masks.
    """

    learning_rate: float
    batch_size: int
    accumulate: int
    precision: str
    gradient_checkpointing: bool
    seed: int


def optimizer_for(model: nn.Module, learning_rate: float) -> torch.optim.AdamW:
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
    """The order in which an epoch hears its recordings, shape ``(count,)``.

    >>> epoch_order(34, 1, 4).tolist() == epoch_order(34, 2, 4).tolist()
    False
    """
    return np.random.default_rng([seed, epoch]).permutation(count)


def _draw_anew(*seeds: int) -> None:
    seed = int(np.random.SeedSequence(seeds).generate_state(1)[0])
    torch.manual_seed(seed)  # dropout and LayerDrop
    np.random.seed(seed)  # transformers draws its SpecAugment masks there


class Learner:
    """A network in training, on one device of one or more processes.

    Attributes:
        model: the network.
        optimizer: the card's.
        epochs: how many are done.
    """

    def __init__(
        self, start: Start, recipe: Recipe, device: torch.device, rank: int = 0, world: int = 1
    ) -> None:
        """Builds network, optimiser and schedule.

        Args:
            start: the weights before the first step.
            recipe: how to train.
            device: where to compute.
            rank: this process among the others.
            world: how many there are; more than one have a torch process group.
        """
        self.model: HubertForSpeechClassification = start.network().to(device)  # type: ignore[arg-type]
        if recipe.gradient_checkpointing:
            self.model.gradient_checkpointing_enable()
        self.epochs = 0
        self._recipe, self._device, self._rank, self._world = recipe, device, rank, world
        self._preprocessing = start.preprocessing
        self.optimizer = optimizer_for(self.model, recipe.learning_rate)
        self._schedule = torch.optim.lr_scheduler.StepLR(self.optimizer, STEP_EPOCHS, GAMMA)
        self._scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")

    @property
    def learning_rate(self) -> float:
        """The head's, in the coming epoch."""
        return float(self.optimizer.param_groups[-1]["lr"])

    def train_epoch(
        self,
        utterances: Utterances,
        heard: Callable[[int], None] = lambda _: None,
    ) -> tuple[float, float]:
        """One pass over the recordings, in this epoch's order.

        Args:
            utterances: the recordings with their truth.
            heard: told after each step how many recordings the epoch has behind it.

        Returns:
            Mean loss and accuracy, of the network as it was at each step, dropout included.
        """
        epoch, recipe = self.epochs + 1, self._recipe
        _draw_anew(recipe.seed, epoch, self._rank)
        self.model.train()
        order = epoch_order(recipe.seed, epoch, len(utterances.truth))
        totals = torch.zeros(2, dtype=torch.float64, device=self._device)
        for start in range(0, len(order), recipe.batch_size):
            batch = order[start : start + recipe.batch_size]
            totals += self._step(utterances, batch)
            heard(start + len(batch))
        self._schedule.step()
        self.epochs = epoch
        self._sum(totals)
        loss, correct = (totals / len(order)).tolist()
        return loss, correct

    def _step(self, utterances: Utterances, batch: np.ndarray) -> torch.Tensor:
        """One step of the optimiser; the sum of this process's losses, and of its hits."""
        totals = torch.zeros(2, dtype=torch.float64, device=self._device)
        self.optimizer.zero_grad()
        share = batch[self._rank :: self._world]
        for part in np.array_split(share, min(self._recipe.accumulate, max(1, len(share)))):
            if not len(part):  # the last batch can be smaller than the number of processes
                continue
            target = torch.from_numpy(utterances.truth[part]).to(self._device)
            logits = self._logits([utterances.waveforms[index] for index in part])
            loss = cross_entropy(logits, target, reduction="sum")  # of one-hot targets: the same
            self._scaler.scale(loss / len(batch)).backward()
            totals += torch.stack([loss.detach(), (logits.argmax(dim=1) == target).sum()])
        self._sum_gradients()
        self._scaler.step(self.optimizer)
        self._scaler.update()
        return totals

    def _logits(self, waveforms: Sequence[np.ndarray]) -> torch.Tensor:
        values, _ = pad_and_normalize(waveforms, self._preprocessing, self._device)
        dtype = _DTYPES.get(self._recipe.precision)
        with torch.autocast(self._device.type, dtype, enabled=dtype is not None):
            logits: torch.Tensor = self.model(values)
        return logits.float()

    def _sum_gradients(self) -> None:
        """Over all processes. A layer that LayerDrop leaves out here may be there elsewhere."""
        if self._world == 1:
            return
        for parameter in self.model.parameters():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)

    def _sum(self, totals: torch.Tensor) -> None:
        if self._world > 1:
            dist.all_reduce(totals)

    @torch.no_grad()
    def predict(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Logits of every recording, float32 of shape ``(len(waveforms), num_class)``."""
        self.model.eval()
        size = max(1, self._recipe.batch_size // (self._world * self._recipe.accumulate))
        mine = waveforms[self._rank :: self._world]
        passes = [self._logits(mine[at : at + size]) for at in range(0, len(mine), size)]
        shape = (0, int(self.model.config.num_class))
        share = np.concatenate([np.empty(shape, np.float32), *(p.cpu().numpy() for p in passes)])
        shares = [share] * self._world
        if self._world > 1:
            dist.all_gather_object(shares, share)
        logits = np.empty((len(waveforms), *shape[1:]), np.float32)
        for rank, share in enumerate(shares):
            logits[rank :: self._world] = share
        return logits

    def weights(self) -> dict[str, torch.Tensor]:
        """The network's tensors on the CPU, each in memory of its own."""
        state = self.model.state_dict()
        return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}

    def state(self) -> dict[str, Any]:
        """All that the epochs so far have made: what ``restore`` takes."""
        return {
            "epochs": self.epochs,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from where ``state`` was taken."""
        self.epochs = state["epochs"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self._scaler.load_state_dict(state["scaler"])
