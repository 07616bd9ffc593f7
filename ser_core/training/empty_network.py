"""A config → transformers' network on the meta device, which takes no memory; it has no weights."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers.configuration_utils import PreTrainedConfig

from ser_core.audio.constants import SEGMENT_SAMPLES
from ser_core.errors import CheckpointError, one_line
from ser_core.models.network_config import MAX_LAYERS, MAX_SIZE, no_network

_CLASSIFIER_DROPOUT = 0.1  # the card's
_CARD_SETTINGS = {"num_class", "classifier_dropout"}  # what the card adds to those of HuBERT
_MAX_PARAMETERS = 10**10  # the largest HuBERT has 10⁹
_MAX_REASON = 300  # characters of an exception


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
    return no_network(source, reason)


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
        limit = MAX_LAYERS if name.endswith("_layers") else MAX_SIZE
        in_range = (abs(n) <= limit for n in numbers if isinstance(n, int | float))
        if len(numbers) > MAX_LAYERS or not all(in_range):
            raise ValueError(f"{name} is out of range")
    return {"classifier_dropout": _CLASSIFIER_DROPOUT} | settings


def is_like(expected: torch.Tensor, actual: np.ndarray) -> bool:
    """Whether an array has the shape and the type of a network's tensor."""
    same_type = str(expected.dtype) == f"torch.{actual.dtype.name}"
    return same_type and expected.shape == actual.shape
