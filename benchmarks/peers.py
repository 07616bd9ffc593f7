"""What else runs the card's network, set up as a user would: for comparison only.

`python -m pip install '.[peers]'` brings what labelling does not need.
"""

import copy
import io
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForAudioClassification, pipeline

from ser_core.models.card import DURATION, SAMPLE_RATE, Card

Work = Callable[[list[np.ndarray]], np.ndarray]


def on_cpus(card: Card, threads: int) -> dict[str, Work]:
    """OpenVINO and ONNX Runtime, where they are installed: functions from waveforms to scores.

    Each gets one recording at a time, padded to 6 s by the card's feature extractor.

    Args:
        card: in float32 on the CPU.
        threads: that each may use.
    """
    found: dict[str, Work] = {}
    example = torch.zeros(1, DURATION * SAMPLE_RATE)
    if find_spec("openvino"):
        compiled = _openvino(card.model, example, threads)
        found |= {name: _one_by_one(card, forward) for name, forward in compiled.items()}
    if find_spec("onnxruntime") and find_spec("onnxscript"):
        forward = _onnx_runtime(card.model, example, threads)
        found["ONNX-Runtime fp32"] = _one_by_one(card, forward)
    return found


def in_pipeline(card: Card, dtype: torch.dtype, batch_size: int) -> Work:
    """`transformers.pipeline`, which knows only transformers' own heads and pads nothing to 6 s.

    So its network has the card's sizes with other weights, and its scores are not the card's.
    """
    network: Any = AutoModelForAudioClassification
    config = copy.deepcopy(card.model.config)
    config.num_labels = len(card.labels)
    model = network.from_config(config, dtype=dtype)
    classify: Any = pipeline(
        "audio-classification", model=model, feature_extractor=card.processor,
        device=card.model.device, batch_size=batch_size, top_k=None,
    )  # fmt: skip

    def scores(speeches: list[np.ndarray]) -> np.ndarray:
        return np.array([[each["score"] for each in found] for found in classify(speeches)])

    return scores


def _openvino(
    model: nn.Module, example: torch.Tensor, threads: int
) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    import openvino

    converted = openvino.convert_model(model, example_input=example, input=list(example.shape))
    settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}

    def compiled(precision: str) -> Callable[[np.ndarray], np.ndarray]:
        hint = {"INFERENCE_PRECISION_HINT": precision}
        network = openvino.Core().compile_model(converted, "CPU", settings | hint)
        return lambda values: np.asarray(network([values])[0])

    return {"OpenVINO fp32": compiled("f32"), "OpenVINO bf16": compiled("bf16")}


def _onnx_runtime(
    model: nn.Module, example: torch.Tensor, threads: int
) -> Callable[[np.ndarray], np.ndarray]:
    import onnxruntime

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program: Any = torch.onnx.export(model, (example,), dynamo=True, verbose=False)
    content = io.BytesIO()
    program.save(content)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(content.getvalue(), options)
    name = session.get_inputs()[0].name
    return lambda values: np.asarray(session.run(None, {name: values})[0])


def _one_by_one(card: Card, forward: Callable[[np.ndarray], np.ndarray]) -> Work:
    def scores(speeches: list[np.ndarray]) -> np.ndarray:
        logits = [forward(card.inputs([speech]).input_values.numpy())[0] for speech in speeches]
        return torch.softmax(torch.from_numpy(np.stack(logits)), dim=1).numpy()

    return scores
