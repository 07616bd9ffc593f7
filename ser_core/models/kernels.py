"""Operations of the network in faster forms; it knows neither audio nor scores.

Matrix products run near a device's peak, in float32 on a CPU if the library suits the core. The
slower operations are replaced by them: the convolutions and, on CPUs below float32 without matrix
instructions (AMX), the attention.
"""

import math
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface

from ser_core.models.build import SpeechClassifier

_ATTENTION = "ser_matrix_products"  # its name among the attention functions of transformers
_FFT_MULTIPLE = 128  # a multiple of it has no large prime factors, so its transform is fast
_ONEDNN_ROWS = 512  # rows per oneDNN product: the copies made for it stay in the cache


def use_fast_kernels(model: SpeechClassifier, max_frames: int) -> None:
    """Replaces operations of a network by faster ones; results differ only by rounding.

    Args:
        model: with its weights loaded, on the device and in the precision in which it computes.
        max_frames: the largest number of frames that the transformer gets.
    """
    embedding = model.backbone.encoder.pos_conv_embed
    weight = embedding.conv.weight
    on_cpu = weight.device.type == "cpu"
    use_onednn = on_cpu and weight.dtype == torch.float32 and onednn_is_faster_in_float32()
    embedding.conv = FourierConv1d(embedding.conv, max_frames)
    for layer in model.backbone.feature_extractor.conv_layers[1:]:  # the first has one channel
        layer.conv = MatrixConv1d(layer.conv, use_onednn, whole_batch=not on_cpu)
    if use_onednn:
        for name, layer in list(model.backbone.named_modules()):
            if type(layer) is nn.Linear:
                model.backbone.set_submodule(name, OneDnnLinear(layer))
    if on_cpu and weight.dtype.itemsize < torch.float32.itemsize and not has_matrix_instructions():
        AttentionInterface.register(_ATTENTION, attention)
        model.backbone.set_attn_implementation(_ATTENTION)


def has_matrix_instructions() -> bool:
    """Whether this CPU has instructions for products of bfloat16 matrices (AMX)."""
    return bool(torch.cpu.get_capabilities().get("amx_bf16"))


def onednn_is_faster_in_float32() -> bool:
    """Whether oneDNN multiplies float32 matrices faster than MKL, which torch uses by default.

    MKL uses 512-bit instructions on Intel's CPUs and only 256-bit instructions on others.
    """
    capabilities = torch.cpu.get_capabilities()
    has_avx512 = torch.backends.mkldnn.is_available() and bool(capabilities.get("avx512_f"))
    return has_avx512 and "Intel" not in str(capabilities.get("cpu_name"))


class OneDnnLinear(nn.Module):
    """A float32 linear layer computed by oneDNN, whose tensors have a layout of their own."""

    def __init__(self, linear: nn.Linear) -> None:
        """Shares the weights of a linear layer."""
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Returns the linear layer's outputs, shape ``(…, out_features)``."""
        return _onednn_product(inputs, self.weight, self.bias)


