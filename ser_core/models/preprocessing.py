"""Waveforms → ``input_values``, as ``Wav2Vec2FeatureExtractor`` computes them.

Inference and training both use it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ser_core.audio.constants import FULL_SCALE, SAMPLING_RATE, SEGMENT_SAMPLES
from ser_core.settings import Segments

_VARIANCE_FLOOR = 1e-7  # Wav2Vec2FeatureExtractor.zero_mean_unit_var_norm


@dataclass(frozen=True)
class Preprocessing:
    """The settings in ``preprocessor_config.json``, and which segments are used.

    The field names are part of a checkpoint's digest.

    Attributes:
        do_normalize: normalize each segment to zero mean and unit variance.
        return_attention_mask: exclude the padding from the mean and the variance.
        padding_value: the value of the padding, before normalization.
        segments: which part of a recording is classified: its first 6 s or all of it.
    """

    do_normalize: bool
    return_attention_mask: bool
    padding_value: float
    segments: Segments


def preprocessing_of(
    preprocessor: Mapping[str, Any], segments: Segments = "first"
) -> Preprocessing:
    """Reads the settings from ``preprocessor_config.json``; the defaults are the model card's.

    Raises:
        ValueError: a setting is not usable.
    """
    rate = preprocessor.get("sampling_rate", SAMPLING_RATE)
    if rate != SAMPLING_RATE:
        raise ValueError(f"expects {rate!r} Hz; only 16 kHz is supported")
    normalize = preprocessor.get("do_normalize", True)
    masked = preprocessor.get("return_attention_mask", False)
    padding = preprocessor.get("padding_value", 0.0)
    if not isinstance(normalize, bool) or not isinstance(masked, bool):
        raise ValueError("do_normalize and return_attention_mask must be true or false")
    if type(padding) not in (int, float) or not -1 <= padding <= 1:
        raise ValueError("padding_value must be a number from -1 to 1, as samples are")
    return Preprocessing(normalize, masked, padding, segments)


def pad_and_normalize(
    segments: Sequence[np.ndarray],
    preprocessing: Preprocessing,
    device: torch.device,
    num_samples: int = SEGMENT_SAMPLES,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Computes ``input_values`` and ``attention_mask`` as ``Wav2Vec2FeatureExtractor`` does.

    Segments are padded to 6 s first and normalized afterwards. Without an attention mask the
    padding therefore counts in the mean and the variance, and its normalized value is −mean/std.

    Args:
        segments: mono, float32 or int16, each of shape ``(length,)`` with at most 96,000 samples.
        preprocessing: the checkpoint's settings.
        device: where the tensors are normalized and returned.
        num_samples: how many of the 96,000 samples to return; at least the longest segment's
            length.

    Returns:
        float32 and int64 tensors of shape ``(len(segments), num_samples)``.
    """
    padding = preprocessing.padding_value
    values, lengths = _stack(segments, num_samples, device)
    mask = torch.arange(num_samples, device=device) < lengths[:, None]
    values = torch.where(mask, values, padding)
    if preprocessing.do_normalize:
        masked = preprocessing.return_attention_mask
        counted = mask if masked else torch.ones_like(mask)
        omitted = 0 if masked else SEGMENT_SAMPLES - num_samples  # padding that counts as well
        count = counted.sum(dim=1, keepdim=True) + omitted
        mean = ((values * counted).sum(dim=1, keepdim=True) + omitted * padding) / count
        centered = values - mean
        squares = (centered.square() * counted).sum(dim=1, keepdim=True)
        variance = (squares + omitted * (padding - mean).square()) / count
        values = centered / torch.sqrt(variance + _VARIANCE_FLOOR)
        if masked:
            values = torch.where(mask, values, padding)
    return values, mask.long()


def _stack(
    segments: Sequence[np.ndarray], num_samples: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Moves segments to the device as one zero-padded float32 tensor, with their lengths.

    If all segments are int16, they are transferred as int16 and converted on the device. Pinned
    memory lets a transfer to a GPU overlap with its computation.
    """
    on_gpu, all_int16 = device.type == "cuda", all(s.dtype == np.int16 for s in segments)
    dtype = torch.int16 if all_int16 else torch.float32
    stacked = torch.zeros((len(segments), num_samples), dtype=dtype, pin_memory=on_gpu)
    for row, segment in zip(stacked.numpy(), segments, strict=True):
        convert = segment.dtype == np.int16 and not all_int16
        row[: len(segment)] = segment / FULL_SCALE if convert else segment
    values = stacked.to(device, non_blocking=True).float()
    lengths = torch.tensor([len(segment) for segment in segments], pin_memory=on_gpu)
    lengths = lengths.to(device, non_blocking=True)
    return values / FULL_SCALE if all_int16 else values, lengths
