"""The same forward pass without computing the padding; it neither pads nor batches.

The card pads every recording to 6 s, passes no attention mask and pools over the padding, so the
padding counts and cannot be left out. But it is one constant, and nearly everything computed from
it is the same vector again and again:

- *Feature encoder.* A frame that sees only padding is the same vector for every such frame. With
  n samples heard, frame ⌈n / 320⌉ is the first one; it is computed, the frames after it are not.
- *Layer 0's group norm* is over time, over all 19,199 frames. The convolution before it is linear
  in its window u of 10 samples, so channel w has the mean w·E[u] and the variance wᵀ Cov[u] w;
  both moments take the windows that are not computed into account, as copies of the last one.
  Scale and shift then fold into weights of the recording's own: the norm needs no pass over the
  layer's output, the largest activation of the network.
- *Positional convolution.* Output frame t sees the frames t - 64 … t + 63 of 299. With R frames
  before the padding, those from R + 64 up to the last 63 see padding and nothing else, so all are
  equal. The network run on R + 128 frames computes each distinct frame once: frame R + 64 stands
  for m = 299 - (R + 128) + 1 frames, and on either side of it each frame sees just what it would
  have seen.
- *Transformer.* It knows positions only by that convolution, so equal frames stay equal in every
  layer. As a key, frame R + 64 weighs m times: softmax over m equal logits a is one logit
  a + log m. In the mean over the 299 frames it counts m times.

R may be larger than a recording needs: then some of its padding frames are computed one by one.
That is how recordings of different lengths share a batch.
"""

import math
from typing import Any, cast

import torch
from torch import nn

from ser_core.audio.constants import SEGMENT_SAMPLES
from ser_core.models.hubert import SpeechClassifier


def can_elide(model: SpeechClassifier) -> bool:
    """Whether a network that is given no attention mask is of the form that is derived here."""
    return not getattr(model.backbone.config, "use_weighted_layer_sum", False)


