"""A config → its network, filled strictly with the checkpoint's weights."""

import warnings
from collections.abc import Collection, Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize
from transformers import HubertForSequenceClassification, Wav2Vec2ForSequenceClassification
from transformers.configuration_utils import PreTrainedConfig

from ser_core.audio.constants import SEGMENT_SAMPLES
from ser_core.errors import CheckpointError, one_line
from ser_core.models.checkpoint import Checkpoint
from ser_core.models.hubert import HubertForSpeechClassification
from ser_core.models.standard import StandardClassifier

# The networks that can be built, by `model_type`. To add an architecture, write its module beside
# hubert.py, with the same `backbone`, `pooled` and `head`, and enter it here; padding.py lists
# separately the families whose padding can be elided.
CARD_NETWORKS: Mapping[str, Any] = {"hubert": HubertForSpeechClassification}
STANDARD_NETWORKS: Mapping[str, Any] = {
    "hubert": HubertForSequenceClassification,
    "wav2vec2": Wav2Vec2ForSequenceClassification,
}
SpeechClassifier = HubertForSpeechClassification | StandardClassifier

CLASSIFIER_DROPOUT = 0.1  # the card's
_CARD_SETTINGS = {"num_class", "classifier_dropout"}  # what the card adds to those of HuBERT
_MAX_LAYERS = 100  # the largest HuBERT has 48
_MAX_SETTING = 1_000_000  # the largest in a HuBERT is 5,120, a layer's width
_MAX_PARAMETERS = 10**10  # the largest HuBERT has 10⁹
_MAX_NAMED_KEYS = 4  # in a message about weights that do not fit
_MAX_REASON = 300  # characters of an exception


def is_card_style(config: Mapping[str, Any]) -> bool:
    """Whether a ``config.json`` describes the card's head rather than that of transformers.

    >>> is_card_style({"model_type": "hubert", "num_class": 6})
    True
    >>> is_card_style({"architectures": ["HubertForSequenceClassification"]})
    False
    """
    standard = {network.__name__ for network in STANDARD_NETWORKS.values()}
    architectures = config.get("architectures")
    named = map(str, architectures) if isinstance(architectures, list) else ()
    return "num_class" in config and standard.isdisjoint(named)


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
    config, labels = checkpoint.config, checkpoint.labels
    card_style = is_card_style(config)
    networks = CARD_NETWORKS if card_style else STANDARD_NETWORKS
    model_type = config.get("model_type")
    network = networks.get(str(model_type))
    if network is None:
        head = " with the model card's head" if card_style else ""
        supported = ", ".join(networks)
        problem = f"model_type {model_type!r}{head} is not supported (supported: {supported})"
        raise CheckpointError(f"{checkpoint.name}: {problem}")
    classes = {} if card_style else {"id2label": dict(enumerate(labels))}
    return empty_network(checkpoint.name, network, config, classes)


def empty_network(
    source: str, network: Any, config: Mapping[str, Any], classes: dict[str, Any]
) -> nn.Module:
    """Builds a network on the meta device, without memory for its weights, and runs it once there.

    Args:
        source: of the checkpoint, for messages.
        network: a class of transformers, or one like it.
        config: the content of ``config.json``.
        classes: further settings, which replace those of ``config``.

    Raises:
        CheckpointError: transformers cannot build or run it; or it is absurdly large.
    """
    try:
        settings = _network_settings(network.config_class, config)
        with torch.device("meta"), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes that are refused, or absurd
            model: nn.Module = network(network.config_class(**settings | classes)).eval()
            model(torch.zeros(1, SEGMENT_SAMPLES))
        if sum(tensor.numel() for tensor in model.parameters()) > _MAX_PARAMETERS:
            raise ValueError(f"the network has more than {_MAX_PARAMETERS:,} parameters")
    except Exception as error:  # transformers checks few settings; wrong ones raise what they do
        raise config_error(source, error) from None
    return model


def config_error(source: str, error: Exception) -> CheckpointError:
    """The error of a network that cannot be built or run as ``config.json`` says."""
    reason = f"{type(error).__name__}: {one_line(error)[:_MAX_REASON]}"
    return CheckpointError(f"{source}: config.json makes no working network ({reason})")


def _network_settings(config_class: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that describe the network.

    The others say how transformers loads and runs a network. They may change its outputs or make it
    download code, as ``_attn_implementation`` does.
    """
    general = PreTrainedConfig().to_dict().keys()
    known = (config_class().to_dict().keys() - general) | _CARD_SETTINGS
    settings = {name: value for name, value in config.items() if name in known}
    for name, value in settings.items():
        numbers = value if isinstance(value, list) else [value]
        limit = _MAX_LAYERS if name.endswith("_layers") else _MAX_SETTING
        in_range = (abs(n) <= limit for n in numbers if isinstance(n, int | float))
        if len(numbers) > _MAX_LAYERS or not all(in_range):
            raise ValueError(f"{name} is out of range")
    return {"classifier_dropout": CLASSIFIER_DROPOUT} | settings


def _check_weights_fit(checkpoint: Checkpoint, model: nn.Module) -> None:
    expected, actual = model.state_dict(), checkpoint.weights
    common = expected.keys() & actual.keys()
    shapes = {name for name in common if expected[name].shape != actual[name].shape}
    mismatches = {
        "missing": expected.keys() - actual.keys(),
        "unexpected": actual.keys() - expected.keys(),
        "wrong shape": shapes,
        "wrong type": {n for n in common - shapes if not is_like(expected[n], actual[n])},
    }
    found = "; ".join(f"{kind}: {shortened(names)}" for kind, names in mismatches.items() if names)
    if found:
        problem = f"the weights do not match the network ({found}){_advice(checkpoint)}"
        raise CheckpointError(f"{checkpoint.name}: {problem}")


def is_like(expected: torch.Tensor, actual: np.ndarray) -> bool:
    """Whether an array has the shape and the type of a network's tensor."""
    same_type = str(expected.dtype) == f"torch.{actual.dtype.name}"
    return same_type and expected.shape == actual.shape


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
