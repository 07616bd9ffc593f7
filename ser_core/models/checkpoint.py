"""A checkpoint's files → its weights, config and identity; it builds no network.

The driver loads a checkpoint once; Ray's object store then shares it with the processes of a node.
"""

import hashlib
import json
import math
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.torch
import torch

from ser_core.audio.constants import SAMPLING_RATE
from ser_core.emotions import labels_of
from ser_core.errors import CheckpointError, one_line
from ser_core.models.hub import CONFIG_FILES, WEIGHT_FILES, commit_of, fetch
from ser_core.models.preprocessing import Preprocessing, preprocessing_of
from ser_core.settings import Segments

# Keys that transformers rewrites when it saves the same checkpoint; they do not affect the digest.
_IGNORED_BY_DIGEST = ("_name_or_path", "transformers_version", "torch_dtype", "dtype")
# Weight-norm keys before transformers 4.36 → the keys of torch's parametrizations.
_RENAMED_KEYS = {
    "conv.weight_g": "conv.parametrizations.weight.original0",
    "conv.weight_v": "conv.parametrizations.weight.original1",
}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory, ready to be shared between processes.

    Attributes:
        name: the value of ``--model``.
        revision: the commit on the hub, or None.
        config: the content of ``config.json``.
        preprocessing: how waveforms become ``input_values``.
        weights: float32 arrays by name, with the weight-norm keys of current transformers.
        labels: the classes in the order of the logits.
        temperature: divides the logits before the softmax; 1 unless the checkpoint is calibrated.
        digest: identifies the weights, the config and the preprocessing.
    """

    name: str
    revision: str | None
    config: Mapping[str, Any]
    preprocessing: Preprocessing
    weights: Mapping[str, np.ndarray]
    labels: tuple[str, ...]
    temperature: float
    digest: str


class Files(NamedTuple):
    """The content of a checkpoint's files, whether or not they make a classifier."""

    config: dict[str, Any]
    preprocessor: dict[str, Any]
    weights: dict[str, np.ndarray]  # float32, with the weight-norm keys of current transformers
    commit: str | None  # on the hub


def load_checkpoint(
    source: str, revision: str | None = None, segments: Segments = "first"
) -> Checkpoint:
    """Loads a checkpoint from the hub, a local folder or an fsspec URI.

    Raises:
        CheckpointError: it cannot be fetched, a file is missing or unreadable, or its classes
            have no names.
    """
    config, preprocessor, weights, commit = read_files(source, revision)
    preprocessing = preprocessing_of(preprocessor, segments)
    try:
        labels = labels_of(config.get("id2label"), _num_classes(config, weights))
    except ValueError as error:
        problem = f"{error}; name the classes under id2label in config.json"
        raise CheckpointError(f"--model {source}: {problem}") from None
    digest = _digest(config, preprocessing, weights)
    temperature = config.get("temperature", 1.0)
    if not isinstance(temperature, int | float) or not 0 < temperature < math.inf:
        problem = f"config.json: temperature {temperature!r} is not a positive number"
        raise CheckpointError(f"--model {source}: {problem}")
    return Checkpoint(source, commit, config, preprocessing, weights, labels, temperature, digest)


def read_files(source: str, revision: str | None = None) -> Files:
    """Reads a checkpoint's files from the hub, a local folder or an fsspec URI.

    Raises:
        CheckpointError: it cannot be fetched, a file is missing or unreadable, or it expects
            audio at a sampling rate other than 16 kHz.
    """
    with fetch(source, revision) as folder:
        config, preprocessor = (_read_json(source, folder / name) for name in CONFIG_FILES)
        weights = _read_weights(source, folder)
        commit = commit_of(folder)
    rate = preprocessor.get("sampling_rate", SAMPLING_RATE)
    if rate != SAMPLING_RATE:
        raise CheckpointError(f"--model {source}: expects {rate} Hz; only 16 kHz is supported")
    return Files(config, preprocessor, weights, commit)


def _num_classes(config: Mapping[str, Any], weights: Mapping[str, np.ndarray]) -> int:
    for name in ("classifier.out_proj.weight", "classifier.weight"):
        if name in weights:
            return len(weights[name])
    return int(config.get("num_class") or len(config.get("id2label") or ()))


def _digest(
    config: Mapping[str, Any], preprocessing: Preprocessing, weights: Mapping[str, np.ndarray]
) -> str:
    relevant = {key: value for key, value in config.items() if key not in _IGNORED_BY_DIGEST}
    digest = hashlib.sha256(json.dumps([relevant, asdict(preprocessing)], sort_keys=True).encode())
    for name in sorted(weights):
        digest.update(f"{name}{weights[name].shape}".encode())
        digest.update(np.ascontiguousarray(weights[name]).data)
    return digest.hexdigest()[:32]


def _read_json(source: str, path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"--model {source}: {path.name} is missing") from None
    except ValueError as error:
        raise CheckpointError(f"--model {source}: {path.name} is not JSON ({error})") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"--model {source}: {path.name} is not a JSON object")
    return content


def _read_weights(source: str, folder: Path) -> dict[str, np.ndarray]:
    paths = next(filter(None, (sorted(folder.glob(pattern)) for pattern in WEIGHT_FILES)), None)
    if not paths:
        problem = "neither model.safetensors nor pytorch_model.bin was found"
        raise CheckpointError(f"--model {source}: {problem}")
    weights: dict[str, np.ndarray] = {}
    for path in paths:
        for name, tensor in _read_tensors(source, path).items():
            array = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
            weights[_current_name(name)] = array
    return weights


def _current_name(name: str) -> str:
    for old, new in _RENAMED_KEYS.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _read_tensors(source: str, path: Path) -> dict[str, torch.Tensor]:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, about old formats
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        problem = "contains more than weights; code in a pickle is never executed"
        raise CheckpointError(f"--model {source}: {path.name} {problem}") from None
    except Exception as error:  # on arbitrary bytes, the parsers raise what they happen to
        problem = f"is damaged ({type(error).__name__}: {one_line(error)})"
        if "weights_only" in problem:  # torch suggests to allow code
            problem = "is a tar or TorchScript archive, which may contain code; use safetensors"
        raise CheckpointError(f"--model {source}: {path.name} {problem}") from None
    if not isinstance(content, dict) or not all(map(_is_weight, content.items())):
        problem = "is not a table of names and dense tensors"
        raise CheckpointError(f"--model {source}: {path.name} {problem}")
    return content


def _is_weight(item: tuple[object, object]) -> bool:
    name, tensor = item
    if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
        return False
    return tensor.layout is torch.strided and not tensor.is_meta and not tensor.is_quantized
