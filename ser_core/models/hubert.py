"""HubertForSpeechClassification, and any checkpoint of its family as a network; no audio here."""

import warnings
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn
from torch.nn.utils import parametrize
from transformers import AutoConfig, AutoModelForAudioClassification, HubertConfig, HubertModel
from transformers.models.hubert.modeling_hubert import HubertPreTrainedModel

from ser_core.errors import CheckpointError
from ser_core.models.checkpoint import Checkpoint

_STANDARD = ("HubertForSequenceClassification", "Wav2Vec2ForSequenceClassification")
_NAMED_KEYS = 4  # of the keys that do not fit, so many are named


class HubertClassificationHead(nn.Module):
    """The card's head: dense → tanh → dropout → out_proj, over the mean of all frames."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.out_proj = nn.Linear(config.hidden_size, config.num_class)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """Logits of shape ``(batch, num_class)`` from ``pooled`` ``(batch, hidden_size)``."""
        logits: torch.Tensor = self.out_proj(self.dropout(torch.tanh(self.dense(pooled))))
        return logits


class HubertForSpeechClassification(HubertPreTrainedModel):
    """The model card's network: HuBERT, the mean over its frames, the card's head."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__(config)
        self.hubert = HubertModel(config)
        self.classifier = HubertClassificationHead(config)
        self.post_init()

    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,  # noqa: ARG002 (the interface of both heads)
    ) -> torch.Tensor:
        """Logits of shape ``(batch, num_class)`` from ``input_values`` ``(batch, num_samples)``.

        The card pools over the padding and passes no mask, so ``attention_mask`` is not used.
        """
        return self.head(self.hubert(input_values)[0].mean(dim=1))

    @property
    def backbone(self) -> Any:
        """The network below the head."""
        return self.hubert

    def head(self, pooled: torch.Tensor) -> torch.Tensor:
        """Logits from the mean over the frames, shape ``(batch, hidden_size)``."""
        logits: torch.Tensor = self.classifier(pooled)
        return logits


class StandardClassifier(nn.Module):
    """A transformers audio classifier (HuBERT, wav2vec2) that returns its logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    @property
    def backbone(self) -> Any:
        """The network below the head."""
        return self.model.base_model

    def head(self, pooled: torch.Tensor) -> torch.Tensor:
        """Logits from the mean over the frames, shape ``(batch, hidden_size)``.

        transformers projects each frame and takes the mean then; the projection is linear.
        """
        model: Any = self.model
        return cast(torch.Tensor, model.classifier(model.projector(pooled)))

    def forward(
        self, input_values: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits of shape ``(batch, num_labels)``; frames outside the mask are not pooled."""
        return cast(torch.Tensor, self.model(input_values, attention_mask=attention_mask).logits)


SpeechClassifier = HubertForSpeechClassification | StandardClassifier


def is_card_style(config: Mapping[str, Any]) -> bool:
    """Whether a ``config.json`` describes the card's head rather than transformers' own."""
    architectures = config.get("architectures") or []
    return "num_class" in config and not any(name in _STANDARD for name in architectures)


def build_model(checkpoint: Checkpoint) -> SpeechClassifier:
    """The network with the checkpoint's weights, in evaluation mode, on the CPU, in float32.

    Its weights share memory with ``checkpoint.weights``.

    Raises:
        CheckpointError: the architecture is not of the family, or the weights do not fill the
            network, tensor for tensor.
    """
    model = _empty_model(checkpoint)
    _refuse_misfits(checkpoint, model)
    with warnings.catch_warnings():
        # Ray's object store is read-only memory; nothing here writes to a weight.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        weights = {name: torch.from_numpy(array) for name, array in checkpoint.weights.items()}
    model.load_state_dict(weights, strict=True, assign=True)
    for module in model.modules():
        if parametrize.is_parametrized(module, "weight"):  # fold the weight norm once, not per call
            parametrize.remove_parametrizations(module, "weight")
    model.eval().requires_grad_(False)
    if isinstance(model, HubertForSpeechClassification):
        return model
    return StandardClassifier(model).eval()


def _empty_model(checkpoint: Checkpoint) -> nn.Module:
    config = checkpoint.config
    model_type = config.get("model_type")
    if model_type not in ("hubert", "wav2vec2"):
        words = f"model_type {model_type!r} is not supported (hubert and wav2vec2 are)"
        raise CheckpointError(f"--model {checkpoint.name}: {words}")
    try:
        settings = AutoConfig.for_model(**config)
        if is_card_style(config):
            settings.classifier_dropout = config.get("classifier_dropout", 0.1)
            network: Any = HubertForSpeechClassification
        else:
            network = AutoModelForAudioClassification.from_config
        with torch.device("meta"):  # the checkpoint fills every tensor, so none is initialised
            return cast(nn.Module, network(settings))
    except (TypeError, ValueError, KeyError) as error:
        words = str(error).splitlines()[0]
        raise CheckpointError(f"--model {checkpoint.name}: config.json: {words}") from None


def _refuse_misfits(checkpoint: Checkpoint, model: nn.Module) -> None:
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    given = {name: array.shape for name, array in checkpoint.weights.items()}
    kinds = {
        "missing": sorted(wanted.keys() - given.keys()),
        "unexpected": sorted(given.keys() - wanted.keys()),
        "of another shape": sorted(
            n for n in wanted.keys() & given.keys() if wanted[n] != given[n]
        ),
    }
    misfits = "; ".join(f"{kind}: {_some(names)}" for kind, names in kinds.items() if names)
    if misfits:
        advice = _advice(checkpoint)
        words = f"its weights do not fill the network ({misfits}){advice}"
        raise CheckpointError(f"--model {checkpoint.name}: {words}")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED_KEYS} more" if len(names) > _NAMED_KEYS else ""
    return ", ".join(names[:_NAMED_KEYS]) + more


def _advice(checkpoint: Checkpoint) -> str:
    if is_card_style(checkpoint.config) and "projector.weight" in checkpoint.weights:
        return (
            ". The weights are a plain HubertForSequenceClassification, the config is the card's:"
            ' in config.json set "architectures": ["HubertForSequenceClassification"] and name'
            " the classes in id2label"
        )
    if not is_card_style(checkpoint.config) and "classifier.out_proj.weight" in checkpoint.weights:
        return (
            ". The weights have the model card's head: in config.json set"
            ' "architectures": ["HubertForSpeechClassification"] and "num_class"'
        )
    if "classifier.out_proj.weight" not in checkpoint.weights:
        return ". It has no emotion classifier yet: fine-tune it first"
    return ""
