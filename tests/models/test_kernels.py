"""The faster implementations compute what the network's own operations compute."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import speech_like

from ser_core.models import kernels
from ser_core.models.checkpoint import load_checkpoint
from ser_core.models.classifier import Classifier
from ser_core.models.kernels import FourierConv1d, MatrixConv1d, OneDnnLinear, attention


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    frames=st.integers(1, 299) | st.sampled_from([128, 256]),
    taps=st.sampled_from([1, 3, 15, 16, 128]),
    groups=st.sampled_from([1, 4]),
    batch=st.integers(1, 3),
)
@torch.inference_mode()
def test_fourier_convolution_equals_the_convolution(frames, taps, groups, batch):
    torch.manual_seed(frames)
    conv = torch.nn.Conv1d(8, 8, taps, padding=taps // 2, groups=groups).double()
    inputs = torch.randn(batch, 8, frames, dtype=torch.float64)
    for max_frames in (frames, 299):
        outputs = FourierConv1d(conv, max_frames)(inputs)
        torch.testing.assert_close(outputs, conv(inputs), atol=1e-11, rtol=0)


@torch.inference_mode()
def test_rounding_of_the_fourier_convolution_at_the_published_size():
    torch.manual_seed(0)
    conv = torch.nn.Conv1d(768, 768, 128, padding=64, groups=16)
    inputs = torch.randn(2, 768, 299)
    expected = conv.double()(inputs.double())
    outputs = FourierConv1d(conv.float(), 299)(inputs)
    assert outputs.dtype == torch.float32
    torch.testing.assert_close(outputs.double(), expected, atol=2e-6, rtol=0)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    frames=st.integers(4, 60),
    kernel_and_stride=st.sampled_from([(2, 2), (3, 2), (4, 2), (4, 1), (3, 3)]),
    batch=st.integers(1, 3),
    bias=st.booleans(),
    contiguous_channels=st.booleans(),
    whole_batch=st.booleans(),
)
@torch.inference_mode()
def test_matrix_convolution_equals_the_convolution(
    frames, kernel_and_stride, batch, bias, contiguous_channels, whole_batch
):
    torch.manual_seed(frames)
    conv = torch.nn.Conv1d(6, 8, *kernel_and_stride, bias=bias).double()
    inputs = torch.randn(batch, 6, frames, dtype=torch.float64)
    if contiguous_channels:
        inputs = inputs.mT.contiguous().mT
    outputs = MatrixConv1d(conv, whole_batch=whole_batch)(inputs)
    torch.testing.assert_close(outputs, conv(inputs), atol=1e-12, rtol=0)
    assert outputs.mT.is_contiguous()


@pytest.mark.parametrize("frames", [3, 1024, 1025, 1500])  # one product has up to 512 rows
@torch.inference_mode()
def test_matrix_convolution_with_onednn_equals_the_convolution(frames):
    torch.manual_seed(frames)
    conv, inputs = torch.nn.Conv1d(6, 8, 3, 2), torch.randn(2, 6, frames)
    expected = conv.double()(inputs.double())
    outputs = MatrixConv1d(conv.float(), use_onednn=True)(inputs)
    torch.testing.assert_close(outputs.double(), expected, atol=2e-6, rtol=0)
    assert outputs.mT.is_contiguous()


@pytest.mark.parametrize("bias", [False, True])
@torch.inference_mode()
def test_onednn_linear_equals_the_layer(bias):
    torch.manual_seed(0)
    linear, inputs = torch.nn.Linear(48, 32, bias=bias), torch.randn(2, 20, 48)
    expected = linear.double()(inputs.double())
    linear = linear.float()
    with_onednn = OneDnnLinear(linear)
    assert with_onednn.weight.data_ptr() == linear.weight.data_ptr()
    torch.testing.assert_close(with_onednn(inputs).double(), expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize(
    ("cpu_name", "avx512_f", "onednn", "expected"),
    [
        ("AMD EPYC 9575F", True, True, True),
        ("AMD EPYC 7763", False, True, False),
        ("Intel(R) Xeon(R) Platinum 8488C", True, True, False),
        ("AMD EPYC 9575F", True, False, False),
        (None, None, True, False),  # a CPU that is not x86
    ],
)
def test_onednn_is_used_where_mkl_uses_half_of_the_vector_width(
    monkeypatch, cpu_name, avx512_f, onednn, expected
):
    capabilities = {"cpu_name": cpu_name, "avx512_f": avx512_f}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities if cpu_name else {})
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: onednn)
    assert kernels.onednn_is_faster_in_float32() == expected


@torch.inference_mode()
def test_attention_is_the_softmax_of_scaled_products():
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 20, 8, dtype=torch.float64)
    mask = torch.randn(1, 1, 1, 20, dtype=torch.float64)
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=0.3
    )
    outputs, _ = attention(torch.nn.Identity(), query, key, value, mask, scaling=0.3)
    torch.testing.assert_close(outputs, expected.transpose(1, 2), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("precision", "matrix_instructions", "replaces_attention"),
    [("fp32", False, False), ("bf16", True, False), ("bf16", False, True)],
)
@pytest.mark.parametrize("onednn", [False, True])
def test_the_classifier_uses_the_fast_kernels(
    small_checkpoint, monkeypatch, precision, matrix_instructions, replaces_attention, onednn
):
    called = []
    for kind in (FourierConv1d, MatrixConv1d, OneDnnLinear):
        monkeypatch.setattr(kind, "forward", _recorded(kind.__name__, kind.forward, called))
    for name in ("_add_product", "_add_onednn_product"):
        monkeypatch.setattr(kernels, name, _recorded(name, getattr(kernels, name), called))
    monkeypatch.setattr(torch, "bmm", _recorded("bmm", torch.bmm, called))
    monkeypatch.setattr(torch, "baddbmm", _recorded("baddbmm", torch.baddbmm, called))
    monkeypatch.setattr(kernels, "has_matrix_instructions", lambda: matrix_instructions)
    monkeypatch.setattr(kernels, "onednn_is_faster_in_float32", lambda: onednn)
    Classifier(load_checkpoint(str(small_checkpoint)), precision).scores([speech_like(1.0)])
    use_onednn = onednn and precision == "fp32"
    product = "_add_onednn_product" if use_onednn else "_add_product"
    # Layer 0 of the feature encoder, then the others; four of these have taps beyond the stride.
    expected = ["bmm", *["MatrixConv1d", product, product] * 4, *["MatrixConv1d", product] * 2]
    expected += ["OneDnnLinear"] * use_onednn  # the feature projection
    expected += ["FourierConv1d"]
    in_each_layer = {True: ["OneDnnLinear"] * 6, False: ["baddbmm"] * replaces_attention}
    assert called == expected + in_each_layer[use_onednn] * 2


def _recorded(name, function, called):
    def wrapped(*args, **kwargs):
        called.append(name)
        return function(*args, **kwargs)

    return wrapped
