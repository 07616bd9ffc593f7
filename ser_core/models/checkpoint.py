"""A checkpoint's files → its weights, config and identity; it builds no network.

The driver loads it once; Ray's object store then brings it to each node once and shares it there.
"""

import fnmatch
import hashlib
import json
import math
import os
import pickle
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
import numpy as np
import safetensors
import safetensors.torch
import torch
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ser_core.audio.constants import SAMPLING_RATE
from ser_core.emotions import labels_of
from ser_core.errors import CheckpointError
from ser_core.settings import Segments
from ser_core.storage.filesystem import resolve

_CONFIGS = ("config.json", "preprocessor_config.json")
_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")  # the first that exists is read
_VOLATILE = ("_name_or_path", "transformers_version", "torch_dtype", "dtype")  # not identity
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
# The weight-norm keys of transformers before 4.36 → those of torch's parametrizations.
_RENAMED = {
    "conv.weight_g": "conv.parametrizations.weight.original0",
    "conv.weight_v": "conv.parametrizations.weight.original1",
}


@dataclass(frozen=True)
class Preprocessing:
    """From a waveform to ``input_values``, as ``preprocessor_config.json`` says.

    Attributes:
        do_normalize: zero mean and unit variance over the segment.
        return_attention_mask: whether padding is left out of the mean and variance.
        padding_value: what stands where there are no samples.
        segments: what is heard of a recording, its first 6 s or all of it.
    """

    do_normalize: bool
    return_attention_mask: bool
    padding_value: float
    segments: Segments


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory, ready to be shared between processes.

    Attributes:
        name: as the user gave it.
        revision: the commit on the hub, or None.
        config: ``config.json``.
        weights: float32 arrays by name, weight-norm keys in their new form.
        labels: the classes in the order of the logits.
        temperature: what logits are divided by before the softmax; 1 but for calibrated ones.
        digest: identity of the weights, the config and the preprocessing.
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
    """A checkpoint's files as they are, whether or not they make a classifier."""

    config: dict[str, Any]
    preprocessor: dict[str, Any]
    weights: dict[str, np.ndarray]  # float32, weight-norm keys in their new form
    commit: str | None  # on the hub


def load_checkpoint(
    source: str, revision: str | None = None, segments: Segments = "first"
) -> Checkpoint:
    """Loads a checkpoint from the hub, a local folder or any fsspec URI.

    Raises:
        CheckpointError: it cannot be fetched, a file is missing or unreadable, or its classes
            have no names.
    """
    config, preprocessor, weights, commit = read_files(source, revision)
    preprocessing = preprocessing_of(preprocessor, segments)
    try:
        labels = labels_of(config.get("id2label"), _num_classes(config, weights))
    except ValueError as error:
        raise CheckpointError(f"--model {source}: {error}; name them in config.json") from None
    digest = _digest(config, preprocessing, weights)
    temperature = config.get("temperature", 1.0)
    if not isinstance(temperature, int | float) or not 0 < temperature < math.inf:
        words = f"config.json: temperature {temperature!r} is not a positive number"
        raise CheckpointError(f"--model {source}: {words}")
    return Checkpoint(source, commit, config, preprocessing, weights, labels, temperature, digest)


def read_files(source: str, revision: str | None = None) -> Files:
    """Reads a checkpoint's files from the hub, a local folder or any fsspec URI.

    Raises:
        CheckpointError: it cannot be fetched, a file is missing or unreadable, or it is not for
            16 kHz.
    """
    with _fetched(source, revision) as folder:
        config, preprocessor = (_read_json(source, folder / name) for name in _CONFIGS)
        weights = _read_weights(source, folder)
        commit = folder.name if folder.parent.name == "snapshots" else None
    rate = preprocessor.get("sampling_rate", SAMPLING_RATE)
    if rate != SAMPLING_RATE:
        raise CheckpointError(f"--model {source}: it wants {rate} Hz; only 16 kHz is supported")
    return Files(config, preprocessor, weights, commit)


def preprocessing_of(
    preprocessor: Mapping[str, Any], segments: Segments = "first"
) -> Preprocessing:
    """What ``preprocessor_config.json`` says; where it is silent, what the card's says."""
    return Preprocessing(
        do_normalize=preprocessor.get("do_normalize", True),
        return_attention_mask=preprocessor.get("return_attention_mask", False),
        padding_value=preprocessor.get("padding_value", 0.0),
        segments=segments,
    )


