"""The same forward pass without computing the padding; it neither pads nor batches."""

import math
from typing import Any, cast

import torch
from torch import nn

from ser_core.audio.constants import SEGMENT_SAMPLES
from ser_core.models.build import SpeechClassifier

# The derivation at `ElidedClassifier` holds for these networks, by `model_type`. Others differ in
# what it relies on: WavLM has relative positions in every layer, data2vec-audio several positional
# convolutions, SEW pools the frames before the transformer.
_ELIDABLE_MODEL_TYPES = frozenset({"hubert", "wav2vec2"})
_ELIDABLE_NORMS = frozenset({"group", "layer"})  # of the feature encoder
_ALIGNED_COLUMNS = 8  # matrix instructions load rows of 16 bytes


def can_elide(model: SpeechClassifier) -> bool:
    """Whether `ElidedClassifier` computes this network's logits.

    It assumes that the network is called without an attention mask.
    """
    config = model.backbone.config
    return (
        config.model_type in _ELIDABLE_MODEL_TYPES
        and config.feat_extract_norm in _ELIDABLE_NORMS
        # The head takes only the last layer's frames, and as many as the transformer's.
        and not getattr(config, "use_weighted_layer_sum", False)
        and not getattr(config, "add_adapter", False)
    )


class ElidedClassifier(nn.Module):
    """A network that computes each distinct frame of its padded input only once.

    The card pads every recording to 6 s, passes no attention mask and pools over the padding, so
    the padding affects the scores and cannot be dropped. But it is constant, and nearly everything
    computed from it is the same vector repeated:

    - *Feature encoder.* All frames that see only padding are equal. For a recording of n samples,
      frame ⌈n / 320⌉ is the first of them; it is computed, the ones after it are not.
    - *Layer 0's group norm* is over time, over all 19,199 frames. The convolution before it is
      linear in its window u of 10 samples, so channel w has the mean w·E[u] and the variance
      wᵀ Cov[u] w; both moments include the windows that are not computed, as copies of the last
      one. Scale and shift are then folded into the convolution's weights, separately for each
      recording: the norm needs no pass over the layer's output, the network's largest activation.
    - *Positional convolution.* Output frame t sees the frames t - 64 … t + 63 of 299. With R frames
      before the padding, the frames from R + 64 up to the last 63 see only padding, so all are
      equal. Running the network on R + 128 frames computes each distinct frame once: frame R + 64
      represents m = 299 - (R + 128) + 1 frames, and the frames on either side of it see exactly
      what they would have seen.
    - *Transformer.* It knows positions only through that convolution, so equal frames stay equal
      in every layer. As a key, frame R + 64 counts m times: the softmax over m equal logits a is
      that of the single logit a + log m. In the mean over the 299 frames it counts m times.

    R may be larger than a recording requires: some of its padding frames are then computed
    individually. That is how recordings of different lengths share a batch.

    Attributes:
        max_frames: the number of frames of 6 s, which the transformer gets at most.
    """

    def __init__(self, model: SpeechClassifier) -> None:
        """Wraps a network and shares its weights.

        Args:
            model: a network for which `can_elide` is true.
        """
        super().__init__()
        self.model = model
        self.backbone = model.backbone
        self.config = model.backbone.config
        self.max_frames = self._num_frames(SEGMENT_SAMPLES)
        strides: list[int] = self.config.conv_stride
        self._stride = math.prod(strides)
        self._receptive_field = 1 + sum(
            (kernel - 1) * math.prod(strides[:layer])
            for layer, kernel in enumerate(self.config.conv_kernel)
        )

    def required_samples(self, length: int, frames_per_step: int = 1) -> int:
        """How many samples of its padded input the network needs for a recording.

        Args:
            length: the number of samples of the recording.
            frames_per_step: rounds up to a multiple, so that few distinct lengths occur.

        Returns:
            The samples up to the end of the first frame that sees only padding, or the whole 6 s.
        """
        frames = math.ceil(length / self._stride / frames_per_step) * frames_per_step
        required: int = frames * self._stride + self._receptive_field
        return min(required, SEGMENT_SAMPLES)

    def forward(self, input_values: torch.Tensor) -> torch.Tensor:
        """Maps ``input_values``, as `pooled` takes them, to logits ``(batch, num_labels)``."""
        return self.head(self.pooled(input_values))

    @property
    def embedding_size(self) -> int:
        """The size of what `pooled` returns."""
        return self.model.embedding_size

    def head(self, pooled: torch.Tensor) -> torch.Tensor:
        """Maps the mean over the frames to logits."""
        return self.model.head(pooled)

    def pooled(self, input_values: torch.Tensor) -> torch.Tensor:
        """The mean over the frames of the padded input.

        Args:
            input_values: float32, shape ``(batch, num_samples)`` with the `required_samples` of
                the longest recording; the rest of the 6 s would repeat each row's last value.

        Returns:
            Shape ``(batch, hidden_size)``; float32 also if the network is in bf16.
        """
        features = self._extract_features(input_values)
        hidden_states = _hidden_states(self.backbone.feature_projection(features.transpose(1, 2)))
        padding_start = hidden_states.shape[1] - 1
        kernel: int = self.config.num_conv_pos_embeddings
        num_frames = min(padding_start + kernel, self.max_frames)
        padding = hidden_states[:, -1:].expand(-1, num_frames - padding_start - 1, -1)
        hidden_states = torch.cat([hidden_states, padding], dim=1)
        # The number of frames that each frame represents, exact also if the network is in bf16.
        dtype = torch.promote_types(hidden_states.dtype, torch.float32)
        multiplicity = torch.ones(num_frames, dtype=dtype, device=hidden_states.device)
        if num_frames < self.max_frames:
            multiplicity[padding_start + kernel // 2] = 1 + self.max_frames - num_frames
        hidden_states = self._encode(hidden_states, multiplicity)
        pooled: torch.Tensor = multiplicity @ hidden_states.to(dtype) / self.max_frames
        return pooled

    def _extract_features(self, input_values: torch.Tensor) -> torch.Tensor:
        """Runs the feature encoder; returns shape ``(batch, conv_dim, num_frames)``."""
        first, *rest = self.backbone.feature_extractor.conv_layers
        if self.config.feat_extract_norm == "group":
            features = self._first_layer_with_group_norm(first, input_values)
        else:
            features = first(input_values[:, None].to(first.conv.weight.dtype))
        for layer in rest:
            features = layer(features)
        return features

    def _first_layer_with_group_norm(self, layer: Any, input_values: torch.Tensor) -> torch.Tensor:
        """Convolution, norm over all of the 6 s, activation.

        The convolution's bias is left out: the norm would cancel it.
        """
        (kernel,), (stride,) = layer.conv.kernel_size, layer.conv.stride
        windows = input_values.unfold(1, kernel, stride)  # (batch, num_windows, kernel)
        mean, covariance = _moments(windows, total=(SEGMENT_SAMPLES - kernel) // stride + 1)
        norm, weight = layer.layer_norm, layer.conv.weight[:, 0].double()  # (channels, kernel)
        variance = ((weight @ covariance) * weight).sum(dim=2)  # (batch, channels)
        scale = norm.weight.double() / torch.sqrt(variance.clamp(min=0) + norm.eps)
        folded = scale[:, :, None] * weight
        shift = norm.bias.double()[:, None] - folded @ mean[:, :, None]
        # One product adds the shift, too: as the weight of a column of ones. GPUs need rows of a
        # multiple of eight columns for their fast products.
        columns = math.ceil((kernel + 1) / _ALIGNED_COLUMNS) * _ALIGNED_COLUMNS
        dtype = layer.conv.weight.dtype
        inputs = windows.new_zeros(*windows.shape[:2], columns, dtype=dtype)
        inputs[..., :kernel], inputs[..., kernel] = windows, 1
        weights = nn.functional.pad(torch.cat([folded, shift], dim=2), (0, columns - kernel - 1))
        # The channels of a frame are contiguous, as matrix products and layer norms prefer them.
        outputs = torch.bmm(inputs, weights.to(dtype).mT)
        activated: torch.Tensor = layer.activation(outputs)
        return activated.transpose(1, 2)

    def _encode(self, hidden_states: torch.Tensor, multiplicity: torch.Tensor) -> torch.Tensor:
        """Runs the transformer, weighting each frame by its multiplicity."""
        encoder, norm_first = self.backbone.encoder, self.config.do_stable_layer_norm
        bias = None
        if len(multiplicity) < self.max_frames:
            bias = multiplicity.log().to(hidden_states.dtype)[None, None, None]
        hidden_states = hidden_states + encoder.pos_conv_embed(hidden_states)
        if not norm_first:
            hidden_states = encoder.layer_norm(hidden_states)
        for layer in encoder.layers:
            hidden_states = _hidden_states(layer(hidden_states, attention_mask=bias))
        if norm_first:
            hidden_states = encoder.layer_norm(hidden_states)
        return hidden_states

    def _num_frames(self, num_samples: int) -> int:
        length = num_samples
        for kernel, stride in zip(self.config.conv_kernel, self.config.conv_stride, strict=True):
            length = (length - kernel) // stride + 1
        return length


def _moments(windows: torch.Tensor, total: int) -> tuple[torch.Tensor, torch.Tensor]:
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


def _hidden_states(output: Any) -> torch.Tensor:
    """A module's hidden states, which some modules of transformers return as part of a tuple."""
    return cast(torch.Tensor, output[0] if isinstance(output, tuple) else output)
