"""What training starts from: a hub id, a folder or a config.json → config and weights, complete.

It draws what is not there and says so; it knows no corpus and trains nothing.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import HubertConfig

from ser_core.emotions import labels_of
from ser_core.errors import CheckpointError
from ser_core.models.checkpoint import Files, Preprocessing, preprocessing_of, read_files
from ser_core.models.hubert import HubertForSpeechClassification

_BODY, _HEAD = "hubert.", "classifier."
_CLASSIFIER_DROPOUT = 0.1  # the card's
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
class Start:
    """A network before its first step, in a form that goes from process to process.

    Attributes:
        config: ``config.json`` of what is trained, its classes named.
        preprocessor: ``preprocessor_config.json``, as the start has it.
        weights: float32, every tensor of the network.
        words: what was taken over and what was drawn, in a sentence.
    """

    config: Mapping[str, Any]
    preprocessor: Mapping[str, Any]
    weights: Mapping[str, np.ndarray]
    words: str

    @property
    def preprocessing(self) -> Preprocessing:
        """From a waveform to ``input_values``."""
        return preprocessing_of(self.preprocessor)

    def network(self) -> HubertForSpeechClassification:
        """The network on the CPU, in training mode, with a copy of the weights."""
        model: HubertForSpeechClassification = HubertForSpeechClassification(
            HubertConfig(**self.config)
        )
        model.load_state_dict({name: torch.tensor(array) for name, array in self.weights.items()})
        model.train()
        return model


def start_from(source: str, revision: str | None, labels: Sequence[str], seed: int) -> Start:
    """Reads a start and draws what it lacks.

    Args:
        source: hub id, folder or URI of a HuBERT, with or without an emotion classifier; or the
            path of a ``config.json``, to start from scratch.
        revision: branch, tag or commit of a hub id.
        labels: the classes to learn, in the order of the logits.
        seed: of what is drawn.

    Raises:
        CheckpointError: it cannot be read, is no HuBERT, or its weights do not fill the body.
    """
    scratch = source.endswith(".json")
    files = _config_alone(source) if scratch else read_files(source, revision)
    given, preprocessor, weights, _ = files
    config = _with_classes(source, given, labels)
    torch.manual_seed(seed)
    drawn = HubertForSpeechClassification(config).state_dict()
    if scratch:
        words = f"{source}: from scratch, every weight drawn"
        return Start(_as_dict(config), preprocessor, _as_arrays(drawn), words)
    body = {name: array for name, array in _prefixed(weights).items() if name.startswith(_BODY)}
    _refuse_another_body(source, body, drawn)
    head = {name: array for name, array in weights.items() if name.startswith(_HEAD)}
    kept = _same_head(given, head, labels, drawn)
    filled = _as_arrays(drawn) | body | (head if kept else {})
    left = "its classifier kept" if kept else f"a classifier for {len(labels)} classes drawn"
    return Start(_as_dict(config), preprocessor, filled, f"{source}: its body kept, {left}")


def _config_alone(path: str) -> Files:
    try:
        content = json.loads(Path(path).expanduser().read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"--model {path}: cannot be read as JSON ({error})") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"--model {path}: not a JSON object")
    return Files(content, _PREPROCESSOR, {}, None)


def _with_classes(source: str, given: Mapping[str, Any], labels: Sequence[str]) -> HubertConfig:
    if given.get("model_type", "hubert") != "hubert":
        words = f"model_type {given['model_type']!r} cannot be trained here (hubert can)"
        raise CheckpointError(f"--model {source}: {words}")
    ours = {
        "architectures": [HubertForSpeechClassification.__name__],
        "num_class": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
    }
    dropout = {"classifier_dropout": given.get("classifier_dropout", _CLASSIFIER_DROPOUT)}
    lasting = {name: value for name, value in given.items() if name != "temperature"}
    try:
        return HubertConfig(**lasting | dropout | ours)
    except (TypeError, ValueError) as error:
        words = str(error).splitlines()[0]
        raise CheckpointError(f"--model {source}: config.json: {words}") from None


def _prefixed(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A ``HubertModel`` by itself names its tensors without the prefix."""
    bare = not any(name.startswith(_BODY) for name in weights)
    return {_BODY + name: array for name, array in weights.items()} if bare else dict(weights)


def _refuse_another_body(
    source: str, body: Mapping[str, np.ndarray], drawn: Mapping[str, torch.Tensor]
) -> None:
    wanted = {n: tuple(tensor.shape) for n, tensor in drawn.items() if n.startswith(_BODY)}
    misfits = sorted(
        name
        for name in wanted.keys() | body.keys()
        if name not in body or wanted.get(name) != body[name].shape
    )
    if misfits:
        words = f"missing, unexpected or of another shape: {', '.join(misfits[:4])}"
        more = f" and {len(misfits) - 4} more" if len(misfits) > 4 else ""
        raise CheckpointError(f"--model {source}: its weights do not fill HuBERT ({words}{more})")


def _same_head(
    given: Mapping[str, Any],
    head: Mapping[str, np.ndarray],
    labels: Sequence[str],
    drawn: Mapping[str, torch.Tensor],
) -> bool:
    shapes = {n: tuple(tensor.shape) for n, tensor in drawn.items() if n.startswith(_HEAD)}
    if {name: array.shape for name, array in head.items()} != shapes:
        return False
    try:
        return labels_of(given.get("id2label"), len(labels)) == tuple(labels)
    except ValueError:
        return False


def _as_dict(config: HubertConfig) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(config.to_json_string())
    return content


def _as_arrays(tensors: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in tensors.items()}
