"""The faster forms on CPUs give what the network's own operations give."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import speech_like

from ser_core.checkpoint import load_checkpoint
from ser_core.classifier import Classifier
from ser_core.cpu_kernels import FourierConv1d, attention


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


@pytest.mark.parametrize(("precision", "ours"), [("fp32", False), ("bf16", True)])
def test_the_classifier_uses_them(small_checkpoint, monkeypatch, precision, ours):
    called = []
    monkeypatch.setattr(FourierConv1d, "forward", _noted(FourierConv1d.forward, called))
    monkeypatch.setattr(torch, "baddbmm", _noted(torch.baddbmm, called))
    Classifier(load_checkpoint(str(small_checkpoint)), precision).scores([speech_like(1.0)])
    # One for layer 0 of the feature encoder, and one for each of two transformer layers.
    assert called == ["baddbmm", "forward", *["baddbmm"] * 2 * ours]


def _noted(function, called):
    def wrapped(*args, **kwargs):
        called.append(function.__name__)
        return function(*args, **kwargs)

    return wrapped
