"""Which frames of a padded recording are distinct, and how often each occurs; it runs no network.

The card pads every recording to 6 s, passes no attention mask and pools over the padding, so the
padding affects the scores and cannot be dropped. But it is constant, and nearly everything computed
from it is the same vector repeated:

- *Feature encoder.* All frames that see only padding are equal. For a recording of n samples, frame
  ⌈n / 320⌉ is the first of them; it is computed, the ones after it are not.
- *Layer 0's group norm* is over time, over all 19,199 frames. The convolution before it is linear
  in its window u of 10 samples, so channel w has the mean w·E[u] and the variance wᵀ Cov[u] w; both
  moments include the windows that are not computed, as copies of the last one. Scale and shift are
  then folded into the convolution's weights, separately for each recording: the norm needs no pass
  over the layer's output, the network's largest activation.
- *Positional convolution.* Output frame t sees the frames t - 64 … t + 63 of 299. With R frames
  before the padding, the frames from R + 64 up to the last 63 see only padding, so all are equal.
  Running the network on R + 128 frames computes each distinct frame once: frame R + 64 represents
  m = 299 - (R + 128) + 1 frames, and the frames on either side of it see exactly what they would
  have seen.
- *Transformer.* It knows positions only through that convolution, so equal frames stay equal in
  every layer. As a key, frame R + 64 counts m times: the softmax over m equal logits a is that of
  the single logit a + log m. In the mean over the 299 frames it counts m times.

R may be larger than a recording requires: some of its padding frames are then computed
individually. That is how recordings of different lengths share a batch.

With an attention mask, as networks with layer norms are used, frames of padding are zero before the
positional convolution, which then sees what it would see at the end of its input; they count
neither as keys nor in the mean. So they are weighted with 0 rather than m, and left out:
unless a batch norm precedes that convolution, which makes something else of zeros.
"""

import math

import torch

from ser_core.audio.constants import SEGMENT_SAMPLES
from ser_core.models.architecture import Architecture


def required_samples(
    architecture: Architecture, length: int, frames_per_step: int = 1, masked: bool = False
) -> int:
    """How many samples of its padded input a network needs for a recording.

    Args:
        architecture: of the network.
        length: the number of samples of the recording.
        frames_per_step: rounds up to a multiple, so that few distinct lengths occur.
        masked: whether the network gets an attention mask.

    Returns:
        The samples up to the end of the first frame that sees only padding, or the whole 6 s.
    """
    if masked and (architecture.conv_pos_batch_norm or architecture.num_frames(length) < 1):
        return SEGMENT_SAMPLES
    frames = math.ceil(length / architecture.stride / frames_per_step) * frames_per_step
    return min(frames * architecture.stride + architecture.receptive_field, SEGMENT_SAMPLES)


def with_distinct_frames(
    hidden_states: torch.Tensor, architecture: Architecture
) -> tuple[torch.Tensor, torch.Tensor]:
    """Repeats the last frame as far as the positional convolution can tell its copies apart.

    Args:
        hidden_states: of the frames before the padding and one frame of it, shape
            ``(batch, num_frames, hidden_size)``.
        architecture: of the network.

    Returns:
        The hidden states, and how many frames each represents, shape ``(1, num_frames)``.
    """
    padding_start = hidden_states.shape[1] - 1
    taps, max_frames = architecture.num_conv_pos_embeddings, architecture.max_frames
    num_frames = min(padding_start + taps, max_frames)
    padding = hidden_states[:, -1:].expand(-1, num_frames - padding_start - 1, -1)
    weights = _ones(hidden_states, num_frames)
    if num_frames < max_frames:
        weights[:, padding_start + taps // 2] = 1 + max_frames - num_frames
    return torch.cat([hidden_states, padding], dim=1), weights


def without_masked_frames(
    hidden_states: torch.Tensor, lengths: torch.Tensor, architecture: Architecture
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sets frames of padding to zero, as transformers does for an attention mask.

    Args:
        hidden_states: shape ``(batch, num_frames, hidden_size)``.
        lengths: the samples of each recording.
        architecture: of the network.

    Returns:
        The hidden states, and 1 or 0 for each frame, shape ``(batch, num_frames)``.
    """
    # Less than a frame counts from the end, as the index of an array does in Python.
    last = torch.remainder(architecture.num_frames(lengths) - 1, architecture.max_frames)
    weights = _ones(hidden_states, hidden_states.shape[1])
    positions = torch.arange(hidden_states.shape[1], device=hidden_states.device)
    weights = weights * (positions <= last[:, None])
    return hidden_states * weights[:, :, None].to(hidden_states.dtype), weights


def _ones(hidden_states: torch.Tensor, num_frames: int) -> torch.Tensor:
    """At least float32, in which numbers of frames are exact."""
    dtype = torch.promote_types(hidden_states.dtype, torch.float32)
    return torch.ones(1, num_frames, dtype=dtype, device=hidden_states.device)


def moments_of_6_s(windows: torch.Tensor, total: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and covariance over time, in float64: the variance is a small difference of large sums.

    Args:
        windows: shape ``(batch, num_windows, kernel)``; the windows up to ``total`` are copies of
            the last one.
        total: the number of windows in 6 s.

    Returns:
        Shapes ``(batch, kernel)`` and ``(batch, kernel, kernel)``.
    """
    windows = windows.double()
    last, omitted = windows[:, -1], total - windows.shape[1]
    mean = (windows.sum(dim=1) + omitted * last) / total
    squares = windows.mT @ windows + omitted * last[:, :, None] * last[:, None]
    return mean, squares / total - mean[:, :, None] * mean[:, None]
