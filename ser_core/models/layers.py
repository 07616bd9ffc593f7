"""The layers of HuBERT and wav2vec 2.0, for inference, made from a checkpoint's weights."""

import math
from collections.abc import Mapping

import torch
from torch import nn

from ser_core.audio.constants import SEGMENT_SAMPLES
from ser_core.models.architecture import Architecture
from ser_core.models.kernels import (
    Forms,
    FourierConv1d,
    Linear,
    MatrixConv1d,
    activation,
    attention,
    product_by_recording,
)
from ser_core.models.padding import moments_of_6_s

_ALIGNED_COLUMNS = 8  # matrix instructions load rows of 16 bytes
_NORM_EPS = 1e-5  # of the norms for which a config has no setting


class Weights:
    """The weights below a name, in the type and on the device in which a network computes."""

    def __init__(
        self,
        tensors: Mapping[str, torch.Tensor],
        device: torch.device,
        dtype: torch.dtype,
        name: str = "",
    ) -> None:
        """Wraps a checkpoint's tensors."""
        self._tensors = tensors
        self._device = device
        self._dtype = dtype
        self._name = name

    def at(self, name: str) -> "Weights":
        """Those below a further name."""
        return Weights(self._tensors, self._device, self._dtype, f"{self._name}{name}.")

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._tensors[self._name + name].to(self._device, self._dtype)

    def get(self, name: str) -> torch.Tensor | None:
        """A weight, if there is one of this name."""
        return self[name] if self._name + name in self._tensors else None

    @property
    def exact(self) -> "Weights":
        """The same in at least float32, for what is computed once."""
        dtype = torch.promote_types(self._dtype, torch.float32)
        return Weights(self._tensors, self._device, dtype, self._name)


class LayerNorm(nn.Module):
    """A layer norm over the last dimension."""

    def __init__(self, weights: Weights, eps: float = _NORM_EPS) -> None:
        super().__init__()
        self._weight, self._bias, self._eps = weights["weight"], weights["bias"], eps

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Returns the norm of ``inputs``, same shape."""
        size = self._weight.shape
        return nn.functional.layer_norm(inputs, size, self._weight, self._bias, self._eps)


class GroupNormConv1d(nn.Module):
    """Layer 0 of the feature encoder: a convolution, a norm over all of the 6 s, an activation.

    The convolution's bias is left out: the norm would cancel it.
    """

    def __init__(self, weights: Weights, architecture: Architecture, forms: Forms) -> None:
        super().__init__()
        self._act, self._forms = architecture.feat_extract_activation, forms
        self._dtype = weights["conv.weight"].dtype
        self._weight = weights.exact["conv.weight"][:, 0].double()  # (channels, kernel)
        self._scale = weights.exact["layer_norm.weight"].double()
        self._shift = weights.exact["layer_norm.bias"].double()[:, None]
        self._stride = architecture.conv_stride[0]

    def forward(self, input_values: torch.Tensor) -> torch.Tensor:
        """Maps ``(batch, num_samples)`` to ``(batch, frames, channels)``."""
        kernel, stride = self._weight.shape[1], self._stride
        windows = input_values.unfold(1, kernel, stride)  # (batch, num_windows, kernel)
        total = (SEGMENT_SAMPLES - kernel) // stride + 1
        mean, covariance = moments_of_6_s(windows, total)
        variance = ((self._weight @ covariance) * self._weight).sum(dim=2)  # (batch, channels)
        scale = self._scale / torch.sqrt(variance.clamp(min=0) + _NORM_EPS)
        folded = scale[:, :, None] * self._weight
        shift = self._shift - folded @ mean[:, :, None]
        # One product adds the shift, too: as the weight of a column of ones. GPUs need rows of a
        # multiple of eight columns for their fast products.
        columns = math.ceil((kernel + 1) / _ALIGNED_COLUMNS) * _ALIGNED_COLUMNS
        inputs = windows.new_zeros(*windows.shape[:2], columns, dtype=self._dtype)
        inputs[..., :kernel], inputs[..., kernel] = windows, 1
        weights = nn.functional.pad(torch.cat([folded, shift], dim=2), (0, columns - kernel - 1))
        return product_by_recording(inputs, weights.to(self._dtype), self._act, self._forms)


class ConvLayer(nn.Module):
    """A further layer of the feature encoder: a convolution, perhaps a norm, an activation."""

    def __init__(
        self, weights: Weights, architecture: Architecture, stride: int, forms: Forms
    ) -> None:
        super().__init__()
        self._conv = MatrixConv1d(weights["conv.weight"], weights.get("conv.bias"), stride, forms)
        by_channel = architecture.feat_extract_norm == "layer"
        self._norm = LayerNorm(weights.at("layer_norm")) if by_channel else nn.Identity()
        self._activation = activation(architecture.feat_extract_activation)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Maps ``(batch, frames, channels)`` to fewer frames."""
        return self._activation(self._norm(self._conv(features)))


