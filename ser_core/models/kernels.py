"""Operations of the network in the forms that suit a device; it knows neither audio nor scores.

Most of the arithmetic is in matrix products, which run near a device's peak. The other operations
are replaced by them: the convolutions and, on CPUs below float32 without matrix instructions (AMX),
the attention. On a CPU, oneDNN multiplies, with weights in a layout of its own, and applies the
activation to what it has just computed.
"""

import math
import platform
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

_FFT_MULTIPLE = 128  # a multiple of it has no large prime factors, so its transform is fast
_CACHED_ROWS = 512  # of a product with one recording's weights: its outputs stay in the cache
_EXPECTED_ROWS = 256  # of a product: for these, oneDNN chooses its layout of the weights
_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu": nn.functional.gelu,
    "gelu_new": lambda inputs: nn.functional.gelu(inputs, approximate="tanh"),
    "gelu_pytorch_tanh": lambda inputs: nn.functional.gelu(inputs, approximate="tanh"),
    "relu": nn.functional.relu,
    "silu": nn.functional.silu,
    "swish": nn.functional.silu,
    "tanh": torch.tanh,
}
# Activations that oneDNN applies itself, and the variant of each.
_FUSED = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}


def activation(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """An activation by its name in a config; those of `network_config.py` are known."""
    return _ACTIVATIONS[name]


@dataclass(frozen=True)
class Forms:
    """In which forms a device computes; the defaults suit a GPU, and are right everywhere.

    Attributes:
        onednn: products by oneDNN, on a CPU.
        fused_first_layer: layer 0 of the feature encoder by oneDNN, on a CPU.
        by_recording: convolve one recording at a time, whose frames stay in a core's cache, rather
            than the whole batch.
        attention_products: attention as products, with its softmax in float32.
    """

    onednn: bool = False
    fused_first_layer: bool = False
    by_recording: bool = False
    attention_products: bool = False


def choose_forms(device: torch.device, dtype: torch.dtype) -> Forms:
    """The forms that were measured to be fastest on a kind of device."""
    if device.type != "cpu":
        return Forms()
    has_onednn = onednn_multiplies(dtype)
    low = dtype.itemsize < torch.float32.itemsize
    return Forms(
        onednn=has_onednn and (low or onednn_is_faster_in_float32()),
        fused_first_layer=has_onednn,
        by_recording=True,
        attention_products=low and not has_matrix_instructions(),
    )


def has_matrix_instructions() -> bool:
    """Whether this CPU has instructions for products of bfloat16 matrices (AMX)."""
    return bool(torch.cpu.get_capabilities().get("amx_bf16"))


def onednn_multiplies(dtype: torch.dtype) -> bool:
    """Whether oneDNN takes matrices of a type here, with weights in a layout of its own.

    Only x86 was tried.
    """
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    if not torch.backends.mkldnn.is_available() or not x86:
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


def onednn_is_faster_in_float32() -> bool:
    """Whether oneDNN multiplies float32 matrices faster than MKL, which torch uses by default.

    MKL uses 512-bit instructions on Intel's CPUs and only 256-bit instructions on others.
    """
    capabilities = torch.cpu.get_capabilities()
    has_avx512 = torch.backends.mkldnn.is_available() and bool(capabilities.get("avx512_f"))
    return has_avx512 and "Intel" not in str(capabilities.get("cpu_name"))


class Linear(nn.Module):
    """A linear layer and the activation after it."""

    def __init__(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
        act: str | None = None,
        forms: Forms = Forms(),
    ) -> None:
        """Shares the weight, or copies it into oneDNN's layout.

        Args:
            weight: shape ``(out_features, in_features)``.
            bias: shape ``(out_features,)``.
            act: the activation's name; None for none.
            forms: of the network.
        """
        super().__init__()
        self._act = act
        self._onednn = forms.onednn
        self._weight = _packed(weight, _EXPECTED_ROWS) if forms.onednn else weight
        self._bias = bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Returns the layer's outputs, shape ``(…, out_features)``."""
        if self._onednn:
            return _onednn_product(inputs, self._weight, self._bias, self._act)
        outputs = nn.functional.linear(inputs, self._weight, self._bias)
        return activation(self._act)(outputs) if self._act else outputs

    def added_to(self, sums: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """Returns sums with the outputs for inputs added; without bias and activation."""
        if self._onednn:
            added: torch.Tensor = torch.ops.mkldnn._linear_pointwise.binary(
                inputs, sums, self._weight, None, "add"
            )
            return added
        return torch.baddbmm(sums, inputs, self._weight.mT.expand(len(inputs), -1, -1))


class MatrixConv1d(nn.Module):
    """A convolution over time as matrix products, without copying its inputs into windows.

    If the channels of a frame are contiguous in memory, the first ``stride`` frames of a window
    are one row of a matrix, and the rows of all windows do not overlap. Each further tap is one
    more product, on every ``stride``-th frame.
    """

    def __init__(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        stride: int,
        forms: Forms = Forms(),
    ) -> None:
        """Reorders the weights of a convolution once.

        Args:
            weight: shape ``(channels out, channels in, taps)``, with at least ``stride`` taps.
            bias: shape ``(channels out,)``.
            stride: frames from one window to the next.
            forms: of the network.
        """
        super().__init__()
        self._stride, self._kernel_size = stride, weight.shape[2]
        by_tap = weight.permute(0, 2, 1)  # (channels out, taps, channels in)
        self._first_taps = Linear(by_tap[:, :stride].flatten(1), None, None, forms)
        further = by_tap[:, stride:].unbind(1)
        self._further_taps = nn.ModuleList(
            Linear(tap.contiguous(), None, None, forms) for tap in further
        )
        self._bias = bias
        self._by_recording = forms.by_recording

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Maps ``(batch, frames, channels in)`` to ``(batch, frames, channels out)``."""
        count = (inputs.shape[1] - self._kernel_size) // self._stride + 1
        if self._by_recording and len(inputs) > 1:
            outputs = torch.stack([self._products(frames[None], count)[0] for frames in inputs])
        else:
            outputs = self._products(inputs, count)
        return outputs if self._bias is None else outputs + self._bias

    def _products(self, inputs: torch.Tensor, count: int) -> torch.Tensor:
        rows = inputs[:, : count * self._stride].reshape(len(inputs), count, -1)
        outputs: torch.Tensor = self._first_taps(rows)
        for tap, product in enumerate(self._further_taps, start=self._stride):
            rows = inputs[:, tap :: self._stride][:, :count]
            outputs = product.added_to(outputs, rows)  # type: ignore[operator]
        return outputs


class FourierConv1d(nn.Module):
    """A convolution over time as products of discrete Fourier transforms, one per frequency.

    By the convolution theorem, correlating with a kernel multiplies the input's transform by the
    conjugate of the kernel's. The transforms are as long as the input and the padding of one side
    together, so that what wraps around falls on zeros. For HuBERT's 128 taps this is a twentieth
    of the arithmetic. On a GPU in bf16, cuDNN's own kernel takes
    30 ms for 128 windows, and this 1.7 ms (gpu-forms.json).
    """

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None, groups: int, max_frames: int
    ) -> None:
        """Transforms the kernels of a convolution once.

        Args:
            weight: shape ``(channels, channels / groups, taps)``; stride and dilation are 1, and
                half as many zeros as there are taps are padded on both sides.
            bias: shape ``(channels,)``.
            groups: of channels.
            max_frames: the largest number of frames of its inputs.
        """
        super().__init__()
        self._bias = bias
        self._groups = groups
        self._padding = weight.shape[2] // 2
        # The difference between the number of output and input frames.
        self._extra_frames = 2 * self._padding - weight.shape[2] + 1
        length = max_frames + self._padding
        self._length = math.ceil(length / _FFT_MULTIPLE) * _FFT_MULTIPLE
        kernels = torch.fft.rfft(_at_least_float32(weight), self._length).conj()
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


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor | None,
    forms: Forms = Forms(),
) -> torch.Tensor:
    """Scaled dot-product attention, same shape as the query.

    As products, its softmax is in float32: torch's is slow in lower precision.

    Args:
        query: shape ``(batch, heads, frames, channels)``, like key and value.
        key: the keys.
        value: the values.
        bias: added to the logits, shape ``(1 or batch, 1, 1, frames)``.
        forms: of the network.
    """
    if not forms.attention_products:
        return nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    queries, keys, values = (tensor.flatten(0, 1) for tensor in (query, key, value))
    added = query.new_zeros(1)
    if bias is not None:  # one row for each head of each recording
        added = bias.expand(len(query), query.shape[1], 1, -1).flatten(0, 1)
    logits = torch.baddbmm(added, queries, keys.mT, alpha=query.shape[-1] ** -0.5)
    weights = torch.softmax(logits, dim=-1, dtype=torch.float32).to(value.dtype)
    outputs: torch.Tensor = (weights @ values).unflatten(0, query.shape[:2])
    return outputs


def product_by_recording(
    rows: torch.Tensor, weights: torch.Tensor, act: str, forms: Forms = Forms()
) -> torch.Tensor:
    """Multiplies the rows of each recording by weights of its own, and applies an activation.

    Args:
        rows: shape ``(batch, num_rows, columns)``.
        weights: shape ``(batch, channels, columns)``.
        act: the activation's name.
        forms: of the network.

    Returns:
        Shape ``(batch, num_rows, channels)``.
    """
    if not forms.fused_first_layer:
        return activation(act)(torch.bmm(rows, weights.mT))
    outputs = rows.new_empty(*rows.shape[:2], weights.shape[1])
    for inputs, weight, recording in zip(rows, weights, outputs, strict=True):
        packed = _packed(weight, _CACHED_ROWS)
        parts = zip(inputs.split(_CACHED_ROWS), recording.split(_CACHED_ROWS), strict=True)
        for part, results in parts:
            results.copy_(_onednn_product(part, packed, None, act))
    return outputs


def _packed(weight: torch.Tensor, rows: int) -> torch.Tensor:
    """A weight in the layout that oneDNN chooses for products of so many rows."""
    packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), rows)
    return packed


def _onednn_product(
    inputs: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None, act: str | None
) -> torch.Tensor:
    fused = act in _FUSED
    kind, variant = ("gelu", _FUSED[str(act)]) if fused else ("none", "")
    outputs: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
        inputs, packed, bias, kind, [], variant
    )
    return outputs if fused or act is None else activation(act)(outputs)


def _at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