def _num_classes(config: Mapping[str, Any], weights: Mapping[str, np.ndarray]) -> int:
    for name in ("classifier.out_proj.weight", "classifier.weight"):
        if name in weights:
            return len(weights[name])
    return int(config.get("num_class") or len(config.get("id2label") or ()))


def _digest(
    config: Mapping[str, Any], preprocessing: Preprocessing, weights: Mapping[str, np.ndarray]
) -> str:
    lasting = {key: value for key, value in config.items() if key not in _VOLATILE}
    digest = hashlib.sha256(json.dumps([lasting, asdict(preprocessing)], sort_keys=True).encode())
    for name in sorted(weights):
        digest.update(f"{name}{weights[name].shape}".encode())
        digest.update(np.ascontiguousarray(weights[name]).data)
    return digest.hexdigest()[:32]


def _read_json(source: str, path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"--model {source}: it has no {path.name}") from None
    except ValueError as error:
        raise CheckpointError(f"--model {source}: {path.name} is not JSON ({error})") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"--model {source}: {path.name} is not a JSON object")
    return content


def _read_weights(source: str, folder: Path) -> dict[str, np.ndarray]:
    files = next(filter(None, (sorted(folder.glob(kind)) for kind in _WEIGHTS)), None)
    if not files:
        words = "neither model.safetensors nor pytorch_model.bin"
        raise CheckpointError(f"--model {source}: it has {words}")
    weights: dict[str, np.ndarray] = {}
    for path in files:
        for name, tensor in _read_tensors(source, path).items():
            array = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
            weights[_current_name(name)] = array
    return weights


def _current_name(name: str) -> str:
    for old, new in _RENAMED.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _read_tensors(source: str, path: Path) -> dict[str, torch.Tensor]:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        tensors: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        return tensors
    except pickle.UnpicklingError:
        words = "holds more than weights, and code from a pickle is never run"
        raise CheckpointError(f"--model {source}: {path.name} {words}") from None
    except (OSError, RuntimeError, EOFError, safetensors.SafetensorError) as error:
        words = str(error).splitlines()[0] if str(error) else "it ends too early"
        raise CheckpointError(f"--model {source}: {path.name} is damaged ({words})") from None


# ---- fetching ------------------------------------------------------------------------------------


@contextmanager
def _fetched(source: str, revision: str | None) -> Iterator[Path]:
    """The local folder that holds the checkpoint's files."""
    local = Path(source.removeprefix("file://")).expanduser()
    if local.is_dir():
        yield local
    elif "://" in source and not source.startswith("file://"):
        with tempfile.TemporaryDirectory() as folder:
            _download(source, folder)
            yield Path(folder)
    elif local.is_absolute() or source.startswith((".", "~")) or not _HUB_ID.fullmatch(source):
        raise CheckpointError(f"--model {source}: there is no such folder")
    else:
        yield _download_from_hub(source, revision)


def _download(source: str, folder: str) -> None:
    fs, root = resolve(source)
    try:
        names = [path.rsplit("/", 1)[-1] for path in fs.ls(root, detail=False)]
        weights = next((kind for kind in _WEIGHTS if fnmatch.filter(names, kind)), "")
        for name in [*set(_CONFIGS) & set(names), *fnmatch.filter(names, weights)]:
            fs.get_file(f"{root}/{name}", os.path.join(folder, name))
    except FileNotFoundError:
        raise CheckpointError(f"--model {source}: there is no such folder") from None
    except Exception as error:  # remote file systems share no base for what they raise
        raise CheckpointError(f"--model {source}: cannot be fetched ({error!r})") from None


def _download_from_hub(repo: str, revision: str | None) -> Path:
    """The snapshot in the hub's cache, fetched or brought up to date where the hub answers."""
    try:
        for weights in _WEIGHTS:
            wanted = [*_CONFIGS, weights]
            folder = Path(
                huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=wanted)
            )
            if list(folder.glob(weights)):
                break
        return folder
    except RevisionNotFoundError:
        raise CheckpointError(f"--revision {revision}: {repo} has no such revision") from None
    except (RepositoryNotFoundError, HFValidationError):
        words = "no such folder here and no such model on the hub (or it needs a token: HF_TOKEN)"
        raise CheckpointError(f"--model {repo}: {words}") from None
    except LocalEntryNotFoundError:
        words = "the hub cannot be reached and the model is not in its cache; give a folder or URI"
        raise CheckpointError(f"--model {repo}: {words}") from None
    except (HfHubHTTPError, OSError) as error:
        words = str(error).strip().splitlines()[0]
        raise CheckpointError(f"--model {repo}: cannot be fetched from the hub ({words})") from None