class MatrixConv1d(nn.Module):
    """A convolution over time as matrix products, without copying its inputs into windows.

    If the channels of a frame are contiguous in memory, the first ``stride`` frames of a window
    are one row of a matrix, and the rows of all windows do not overlap. Each further tap is one
    more product, on every ``stride``-th frame.
    """

    def __init__(
        self, conv: nn.Conv1d, use_onednn: bool = False, whole_batch: bool = False
    ) -> None:
        """Reorders the weights of a convolution once.

        Args:
            conv: without padding, groups and dilation; its kernel is at least as long as its
                stride.
            use_onednn: compute the products with oneDNN; they must be in float32 then.
            whole_batch: compute one product for the whole batch, as suits a GPU, rather than one
                for each recording, whose frames stay in a core's cache.
        """
        super().__init__()
        (self._kernel_size,), (self._stride,) = conv.kernel_size, conv.stride
        by_tap = conv.weight.detach().permute(2, 1, 0)  # (taps, channels in, channels out)
        self._first_taps = by_tap[: self._stride].flatten(0, 1).contiguous()
        self._further_taps = by_tap[self._stride :].contiguous()
        self._bias = conv.bias
        self._products = self._products_of_batch if whole_batch else self._products_by_recording
        self._add_product = _add_onednn_product if use_onednn else _add_product

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Returns the convolution's outputs, shape ``(batch, channels, frames)``.

        The channels of each frame are contiguous in memory.
        """
        count = (inputs.shape[-1] - self._kernel_size) // self._stride + 1
        outputs = self._products(inputs.mT, count)
        if self._bias is not None:
            outputs += self._bias
        return outputs.mT

    def _products_of_batch(self, frames: torch.Tensor, count: int) -> torch.Tensor:
        batch = len(frames)
        rows = frames[:, : count * self._stride].unflatten(1, (count, self._stride)).flatten(2)
        outputs = torch.bmm(rows, self._first_taps.expand(batch, -1, -1))
        for tap, weight in enumerate(self._further_taps, start=self._stride):
            rows = frames[:, tap :: self._stride][:, :count]
            outputs.baddbmm_(rows, weight.expand(batch, -1, -1))
        return outputs

    def _products_by_recording(self, batch: torch.Tensor, count: int) -> torch.Tensor:
        outputs = batch.new_zeros(len(batch), count, self._first_taps.shape[1])
        for frames, sums in zip(batch, outputs, strict=True):
            rows = frames[: count * self._stride].reshape(count, -1)
            self._add_product(sums, rows, self._first_taps)
            for tap, weight in enumerate(self._further_taps, start=self._stride):
                self._add_product(sums, frames[tap :: self._stride][:count], weight)
        return outputs


class FourierConv1d(nn.Module):
    """A convolution over time as products of discrete Fourier transforms, one per frequency.

    By the convolution theorem, correlating with a kernel multiplies the input's transform by the
    conjugate of the kernel's. The transforms are as long as the input and the padding of one side
    together, so that what wraps around falls on zeros. For HuBERT's 128 taps this is a twentieth
    of the arithmetic. On a GPU in bf16, cuDNN's own kernel takes
    30 ms for 128 windows, and this 1.7 ms (gpu-forms.json).
    """

    def __init__(self, conv: nn.Conv1d, max_frames: int) -> None:
        """Transforms the kernels of a convolution once.

        Args:
            conv: with stride and dilation 1, padded with zeros on both sides.
            max_frames: the largest number of frames of its inputs.
        """
        super().__init__()
        self._bias = conv.bias
        self._groups = conv.groups
        self._padding = int(conv.padding[0])
        # The difference between the number of output and input frames.
        self._extra_frames = 2 * self._padding - conv.kernel_size[0] + 1
        length = max_frames + self._padding
        self._length = math.ceil(length / _FFT_MULTIPLE) * _FFT_MULTIPLE
        kernels = torch.fft.rfft(_at_least_float32(conv.weight), self._length).conj()
        by_group = kernels.unflatten(0, (self._groups, -1))  # (groups, out, in, frequencies)
        self._kernels = by_group.permute(3, 0, 2, 1).flatten(0, 1).resolve_conj().contiguous()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Returns the convolution's outputs, shape ``(batch, channels, frames)``, same dtype."""
        num_frames = inputs.shape[-1]
        spectra = torch.fft.rfft(_at_least_float32(inputs), self._length)
        by_group = spectra.unflatten(1, (self._groups, -1))
        # (batch, groups, channels, frequencies) → one matrix product per frequency and group
        products = by_group.permute(3, 1, 0, 2).flatten(0, 1) @ self._kernels
        by_group = products.unflatten(0, (-1, self._groups)).permute(2, 1, 3, 0)
        outputs: torch.Tensor = torch.fft.irfft(by_group.flatten(1, 2), self._length)
        outputs = outputs.roll(self._padding, -1)[..., : num_frames + self._extra_frames]
        if self._bias is not None:
            outputs = outputs + self._bias[:, None]
        return outputs.to(inputs.dtype)


def attention(  # noqa: PLR0913, PLR0917 (the interface of transformers)
    module: nn.Module,  # noqa: ARG001
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention with the interface of transformers.

    The softmax is in float32: torch's is slow in lower precision.

    Args:
        module: the layer.
        query: shape ``(batch, heads, frames, channels)``, like key and value.
        key: the keys.
        value: the values.
        attention_mask: added to the logits, shape ``(1, 1, 1, frames)``.
        scaling: multiplies the logits.

    Returns:
        Shape ``(batch, frames, heads, channels)``, and no weights.
    """
    queries, keys, values = (tensor.flatten(0, 1) for tensor in (query, key, value))
    mask = query.new_zeros(1) if attention_mask is None else attention_mask[0]
    logits = torch.baddbmm(mask, queries, keys.mT, alpha=scaling)
    weights = torch.softmax(logits, dim=-1, dtype=torch.float32).to(value.dtype)
    return (weights @ values).unflatten(0, query.shape[:2]).transpose(1, 2), None


def _add_product(sums: torch.Tensor, rows: torch.Tensor, weight: torch.Tensor) -> None:
    torch.addmm(sums, rows, weight, out=sums)


def _add_onednn_product(sums: torch.Tensor, rows: torch.Tensor, weight: torch.Tensor) -> None:
    for sums_part, rows_part in zip(
        sums.split(_ONEDNN_ROWS), rows.split(_ONEDNN_ROWS), strict=True
    ):
        sums_part.add_(_onednn_product(rows_part, weight.mT, None))


def _onednn_product(
    inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    products: torch.Tensor = nn.functional.linear(inputs.to_mkldnn(), weight, bias)
    return products.to_dense()


def _at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