class ElidedClassifier(nn.Module):
    """A network of the family that computes each distinct frame of its padded input once.

    Attributes:
        most_frames: that the transformer gets, as of 6 s.
    """

    def __init__(self, model: SpeechClassifier) -> None:
        """Wraps a network and shares its weights.

        Args:
            model: one that `can_elide`.
        """
        super().__init__()
        self.model = model
        self.backbone = model.backbone
        self.config = model.backbone.config
        self.most_frames = self._after_convolutions(SEGMENT_SAMPLES)
        strides: list[int] = self.config.conv_stride
        self._stride = math.prod(strides)
        self._receptive_field = 1 + sum(
            (kernel - 1) * math.prod(strides[:layer])
            for layer, kernel in enumerate(self.config.conv_kernel)
        )

    def samples_for(self, heard: int, frames_per_step: int = 1) -> int:
        """How much of its padded input the network needs for a recording.

        Args:
            heard: samples of the recording.
            frames_per_step: rounds up, so that few different lengths occur.

        Returns:
            Samples: up to the first frame of padding alone, or the whole 6 s.
        """
        frames = math.ceil(heard / self._stride / frames_per_step) * frames_per_step
        needed: int = frames * self._stride + self._receptive_field
        return min(needed, SEGMENT_SAMPLES)

    def forward(self, input_values: torch.Tensor) -> torch.Tensor:
        """Logits as of the padded input.

        Args:
            input_values: float32, shape ``(batch, num_samples)``, as many as `samples_for` says
                for the longest recording; the rest of the 6 s would repeat each row's last value.

        Returns:
            Shape ``(batch, num_labels)``.
        """
        features = self._extract(input_values)
        hidden_states = _first(self.backbone.feature_projection(features.transpose(1, 2)))
        padding_at = hidden_states.shape[1] - 1
        kernel: int = self.config.num_conv_pos_embeddings
        num_frames = min(padding_at + kernel, self.most_frames)
        padding = hidden_states[:, -1:].expand(-1, num_frames - padding_at - 1, -1)
        hidden_states = torch.cat([hidden_states, padding], dim=1)
        # How many frames each stands for, counted exactly also where the network is in bf16.
        precise = torch.promote_types(hidden_states.dtype, torch.float32)
        stands_for = torch.ones(num_frames, dtype=precise, device=hidden_states.device)
        if num_frames < self.most_frames:
            stands_for[padding_at + kernel // 2] = 1 + self.most_frames - num_frames
        hidden_states = self._encode(hidden_states, stands_for)
        pooled = stands_for @ hidden_states.to(precise) / self.most_frames
        return self.model.head(pooled.to(hidden_states.dtype))

    def _extract(self, input_values: torch.Tensor) -> torch.Tensor:
        """Frames of the feature encoder, shape ``(batch, conv_dim, num_frames)``."""
        first, *rest = self.backbone.feature_extractor.conv_layers
        if self.config.feat_extract_norm == "group":
            features = self._first_with_group_norm(first, input_values)
        else:
            features = first(input_values[:, None].to(first.conv.weight.dtype))
        for layer in rest:
            features = layer(features)
        return features

    def _first_with_group_norm(self, layer: Any, input_values: torch.Tensor) -> torch.Tensor:
        """Convolution, norm over all of the 6 s, activation; a bias would cancel in the norm."""
        (kernel,), (stride,) = layer.conv.kernel_size, layer.conv.stride
        windows = input_values.unfold(1, kernel, stride)  # (batch, num_windows, kernel)
        total = (SEGMENT_SAMPLES - kernel) // stride + 1
        mean, covariance = _moments(windows, total)
        norm, weight = layer.layer_norm, layer.conv.weight[:, 0].double()  # (channels, kernel)
        variance = ((weight @ covariance) * weight).sum(dim=2)  # (batch, channels)
        scale = norm.weight.double() / torch.sqrt(variance.clamp(min=0) + norm.eps)
        folded = scale[:, :, None] * weight
        shift = norm.bias.double()[:, None] - folded @ mean[:, :, None]
        dtype = layer.conv.weight.dtype
        # A frame's channels side by side, as matrix products and layer norms want them.
        outputs = torch.baddbmm(shift.to(dtype).mT, windows.to(dtype), folded.to(dtype).mT)
        activated: torch.Tensor = layer.activation(outputs)
        return activated.transpose(1, 2)

    def _encode(self, hidden_states: torch.Tensor, stands_for: torch.Tensor) -> torch.Tensor:
        """The transformer, each frame weighing as many times as it stands for."""
        encoder, norm_comes_first = self.backbone.encoder, self.config.do_stable_layer_norm
        bias = stands_for.log().to(hidden_states.dtype)[None, None, None]
        hidden_states = hidden_states + encoder.pos_conv_embed(hidden_states)
        if not norm_comes_first:
            hidden_states = encoder.layer_norm(hidden_states)
        for layer in encoder.layers:
            hidden_states = _first(layer(hidden_states, attention_mask=bias))
        if norm_comes_first:
            hidden_states = encoder.layer_norm(hidden_states)
        return hidden_states

    def _after_convolutions(self, length: int) -> int:
        for kernel, stride in zip(self.config.conv_kernel, self.config.conv_stride, strict=True):
            length = (length - kernel) // stride + 1
        return length


def _moments(windows: torch.Tensor, total: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and covariance over time, in float64: the variance is a small difference of large sums.

    Args:
        windows: shape ``(batch, num_windows, kernel)``; the last one stands for all that lack.
        total: how many windows there are in 6 s.

    Returns:
        Shapes ``(batch, kernel)`` and ``(batch, kernel, kernel)``.
    """
    windows = windows.double()
    last, lacking = windows[:, -1], total - windows.shape[1]
    mean = (windows.sum(dim=1) + lacking * last) / total
    squares = windows.mT @ windows + lacking * last[:, :, None] * last[:, None]
    return mean, squares / total - mean[:, :, None] * mean[:, None]


def _first(output: Any) -> torch.Tensor:
    """A module's hidden states, where transformers gives them alone or with others."""
    return cast(torch.Tensor, output[0] if isinstance(output, tuple) else output)
