"""The faster forms on CPUs give what the network's own operations give."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import speech_like

from ser_core import cpu_kernels
from ser_core.checkpoint import load_checkpoint
from ser_core.classifier import Classifier
from ser_core.cpu_kernels import FourierConv1d, MatrixConv1d, attention


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    frames=st.integers(1, 299) | st.sampled_from([128, 256]),
    taps=st.sampled_from([1, 3, 15, 16, 128]),
    groups=st.sampled_from([1, 4]),
    batch=st.integers(1, 3),
)
@torch.inference_mode()
def test_a_convolution_by_transforms_is_the_convolution(frames, taps, groups, batch):
    torch.manual_seed(frames)
    conv = torch.nn.Conv1d(8, 8, taps, padding=taps // 2, groups=groups).double()
    inputs = torch.randn(batch, 8, frames, dtype=torch.float64)
    for most_frames in (frames, 299):
        got = FourierConv1d(conv, most_frames)(inputs)
        torch.testing.assert_close(got, conv(inputs), atol=1e-11, rtol=0)


@torch.inference_mode()
def test_its_rounding_at_the_published_size():
    torch.manual_seed(0)
    conv = torch.nn.Conv1d(768, 768, 128, padding=64, groups=16)
    inputs = torch.randn(2, 768, 299)
    expected = conv.double()(inputs.double())
    got = FourierConv1d(conv.float(), 299)(inputs)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), expected, atol=2e-6, rtol=0)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    frames=st.integers(4, 60),
    kernel_and_stride=st.sampled_from([(2, 2), (3, 2), (4, 2), (4, 1), (3, 3)]),
    batch=st.integers(1, 3),
    bias=st.booleans(),
    side_by_side=st.booleans(),
)
@torch.inference_mode()
def test_a_convolution_by_matrix_products_is_the_convolution(
    frames, kernel_and_stride, batch, bias, side_by_side
):
    torch.manual_seed(frames)
    conv = torch.nn.Conv1d(6, 8, *kernel_and_stride, bias=bias).double()
    inputs = torch.randn(batch, 6, frames, dtype=torch.float64)
    if side_by_side:
        inputs = inputs.mT.contiguous().mT
    got = MatrixConv1d(conv)(inputs)
    torch.testing.assert_close(got, conv(inputs), atol=1e-12, rtol=0)
    assert got.mT.is_contiguous()


@torch.inference_mode()
def test_attention_is_the_softmax_of_scaled_products():
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 20, 8, dtype=torch.float64)
    mask = torch.randn(1, 1, 1, 20, dtype=torch.float64)
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=0.3
    )
    got, _ = attention(torch.nn.Identity(), query, key, value, mask, scaling=0.3)
    torch.testing.assert_close(got, expected.transpose(1, 2), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("precision", "matrix_instructions", "ours"),
    [("fp32", False, False), ("bf16", True, False), ("bf16", False, True)],
)
def test_the_classifier_uses_them(
    small_checkpoint, monkeypatch, precision, matrix_instructions, ours
):
    called = []
    for kind in (FourierConv1d, MatrixConv1d):
        monkeypatch.setattr(kind, "forward", _noted(kind.__name__, kind.forward, called))
    monkeypatch.setattr(torch, "baddbmm", _noted("baddbmm", torch.baddbmm, called))
    monkeypatch.setattr(cpu_kernels, "has_matrix_instructions", lambda: matrix_instructions)
    Classifier(load_checkpoint(str(small_checkpoint)), precision).scores([speech_like(1.0)])
    # Layer 0 of the feature encoder and the six others, then two transformer layers.
    convolutions = ["baddbmm", *["MatrixConv1d"] * 6, "FourierConv1d"]
    assert called == [*convolutions, *["baddbmm"] * 2 * ours]


def _noted(name, function, called):
    def wrapped(*args, **kwargs):
        called.append(name)
        return function(*args, **kwargs)

    return wrapped
