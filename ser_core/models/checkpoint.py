"""A checkpoint's files → its weights, config and identity; it builds no network.

The driver loads a checkpoint once; Ray's object store then shares it with the processes of a node.
"""

import hashlib
import json
import os
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import safetensors

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
_UNKNOWN_TO_NUMPY = "BF16"
# The types of a file that has such tensors, as numpy spells them.
_NUMPY_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2"}
_NUMPY_TYPES |= {"I8": "i1", "U8": "u1", "U16": "<u2", "U32": "<u4", "U64": "<u8", "BOOL": "?"}
_MAX_DEPTH = 20  # of config.json; that of a HuBERT has 2 levels


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory, ready to be shared between processes.

    Attributes:
        name: the hub id, folder or URI, as it was given.
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
    source: str | os.PathLike[str], revision: str | None = None, segments: Segments = "first"
) -> Checkpoint:
    """Loads a checkpoint from the Hugging Face Hub, a local folder or an fsspec URI.

    The weights are in memory then, as float32; `Classifier` makes a network of them. Nothing in a
    checkpoint is executed.

    Args:
        source: an id on the hub, as in ``"xmj2002/hubert-base-ch-speech-emotion-recognition"``; a
            folder with ``config.json`` and the weights; or a URI, as in ``"s3://bucket/model"``.
        revision: a branch, tag or commit on the hub; ignored for other sources.
        segments: the part of a recording that will be labelled. It is in the digest, which
            `ser_core.label` computes again if it is asked for another part.

    Raises:
        CheckpointError: it cannot be fetched, a file is missing or unreadable, or its classes
            have no names.
        RunError: the hub or the storage cannot be reached.

    >>> checkpoint = load_checkpoint("examples/checkpoint")
    >>> checkpoint.labels
    ('angry', 'fear', 'happy', 'neutral', 'sad', 'surprise')
    >>> sum(array.size for array in checkpoint.weights.values())  # parameters
    102582
    """
    source = os.fspath(source)
    config, preprocessor, weights, commit = read_files(source, revision)
    preprocessing = preprocessing_of(preprocessor, segments)
    try:
        labels = class_names(config, _num_classes(config, weights))
    except ValueError as error:
        problem = f"{error}; name the classes under id2label in config.json"
        raise CheckpointError(f"{source}: {problem}") from None
    digest = _digest(config, preprocessing, weights)
    temperature = config.get("temperature", 1.0)
    if not isinstance(temperature, int | float) or not 1e-6 < temperature < 1e6:
        problem = "config.json: temperature is not a number from 1e-6 to 1e6"
        raise CheckpointError(f"{source}: {problem}")
    return Checkpoint(source, commit, config, preprocessing, weights, labels, temperature, digest)


def for_segments(checkpoint: Checkpoint, segments: Segments) -> Checkpoint:
    """The checkpoint as `load_checkpoint` loads it for these segments."""
    if segments == checkpoint.preprocessing.segments:
        return checkpoint
    preprocessing = replace(checkpoint.preprocessing, segments=segments)
    digest = _digest(checkpoint.config, preprocessing, checkpoint.weights)
    return replace(checkpoint, preprocessing=preprocessing, digest=digest)


def read_files(source: str, revision: str | None = None) -> Files:
    """Reads a checkpoint's files from the hub, a local folder or an fsspec URI.

    Raises:
        CheckpointError: it cannot be fetched, a file is missing or unreadable, or its
            preprocessing is not supported, as of audio at a sampling rate other than 16 kHz.
    """
    with fetch(source, revision) as folder:
        config, preprocessor = (read_json(source, folder / name) for name in CONFIG_FILES)
        weights = _read_weights(source, folder)
        commit = commit_of(folder)
    try:
        preprocessing_of(preprocessor)
    except ValueError as error:
        problem = f"preprocessor_config.json: {error}"
        raise CheckpointError(f"{source}: {problem}") from None
    return Files(config, preprocessor, weights, commit)


def class_names(config: Mapping[str, Any], num_classes: int) -> tuple[str, ...]:
    """The classes that a ``config.json`` names, in the order of the logits.

    Raises:
        ValueError: ``id2label`` is not one distinct, printable name for each class.
    """
    id2label = config.get("id2label") or {}
    if not isinstance(id2label, dict) or not all(map(_is_name, id2label.values())):
        raise ValueError("id2label does not map the numbers of classes to their names")
    return labels_of(id2label, num_classes)


def _is_name(value: object) -> bool:
    """Whether a value can name a class or a tensor; Parquet takes no lone surrogates."""
    return isinstance(value, str) and value != "" and value.isprintable()


