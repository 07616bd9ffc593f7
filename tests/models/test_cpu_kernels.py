"""The faster forms on CPUs give what the network's own operations give."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import speech_like

from ser_core.models import cpu_kernels
from ser_core.models.checkpoint import load_checkpoint
from ser_core.models.classifier import Classifier
from ser_core.models.cpu_kernels import FourierConv1d, MatrixConv1d, OneDnnLinear, attention


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


@pytest.mark.parametrize("frames", [3, 1024, 1025, 1500])  # up to 512 rows at once, and more
@torch.inference_mode()
def test_so_is_one_by_products_of_onednn(frames):
    torch.manual_seed(frames)
    conv, inputs = torch.nn.Conv1d(6, 8, 3, 2), torch.randn(2, 6, frames)
    expected = conv.double()(inputs.double())
    got = MatrixConv1d(conv.float(), by_onednn=True)(inputs)
    torch.testing.assert_close(got.double(), expected, atol=2e-6, rtol=0)
    assert got.mT.is_contiguous()


@pytest.mark.parametrize("bias", [False, True])
@torch.inference_mode()
def test_a_linear_layer_by_onednn_is_the_layer(bias):
    torch.manual_seed(0)
    linear, inputs = torch.nn.Linear(48, 32, bias=bias), torch.randn(2, 20, 48)
    expected = linear.double()(inputs.double())
    linear = linear.float()
    shared = OneDnnLinear(linear)
    assert shared.weight.data_ptr() == linear.weight.data_ptr()
    torch.testing.assert_close(shared(inputs).double(), expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize(
    ("cpu_name", "avx512_f", "onednn", "faster"),
    [
        ("AMD EPYC 9575F", True, True, True),
        ("AMD EPYC 7763", False, True, False),
        ("Intel(R) Xeon(R) Platinum 8488C", True, True, False),
        ("AMD EPYC 9575F", True, False, False),
        (None, None, True, False),  # as torch describes a CPU that is not x86
    ],
)
def test_onednn_multiplies_where_mkl_leaves_half_of_a_vector_unused(
    monkeypatch, cpu_name, avx512_f, onednn, faster
):
    has = {"cpu_name": cpu_name, "avx512_f": avx512_f}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has if cpu_name else {})
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: onednn)
    assert cpu_kernels.onednn_is_faster_in_float32() == faster


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
    ("precision", "matrix_instructions", "attention_is_ours"),
    [("fp32", False, False), ("bf16", True, False), ("bf16", False, True)],
)
@pytest.mark.parametrize("onednn", [False, True])
def test_the_classifier_uses_them(
    small_checkpoint, monkeypatch, precision, matrix_instructions, attention_is_ours, onednn
):
    called = []
    for kind in (FourierConv1d, MatrixConv1d, OneDnnLinear):
        monkeypatch.setattr(kind, "forward", _noted(kind.__name__, kind.forward, called))
    for name in ("_add_product", "_add_onednn_product"):
        monkeypatch.setattr(cpu_kernels, name, _noted(name, getattr(cpu_kernels, name), called))
    monkeypatch.setattr(torch, "baddbmm", _noted("baddbmm", torch.baddbmm, called))
    monkeypatch.setattr(cpu_kernels, "has_matrix_instructions", lambda: matrix_instructions)
    monkeypatch.setattr(cpu_kernels, "onednn_is_faster_in_float32", lambda: onednn)
    Classifier(load_checkpoint(str(small_checkpoint)), precision).scores([speech_like(1.0)])
    by_onednn = onednn and precision == "fp32"
    product = "_add_onednn_product" if by_onednn else "_add_product"
    # Layer 0 of the feature encoder and the six others; four of these have a tap beyond the stride.
    expected = ["baddbmm", *["MatrixConv1d", product, product] * 4, *["MatrixConv1d", product] * 2]
    expected += ["OneDnnLinear"] * by_onednn  # the feature projection
    expected += ["FourierConv1d"]
    of_a_layer = {True: ["OneDnnLinear"] * 6, False: ["baddbmm"] * attention_is_ours}
    assert called == expected + of_a_layer[by_onednn] * 2


def _noted(name, function, called):
    def wrapped(*args, **kwargs):
        called.append(name)
        return function(*args, **kwargs)

    return wrapped
