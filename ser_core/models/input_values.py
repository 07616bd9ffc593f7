"""Waveforms → ``input_values``, as ``Wav2Vec2FeatureExtractor`` computes them.

Inference and training both use it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from ser_core.audio.constants import FULL_SCALE, SEGMENT_SAMPLES
from ser_core.models.preprocessing import Preprocessing

_VARIANCE_FLOOR = 1e-7  # Wav2Vec2FeatureExtractor.zero_mean_unit_var_norm


class Stacked(NamedTuple):
    """Segments in one tensor, not yet normalized.

    Attributes:
        values: int16 or float32, shape ``(num_segments, num_samples)``, padded with zeros.
        lengths: int64, shape ``(num_segments,)``, without the padding.
    """

    values: torch.Tensor
    lengths: torch.Tensor

    def part(self, start: int, end: int) -> "Stacked":
        """The segments from ``start`` to ``end``."""
        return Stacked(self.values[start:end], self.lengths[start:end])


def pad_and_normalize(
    segments: Sequence[np.ndarray],
    preprocessing: Preprocessing,
    device: torch.device,
    num_samples: int = SEGMENT_SAMPLES,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Computes ``input_values`` and lengths: `stack`, then `normalize`."""
    pinned = device.type == "cuda"
    return normalize(stack(segments, num_samples, pinned), preprocessing, device)


def stack(segments: Sequence[np.ndarray], num_samples: int, pinned: bool = False) -> Stacked:
    """Copies segments into one tensor on the CPU.

    If all of them are int16, so is the tensor, which halves a transfer.

    Args:
        segments: mono, float32 or int16, each of shape ``(length,)`` with at most 96,000 samples.
        num_samples: that each gets; at least the longest segment's length.
        pinned: in memory from which a transfer to a GPU overlaps with its computation.
    """
    all_int16 = all(segment.dtype == np.int16 for segment in segments)
    dtype = torch.int16 if all_int16 else torch.float32
    values = torch.empty((len(segments), num_samples), dtype=dtype, pin_memory=pinned)
    for row, segment in zip(values.numpy(), segments, strict=True):
        convert = segment.dtype == np.int16 and not all_int16
        row[: len(segment)] = segment / FULL_SCALE if convert else segment
        row[len(segment) :] = 0
    lengths = torch.tensor([len(segment) for segment in segments], pin_memory=pinned)
    return Stacked(values, lengths)


def normalize(
    stacked: Stacked, preprocessing: Preprocessing, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Computes ``input_values`` as ``Wav2Vec2FeatureExtractor`` does.

    Segments are padded to 6 s first and normalized afterwards. Without an attention mask the
    padding therefore counts in the mean and the variance, and its normalized value is −mean/std.

    Args:
        stacked: the segments, with the first of the 96,000 samples that each is padded to.
        preprocessing: the checkpoint's settings.
        device: where the tensors are normalized and returned.

    Returns:
        ``input_values``, float32, of the shape of ``stacked.values``; and the lengths, int64: an
        attention mask is 1 for so many samples of each segment.
    """
    padding = preprocessing.padding_value
    values = stacked.values.to(device, non_blocking=True)
    lengths = stacked.lengths.to(device, non_blocking=True)
    values = values / FULL_SCALE if values.dtype == torch.int16 else values
    num_samples = values.shape[1]
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
    return values, lengths
