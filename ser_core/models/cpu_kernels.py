"""Faster forms, on CPUs, of some of the network's operations; it knows neither audio nor scores.

Matrix products run near a core's peak, in float32 if the library suits the core. What does not is
replaced: the convolutions, and attention in less than float32 on cores without matrix instructions
(AMX).
"""

import math
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface

from ser_core.models.hubert import SpeechClassifier

_ATTENTION = "ser_matrix_products"  # its name among transformers' attention functions
_QUICKLY_TRANSFORMED = 128  # lengths that are multiples of it have no large prime factors
_ROWS_AT_ONCE = 512  # of a long product by oneDNN: what is copied for it stays in the cache


def use_cpu_kernels(model: SpeechClassifier, most_frames: int) -> None:
    """Puts the faster forms in the place of a network's own; results differ by rounding alone.

    Args:
        model: with its weights in place and in the precision it computes in.
        most_frames: how many the transformer gets at most.
    """
    embedding = model.backbone.encoder.pos_conv_embed
    dtype = embedding.conv.weight.dtype
    by_onednn = dtype == torch.float32 and onednn_is_faster_in_float32()
    embedding.conv = FourierConv1d(embedding.conv, most_frames)
    for layer in model.backbone.feature_extractor.conv_layers[1:]:  # the first has one channel
        layer.conv = MatrixConv1d(layer.conv, by_onednn)
    if by_onednn:
        for name, layer in list(model.backbone.named_modules()):
            if type(layer) is nn.Linear:
                model.backbone.set_submodule(name, OneDnnLinear(layer))
    if dtype.itemsize < torch.float32.itemsize and not has_matrix_instructions():
        AttentionInterface.register(_ATTENTION, attention)
        model.backbone.set_attn_implementation(_ATTENTION)


def has_matrix_instructions() -> bool:
    """Whether this CPU multiplies matrices of bfloat16 by instructions of their own (AMX)."""
    return bool(torch.cpu.get_capabilities().get("amx_bf16"))


def onednn_is_faster_in_float32() -> bool:
    """Whether this CPU multiplies float32 faster by oneDNN than by MKL, which torch calls.

    MKL uses the 512-bit instructions of Intel's CPUs and only the 256-bit ones of others.
    """
    has = torch.cpu.get_capabilities()
    wide = torch.backends.mkldnn.is_available() and bool(has.get("avx512_f"))
    return wide and "Intel" not in str(has.get("cpu_name"))


class OneDnnLinear(nn.Module):
    """A linear layer in float32 by oneDNN, which gets and gives tensors of a layout of its own."""

    def __init__(self, linear: nn.Linear) -> None:
        """Shares the weights of a linear layer."""
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """The linear layer's outputs; shape ``(…, out_features)``."""
        return _onednn_product(inputs, self.weight, self.bias)


class MatrixConv1d(nn.Module):
    """A convolution over time as matrix products, without copying its inputs into windows.

    With the channels of a frame side by side in memory, the first ``stride`` frames of a window
    are one row of a matrix, and the rows of all windows do not overlap; each tap beyond them is
    one more product, on every ``stride``-th frame.
    """

    def __init__(self, conv: nn.Conv1d, by_onednn: bool = False) -> None:
        """Reorders the weights of a convolution, once.

        Args:
            conv: without padding, groups and dilation; its kernel is at least as long as its
                stride.
            by_onednn: whether its products, of float32 then, are oneDNN's.
        """
        super().__init__()
        (self._kernel_size,), (self._stride,) = conv.kernel_size, conv.stride
        by_tap = conv.weight.detach().permute(2, 1, 0)  # (taps, channels in, channels out)
        self._first = by_tap[: self._stride].flatten(0, 1).contiguous()
        self._beyond = by_tap[self._stride :].contiguous()
        self._bias = conv.bias
        self._add_product = _add_onednn_product if by_onednn else _add_product

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """The convolution's outputs; shape ``(batch, channels, frames)``, each frame contiguous."""
        count = (inputs.shape[-1] - self._kernel_size) // self._stride + 1
        outputs = inputs.new_zeros(len(inputs), count, self._first.shape[1])
        for frames, sums in zip(inputs.mT, outputs, strict=True):
            heads = frames[: count * self._stride].reshape(count, -1)
            self._add_product(sums, heads, self._first)
            for tap, weight in enumerate(self._beyond, start=self._stride):
                self._add_product(sums, frames[tap :: self._stride][:count], weight)
        if self._bias is not None:
            outputs += self._bias
        return outputs.mT