class FeatureEncoder(nn.Module):
    """The convolutions over the waveform."""

    def __init__(self, weights: Weights, architecture: Architecture, forms: Forms) -> None:
        super().__init__()
        self._dtype = weights["conv_layers.0.conv.weight"].dtype
        self._first: nn.Module | None = None
        strides = list(enumerate(architecture.conv_stride))
        if architecture.feat_extract_norm == "group":
            self._first = GroupNormConv1d(weights.at("conv_layers.0"), architecture, forms)
            del strides[0]
        self._layers = nn.Sequential(
            *(
                ConvLayer(weights.at(f"conv_layers.{layer}"), architecture, stride, forms)
                for layer, stride in strides
            )
        )

    def forward(self, input_values: torch.Tensor) -> torch.Tensor:
        """Maps ``(batch, num_samples)`` to ``(batch, frames, channels)``."""
        if self._first is None:
            features = input_values[:, :, None].to(self._dtype)
        else:
            features = self._first(input_values)
        encoded: torch.Tensor = self._layers(features)
        return encoded


class PositionalEmbedding(nn.Module):
    """A convolution over the frames, which tells the transformer their order."""

    def __init__(self, weights: Weights, architecture: Architecture) -> None:
        super().__init__()
        self._scale: torch.Tensor | None = None
        name = "conv.weight"
        if architecture.conv_pos_batch_norm:
            variance = weights.exact["batch_norm.running_var"]
            self._scale = weights.exact["batch_norm.weight"] / torch.sqrt(variance + _NORM_EPS)
            mean = weights.exact["batch_norm.running_mean"]
            self._shift = weights.exact["batch_norm.bias"] - mean * self._scale
            kernel = weights.exact[name]
        else:  # the weight norm is computed once
            magnitude, direction = (
                weights.exact[f"conv.parametrizations.weight.original{n}"] for n in (0, 1)
            )
            norm = torch.linalg.vector_norm(direction, dim=(0, 1), keepdim=True)
            kernel = direction * (magnitude / norm)
        groups = architecture.num_conv_pos_embedding_groups
        self._conv = FourierConv1d(kernel, weights["conv.bias"], groups, architecture.max_frames)
        self._activation = activation(architecture.feat_extract_activation)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Maps ``(batch, frames, hidden_size)`` to the same shape."""
        inputs = hidden_states
        if self._scale is not None:
            inputs = (inputs * self._scale + self._shift).to(hidden_states.dtype)
        # With an even number of taps, the convolution makes one frame more.
        outputs = self._conv(inputs.mT)[..., : hidden_states.shape[1]]
        return self._activation(outputs).mT


class TransformerLayer(nn.Module):
    """Attention and two linear layers, with the norms after them or before them."""

    def __init__(self, weights: Weights, architecture: Architecture, forms: Forms) -> None:
        super().__init__()
        self._heads = architecture.num_attention_heads
        self._norm_first = architecture.do_stable_layer_norm
        self._forms = forms
        eps = architecture.layer_norm_eps
        at = weights.at("attention")
        self.query, self.key, self.value, self.mixed = (
            linear(at.at(name), forms) for name in ("q_proj", "k_proj", "v_proj", "out_proj")
        )
        self.norm = LayerNorm(weights.at("layer_norm"), eps)
        self.wide = linear(
            weights.at("feed_forward.intermediate_dense"), forms, architecture.hidden_act
        )
        self.narrow = linear(weights.at("feed_forward.output_dense"), forms)
        self.final_norm = LayerNorm(weights.at("final_layer_norm"), eps)
        self.adapter: nn.Module | None = None
        if architecture.adapter_size:
            at = weights.at("adapter_layer")
            narrow = linear(at.at("linear_1"), forms, "relu")
            self.adapter = nn.Sequential(
                LayerNorm(at.at("norm")), narrow, linear(at.at("linear_2"), forms)
            )

    def forward(self, hidden_states: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Maps ``(batch, frames, hidden_size)`` to the same shape.

        Args:
            hidden_states: of the layer before.
            bias: added to the attention's logits, shape ``(1 or batch, 1, 1, frames)``.
        """
        if self._norm_first:
            hidden_states = hidden_states + self._attention(self.norm(hidden_states), bias)
            hidden_states = hidden_states + self.narrow(self.wide(self.final_norm(hidden_states)))
            if self.adapter is not None:
                hidden_states = hidden_states + self.adapter(hidden_states)
            return hidden_states
        hidden_states = self.norm(hidden_states + self._attention(hidden_states, bias))
        normed: torch.Tensor = self.final_norm(
            hidden_states + self.narrow(self.wide(hidden_states))
        )
        return normed

    def _attention(self, inputs: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        query, key, value = (
            projection(inputs).unflatten(-1, (self._heads, -1)).transpose(1, 2)
            for projection in (self.query, self.key, self.value)
        )
        outputs = attention(query, key, value, bias, self._forms)
        mixed: torch.Tensor = self.mixed(outputs.transpose(1, 2).flatten(2))
        return mixed


def linear(weights: Weights, forms: Forms, act: str | None = None) -> Linear:
    """A linear layer and the activation after it."""
    return Linear(weights["weight"], weights.get("bias"), act, forms)
