"""A config → its network, filled strictly with the checkpoint's weights."""

import warnings
from collections.abc import Collection, Mapping
from typing import Any, cast

import torch
from torch import nn
from torch.nn.utils import parametrize
from transformers import (
    AutoConfig,
    HubertForSequenceClassification,
    Wav2Vec2ForSequenceClassification,
)

from ser_core.errors import CheckpointError
from ser_core.models.checkpoint import Checkpoint
from ser_core.models.hubert import HubertForSpeechClassification
from ser_core.models.standard import StandardClassifier

# The networks that can be built, by `model_type`. To add an architecture, write its module beside
# hubert.py, with the same `backbone` and `head`, and enter it here; padding.py lists separately the
# families whose padding can be elided.
CARD_NETWORKS: Mapping[str, Any] = {"hubert": HubertForSpeechClassification}
STANDARD_NETWORKS: Mapping[str, Any] = {
    "hubert": HubertForSequenceClassification,
    "wav2vec2": Wav2Vec2ForSequenceClassification,
}
SpeechClassifier = HubertForSpeechClassification | StandardClassifier

CLASSIFIER_DROPOUT = 0.1  # the card's
_MAX_NAMED_KEYS = 4  # in a message about weights that do not fit


def is_card_style(config: Mapping[str, Any]) -> bool:
    """Whether a ``config.json`` describes the card's head rather than that of transformers.

    >>> is_card_style({"model_type": "hubert", "num_class": 6})
    True
    >>> is_card_style({"architectures": ["HubertForSequenceClassification"]})
    False
    """
    standard = {network.__name__ for network in STANDARD_NETWORKS.values()}
    return "num_class" in config and standard.isdisjoint(config.get("architectures") or [])


def build_model(checkpoint: Checkpoint) -> SpeechClassifier:
    """Builds the network on the CPU, in float32 and evaluation mode.

    Its weights share memory with ``checkpoint.weights``.

    Raises:
        CheckpointError: the architecture is not supported, or the weights do not match those of
            the network exactly, by name and shape.
    """
    model = _empty_model(checkpoint)
    _check_weights_fit(checkpoint, model)
    with warnings.catch_warnings():
        # Arrays from Ray's object store are read-only; nothing here writes to a weight.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        weights = {name: torch.from_numpy(array) for name, array in checkpoint.weights.items()}
    model.load_state_dict(weights, strict=True, assign=True)
    for module in model.modules():
        # Computes the weight norm once rather than in each call.
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")
    model.eval().requires_grad_(False)
    if is_card_style(checkpoint.config):
        return cast(SpeechClassifier, model)
    return StandardClassifier(model).eval()


def _empty_model(checkpoint: Checkpoint) -> nn.Module:
    config = checkpoint.config
    card_style = is_card_style(config)
    networks = CARD_NETWORKS if card_style else STANDARD_NETWORKS
    model_type = config.get("model_type")
    network = networks.get(str(model_type))
    if network is None:
        head = " with the model card's head" if card_style else ""
        supported = ", ".join(networks)
        problem = f"model_type {model_type!r}{head} is not supported (supported: {supported})"
        raise CheckpointError(f"--model {checkpoint.name}: {problem}")
    try:
        settings = AutoConfig.for_model(**config)
        if card_style:
            settings.classifier_dropout = config.get("classifier_dropout", CLASSIFIER_DROPOUT)
        with torch.device("meta"):  # all weights come from the checkpoint: none is initialized
            return cast(nn.Module, network(settings))
    except (TypeError, ValueError, KeyError) as error:
        problem = str(error).splitlines()[0]
        raise CheckpointError(f"--model {checkpoint.name}: config.json: {problem}") from None


def _check_weights_fit(checkpoint: Checkpoint, model: nn.Module) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    actual = {name: array.shape for name, array in checkpoint.weights.items()}
    common = expected.keys() & actual.keys()
    mismatches = {
        "missing": expected.keys() - actual.keys(),
        "unexpected": actual.keys() - expected.keys(),
        "wrong shape": {name for name in common if expected[name] != actual[name]},
    }
    found = "; ".join(f"{kind}: {shortened(names)}" for kind, names in mismatches.items() if names)
    if found:
        problem = f"the weights do not match the network ({found}){_advice(checkpoint)}"
        raise CheckpointError(f"--model {checkpoint.name}: {problem}")


def shortened(names: Collection[str]) -> str:
    """The first few names in order, and how many more there are."""
    listed, more = sorted(names)[:_MAX_NAMED_KEYS], len(names) - _MAX_NAMED_KEYS
    return ", ".join(listed) + (f" and {more} more" if more > 0 else "")


def _advice(checkpoint: Checkpoint) -> str:
    if is_card_style(checkpoint.config) and "projector.weight" in checkpoint.weights:
        return (
            ". The weights are those of HubertForSequenceClassification, but the config is the"
            ' card\'s: set "architectures": ["HubertForSequenceClassification"] in config.json and'
            " name the classes under id2label"
        )
    if not is_card_style(checkpoint.config) and "classifier.out_proj.weight" in checkpoint.weights:
        return (
            ". The weights have the model card's head: set"
            ' "architectures": ["HubertForSpeechClassification"] and "num_class" in config.json'
        )
    if "classifier.out_proj.weight" not in checkpoint.weights:
        return ". It has no emotion classifier yet: fine-tune it with jobs.train"
    return ""