def _num_classes(config: Mapping[str, Any], weights: Mapping[str, np.ndarray]) -> int:
    for name in ("classifier.out_proj.weight", "classifier.weight"):
        if name in weights and weights[name].ndim:
            return len(weights[name])
    num_class = config.get("num_class")
    return num_class if isinstance(num_class, int) else len(config.get("id2label") or ())


def _digest(
    config: Mapping[str, Any], preprocessing: Preprocessing, weights: Mapping[str, np.ndarray]
) -> str:
    relevant = {key: value for key, value in config.items() if key not in _IGNORED_BY_DIGEST}
    digest = hashlib.sha256(json.dumps([relevant, asdict(preprocessing)], sort_keys=True).encode())
    for name in sorted(weights):
        digest.update(f"{name}{weights[name].shape}".encode())
        digest.update(np.ascontiguousarray(weights[name]).data)
    return digest.hexdigest()[:32]


def read_json(source: str, path: Path) -> dict[str, Any]:
    """Reads ``config.json`` or its like.

    Raises:
        CheckpointError: it is missing, unreadable, or not a JSON object of a few levels.
    """
    content: object = None
    try:
        content = json.loads(path.read_bytes())
        problem = "" if isinstance(content, dict) else "is not a JSON object"
        if _depth(content) > _MAX_DEPTH:
            raise RecursionError
    except FileNotFoundError:
        problem = "is missing"
    except OSError as error:
        problem = f"cannot be read ({one_line(error.strerror or error)})"
    except ValueError as error:
        problem = f"is not JSON ({one_line(error)})"
    except RecursionError:
        problem = "is nested too deeply"
    if problem:
        raise CheckpointError(f"{source}: {path.name} {problem}")
    return cast(dict[str, Any], content)


def _depth(value: object) -> int:
    """How deeply lists and objects are nested."""
    if not isinstance(value, dict | list):
        return 0
    children = value.values() if isinstance(value, dict) else value
    return 1 + max(map(_depth, children), default=0)


def _read_weights(source: str, folder: Path) -> dict[str, np.ndarray]:
    paths = next(filter(None, (sorted(folder.glob(pattern)) for pattern in WEIGHT_FILES)), None)
    if not paths:
        problem = "neither model.safetensors nor pytorch_model.bin was found"
        raise CheckpointError(f"{source}: {problem}")
    return {name: array for path in paths for name, array in _read_arrays(source, path).items()}


def _current_name(name: str) -> str:
    for old, new in _RENAMED_KEYS.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _read_arrays(source: str, path: Path) -> dict[str, np.ndarray]:
    try:
        arrays = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
        if arrays is not None and all(map(_is_name, arrays)):
            return {_current_name(name): array for name, array in arrays.items()}
        problem = "is not a table of names and dense tensors"
    except pickle.UnpicklingError:
        problem = "contains more than weights; code in a pickle is never executed"
    except Exception as error:  # on arbitrary bytes, the parsers raise what they happen to
        problem = f"is damaged ({type(error).__name__}: {one_line(error)})"
        if "weights_only" in problem:  # torch suggests to allow code
            problem = "is a tar or TorchScript archive, which may contain code; use safetensors"
    raise CheckpointError(f"{source}: {path.name} {problem}")


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Reads safetensors without torch, whose import takes seconds."""
    with safetensors.safe_open(path, "numpy") as file:
        names = list(file.keys())
        if not any(file.get_slice(name).get_dtype() == _UNKNOWN_TO_NUMPY for name in names):
            return {name: _as_float32(file.get_tensor(name)) for name in names}
    return {
        name: _decoded(tensor["dtype"], tensor["data"]).reshape(tensor["shape"])
        for name, tensor in safetensors.deserialize(path.read_bytes())
    }


def _decoded(kind: str, content: bytes) -> np.ndarray:
    if kind == _UNKNOWN_TO_NUMPY:  # the upper half of a float32
        return (np.frombuffer(content, "<u2").astype("<u4") << 16).view("<f4")
    return _as_float32(np.frombuffer(content, _NUMPY_TYPES[kind]))


def _as_float32(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array


def _read_pickle(path: Path) -> dict[str, np.ndarray] | None:
    """Reads what torch saved; None if it is no table of weights."""
    import torch  # only here: it takes seconds

    def is_weight(tensor: object) -> bool:
        if not isinstance(tensor, torch.Tensor) or tensor.is_meta or tensor.is_quantized:
            return False
        # With strides of 0, a file of a few bytes may hold a tensor larger than the memory.
        return (
            tensor.layout is torch.strided
            and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
        )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about old formats
        content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, dict) or not all(map(is_weight, content.values())):
        return None
    return {
        name: (tensor.float() if tensor.is_floating_point() else tensor).detach().numpy()
        for name, tensor in content.items()
    }
