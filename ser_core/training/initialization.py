"""A hub id, a folder or a config.json → config and weights before the first step.

It knows no corpus and trains nothing.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.func import functional_call
from transformers import HubertConfig

from ser_core.audio.constants import SEGMENT_SAMPLES
from ser_core.errors import CheckpointError, first_few
from ser_core.models.checkpoint import Files, class_names, read_files, read_json
from ser_core.models.hubert import HubertForSpeechClassification
from ser_core.models.preprocessing import Preprocessing, preprocessing_of
from ser_core.training.empty_network import config_error, empty_network, is_like
from ser_core.training.run_folder import to_json

_BODY, _HEAD = "hubert.", "classifier."
# What Wav2Vec2FeatureExtractor writes for the card: no attention mask, so padding counts.
_PREPROCESSOR: dict[str, Any] = {
    "feature_extractor_type": "Wav2Vec2FeatureExtractor",
    "feature_size": 1,
    "sampling_rate": 16_000,
    "padding_value": 0.0,
    "padding_side": "right",
    "do_normalize": True,
    "return_attention_mask": False,
}


@dataclass(frozen=True)
class InitialModel:
    """A network before its first step; it can be pickled.

    Attributes:
        config: ``config.json`` of the checkpoint to be, with the names of its classes.
        preprocessor: ``preprocessor_config.json``.
        weights: every tensor of the network, float32.
        description: which weights were loaded and which are new, in one line.
    """

    config: Mapping[str, Any]
    preprocessor: Mapping[str, Any]
    weights: Mapping[str, np.ndarray]
    description: str

    @property
    def preprocessing(self) -> Preprocessing:
        """How a waveform becomes ``input_values``."""
        return preprocessing_of(self.preprocessor)

    def files(self) -> dict[str, bytes]:
        """``config.json`` and ``preprocessor_config.json``."""
        contents = {"config.json": self.config, "preprocessor_config.json": self.preprocessor}
        return {name: to_json(content) for name, content in contents.items()}

    def build(self) -> HubertForSpeechClassification:
        """The network on the CPU, in training mode, with its own copy of the weights."""
        model: HubertForSpeechClassification = HubertForSpeechClassification(
            HubertConfig(**self.config)
        )
        model.load_state_dict({name: torch.tensor(array) for name, array in self.weights.items()})
        model.train()
        return model


def initialize_model(
    source: str, revision: str | None, labels: Sequence[str], seed: int
) -> InitialModel:
    """Loads a HuBERT and initializes the weights that it lacks.

    Args:
        source: hub id, folder or URI of a HuBERT, with or without an emotion classifier; or the
            path of a ``config.json``, to train from scratch.
        revision: branch, tag or commit of a hub id.
        labels: the classes to learn, in the order of the logits.
        seed: seed of the new weights.

    Raises:
        CheckpointError: it cannot be read, is not a HuBERT, or its weights do not match the config.
    """
    scratch = source.endswith(".json")
    given, preprocessor, weights, _ = (
        _config_only(source) if scratch else read_files(source, revision)
    )
    config, shapes = _network(source, given, labels)
    if not scratch:
        body = {n: array for n, array in _prefixed(weights).items() if n.startswith(_BODY)}
        _refuse_misfits(source, body, shapes)
    new = _new_weights(source, config, seed)
    if scratch:
        description = f"{source}: all weights are new"
        return InitialModel(_as_dict(config), preprocessor, new, description)
    head = {name: array for name, array in weights.items() if name.startswith(_HEAD)}
    keep = _is_same_head(given, head, labels, shapes)
    merged = new | body | (head if keep else {})
    classifier = "classifier kept" if keep else f"new classifier for {len(labels)} classes"
    description = f"{source}: body kept, {classifier}"
    return InitialModel(_as_dict(config), preprocessor, merged, description)


def _config_only(path: str) -> Files:
    content = read_json(path, Path(os.path.expanduser(path)))
    return Files(content, _PREPROCESSOR, {}, None)


def _network(
    source: str, given: Mapping[str, Any], labels: Sequence[str]
) -> tuple[HubertConfig, dict[str, torch.Tensor]]:
    """The config of the network to be, and its tensors without memory."""
    if given.get("model_type", "hubert") != "hubert":
        problem = f"model_type {given['model_type']!r} cannot be trained (only hubert can)"
        raise CheckpointError(f"{source}: {problem}")
    classes = {
        "architectures": [HubertForSpeechClassification.__name__],
        "num_class": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
    }
    model = empty_network(source, HubertForSpeechClassification, given, classes)
    return cast(HubertConfig, model.config), model.state_dict()


def _new_weights(source: str, config: HubertConfig, seed: int) -> dict[str, np.ndarray]:
    torch.manual_seed(seed)
    try:
        model: nn.Module = HubertForSpeechClassification(config)
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        with torch.no_grad():  # fails if the masks of SpecAugment cannot be drawn
            functional_call(model.train(), buffers, torch.zeros(1, SEGMENT_SAMPLES))
    except Exception as error:  # transformers does not check its settings
        raise config_error(source, error) from None
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def _prefixed(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Adds the prefix that the tensors of a bare ``HubertModel`` lack."""
    bare = not any(name.startswith(_BODY) for name in weights)
    return {_BODY + name: array for name, array in weights.items()} if bare else dict(weights)


def _refuse_misfits(
    source: str, body: Mapping[str, np.ndarray], network: Mapping[str, torch.Tensor]
) -> None:
    expected = {name: tensor for name, tensor in network.items() if name.startswith(_BODY)}
    misfits = [
        name
        for name in expected.keys() | body.keys()
        if name not in body or name not in expected or not is_like(expected[name], body[name])
    ]
    if misfits:
        problem = (
            f"missing, unexpected or with a different shape or type: {first_few(sorted(misfits))}"
        )
        raise CheckpointError(f"{source}: the weights do not match HuBERT ({problem})")


def _is_same_head(
    given: Mapping[str, Any],
    head: Mapping[str, np.ndarray],
    labels: Sequence[str],
    network: Mapping[str, torch.Tensor],
) -> bool:
    expected = {name: tensor for name, tensor in network.items() if name.startswith(_HEAD)}
    if expected.keys() != head.keys():
        return False
    if not all(is_like(tensor, head[name]) for name, tensor in expected.items()):
        return False
    try:
        return class_names(given, len(labels)) == tuple(labels)
    except ValueError:
        return False


def _as_dict(config: HubertConfig) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(config.to_json_string())
    return content