class FourierConv1d(nn.Module):
    """A convolution over time as products of discrete Fourier transforms, one a frequency.

    By the convolution theorem: correlating with a kernel multiplies the input's transform by the
    conjugate of the kernel's. Both are as long as input and padding on one side together, so that
    what wraps around falls on zeros. For HuBERT's 128 taps that is a twentieth of the arithmetic.
    """

    def __init__(self, conv: nn.Conv1d, most_frames: int) -> None:
        """Transforms the kernels of a convolution, once.

        Args:
            conv: of stride and dilation 1, padded with zeros on both sides.
            most_frames: of its inputs.
        """
        super().__init__()
        self._bias = conv.bias
        self._groups = conv.groups
        self._padding = int(conv.padding[0])
        # From an input's frames to its output's.
        self._change = 2 * self._padding - conv.kernel_size[0] + 1
        length = most_frames + self._padding
        self._length = math.ceil(length / _QUICKLY_TRANSFORMED) * _QUICKLY_TRANSFORMED
        kernels = torch.fft.rfft(_precise(conv.weight), self._length).conj()
        by_group = kernels.unflatten(0, (self._groups, -1))  # (groups, out, in, frequencies)
        self._kernels = by_group.permute(3, 0, 2, 1).flatten(0, 1).resolve_conj().contiguous()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """The convolution's outputs; shape ``(batch, channels, frames)``, precision as given."""
        num_frames = inputs.shape[-1]
        spectra = torch.fft.rfft(_precise(inputs), self._length).unflatten(1, (self._groups, -1))
        # (batch, groups, channels, frequencies) → a matrix product for each frequency and group
        products = spectra.permute(3, 1, 0, 2).flatten(0, 1) @ self._kernels
        by_group = products.unflatten(0, (-1, self._groups)).permute(2, 1, 3, 0)
        outputs: torch.Tensor = torch.fft.irfft(by_group.flatten(1, 2), self._length)
        outputs = outputs.roll(self._padding, -1)[..., : num_frames + self._change]
        if self._bias is not None:
            outputs = outputs + self._bias[:, None]
        return outputs.to(inputs.dtype)


def attention(  # noqa: PLR0913, PLR0917 (transformers' interface)
    module: nn.Module,  # noqa: ARG001
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as transformers calls it; the softmax, which torch is slow at below, in float32.

    Args:
        module: the layer.
        query: shape ``(batch, heads, frames, channels)``, and so are key and value.
        key: what it is compared with.
        value: what is added up.
        attention_mask: added to the logits, shape ``(1, 1, 1, frames)``.
        scaling: of the logits.

    Returns:
        Shape ``(batch, frames, heads, channels)``, and no weights.
    """
    queries, keys, values = (tensor.flatten(0, 1) for tensor in (query, key, value))
    logits = torch.baddbmm(attention_mask[0], queries, keys.mT, alpha=scaling)
    weights = torch.softmax(logits, dim=-1, dtype=torch.float32).to(value.dtype)
    return (weights @ values).unflatten(0, query.shape[:2]).transpose(1, 2), None


def _add_product(sums: torch.Tensor, rows: torch.Tensor, weight: torch.Tensor) -> None:
    torch.addmm(sums, rows, weight, out=sums)


def _add_onednn_product(sums: torch.Tensor, rows: torch.Tensor, weight: torch.Tensor) -> None:
    pieces = zip(sums.split(_ROWS_AT_ONCE), rows.split(_ROWS_AT_ONCE), strict=True)
    for some_sums, some_rows in pieces:
        some_sums.add_(_onednn_product(some_rows, weight.mT, None))


def _onednn_product(
    inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    products: torch.Tensor = nn.functional.linear(inputs.to_mkldnn(), weight, bias)
    return products.to_dense()


def _precise(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
