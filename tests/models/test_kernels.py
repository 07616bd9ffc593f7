"""The faster implementations compute what the network's own operations compute."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import speech_like

from ser_core.models import kernels, layers, network_config
from ser_core.models.checkpoint import load_checkpoint
from ser_core.models.classifier import Classifier
from ser_core.models.kernels import (
    Forms,
    FourierConv1d,
    Linear,
    MatrixConv1d,
    attention,
    choose_forms,
    product_by_recording,
)

# oneDNN multiplies float32 and bfloat16.
ONEDNN = Forms(onednn=True, fused_first_layer=True, by_recording=True)


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
        outputs = FourierConv1d(conv.weight, conv.bias, groups, max_frames)(inputs)
        torch.testing.assert_close(outputs, conv(inputs), atol=1e-11, rtol=0)


@torch.inference_mode()
def test_rounding_of_the_fourier_convolution_at_the_published_size():
    torch.manual_seed(0)
    conv = torch.nn.Conv1d(768, 768, 128, padding=64, groups=16)
    inputs = torch.randn(2, 768, 299)
    expected = conv.double()(inputs.double())
    conv = conv.float()
    outputs = FourierConv1d(conv.weight, conv.bias, 16, 299)(inputs)
    assert outputs.dtype == torch.float32
    torch.testing.assert_close(outputs.double(), expected, atol=2e-6, rtol=0)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    frames=st.integers(4, 60),
    kernel_and_stride=st.sampled_from([(2, 2), (3, 2), (4, 2), (4, 1), (3, 3)]),
    batch=st.integers(1, 3),
    bias=st.booleans(),
    contiguous_channels=st.booleans(),
    by_recording=st.booleans(),
)
@torch.inference_mode()
def test_matrix_convolution_equals_the_convolution(
    frames, kernel_and_stride, batch, bias, contiguous_channels, by_recording
):
    torch.manual_seed(frames)
    conv = torch.nn.Conv1d(6, 8, *kernel_and_stride, bias=bias).double()
    inputs = torch.randn(batch, 6, frames, dtype=torch.float64)
    if contiguous_channels:
        inputs = inputs.mT.contiguous().mT
    forms = Forms(by_recording=by_recording)
    matrix = MatrixConv1d(conv.weight, conv.bias, kernel_and_stride[1], forms)
    outputs = matrix(inputs.mT)
    torch.testing.assert_close(outputs.mT, conv(inputs), atol=1e-12, rtol=0)
    assert outputs.is_contiguous()


@pytest.mark.parametrize("frames", [3, 1024, 1025, 1500])
@torch.inference_mode()
def test_matrix_convolution_with_onednn_equals_the_convolution(frames):
    torch.manual_seed(frames)
    conv, inputs = torch.nn.Conv1d(6, 8, 3, 2), torch.randn(2, 6, frames)
    expected = conv.double()(inputs.double())
    conv = conv.float()
    outputs = MatrixConv1d(conv.weight, conv.bias, 2, ONEDNN)(inputs.mT)
    torch.testing.assert_close(outputs.mT.double(), expected, atol=2e-6, rtol=0)
    assert outputs.is_contiguous()


@pytest.mark.parametrize("act", [None, "gelu", "gelu_new", "relu"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("forms", [Forms(), ONEDNN], ids=["torch", "onednn"])
@torch.inference_mode()
def test_linear_equals_the_layer_and_its_activation(act, bias, forms):
    torch.manual_seed(0)
    layer, inputs = torch.nn.Linear(48, 32, bias=bias), 3 * torch.randn(2, 20, 48)
    expected = layer.double()(inputs.double())
    if act is not None:
        approximate = "tanh" if act == "gelu_new" else "none"
        gelu = torch.nn.functional.gelu(expected, approximate=approximate)
        expected = torch.relu(expected) if act == "relu" else gelu
    layer = layer.float()
    outputs = Linear(layer.weight, layer.bias, act, forms)(inputs)
    torch.testing.assert_close(outputs.double(), expected, atol=5e-6, rtol=0)


def test_a_weight_is_shared_unless_onednn_has_its_own_layout():
    weight = torch.zeros(4, 3)
    assert Linear(weight).state_dict() == {}  # it is the checkpoint's, and is not saved
    assert Linear(weight)._weight.data_ptr() == weight.data_ptr()


@pytest.mark.parametrize("rows", [1, 511, 513, 1100])
@pytest.mark.parametrize("act", ["gelu", "silu"])
@pytest.mark.parametrize("forms", [Forms(), ONEDNN], ids=["torch", "onednn"])
@torch.inference_mode()
def test_each_recording_has_weights_of_its_own(rows, act, forms):
    torch.manual_seed(rows)
    inputs, weights = torch.randn(3, rows, 16), torch.randn(3, 32, 16)
    products = torch.stack(
        [each.double() @ weight.double().T for each, weight in zip(inputs, weights, strict=True)]
    )
    expected = getattr(torch.nn.functional, act)(products)
    outputs = product_by_recording(inputs, weights, act, forms)
    torch.testing.assert_close(outputs.double(), expected, atol=5e-6, rtol=0)


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


@pytest.mark.parametrize("batch_of_bias", [1, 2])
@torch.inference_mode()
def test_attention_is_the_softmax_of_scaled_products(batch_of_bias):
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 20, 16, dtype=torch.float64)
    bias = torch.randn(batch_of_bias, 1, 1, 20, dtype=torch.float64)
    logits = query @ key.mT / 4 + bias  # the root of 16 channels
    expected = torch.softmax(logits, dim=-1) @ value
    for forms, tolerance in ((Forms(), 1e-12), (Forms(attention_products=True), 1e-6)):
        outputs = attention(query, key, value, bias, forms)
        torch.testing.assert_close(outputs, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize(
    ("dtype", "matrix_instructions", "onednn_float32", "onednn", "expected"),
    [
        # onednn, fused_first_layer, by_recording, attention_products
        (torch.float32, True, False, True, (False, True, True, False)),
        (torch.float32, False, True, True, (True, True, True, False)),
        (torch.bfloat16, True, False, True, (True, True, True, False)),
        (torch.bfloat16, False, False, True, (True, True, True, True)),
        (torch.bfloat16, False, False, False, (False, False, True, True)),
        (torch.float16, False, False, True, (False, False, True, True)),
    ],
)
def test_forms_of_a_cpu(monkeypatch, dtype, matrix_instructions, onednn_float32, onednn, expected):
    monkeypatch.setattr(kernels, "has_matrix_instructions", lambda: matrix_instructions)
    monkeypatch.setattr(kernels, "onednn_is_faster_in_float32", lambda: onednn_float32)
    monkeypatch.setattr(
        kernels, "onednn_multiplies", lambda dtype: onednn and dtype in ONEDNN_TYPES
    )
    assert choose_forms(torch.device("cpu"), dtype) == Forms(*expected)


ONEDNN_TYPES = (torch.float32, torch.bfloat16)


@pytest.mark.parametrize(
    ("machine", "available", "bf16", "expected"),
    [
        ("x86_64", True, True, [True, True, False]),
        ("AMD64", True, False, [True, False, False]),  # AVX2 alone
        ("aarch64", True, True, [False, False, False]),
        ("x86_64", False, False, [False, False, False]),
    ],
)
def test_types_that_onednn_multiplies(monkeypatch, machine, available, bf16, expected):
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: available)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: bf16)
    types = (*ONEDNN_TYPES, torch.float16)
    assert [kernels.onednn_multiplies(dtype) for dtype in types] == expected


def test_every_activation_that_a_config_may_name_is_known():
    assert set(network_config._ACTIVATIONS) == set(kernels._ACTIVATIONS)


def test_forms_of_a_gpu():
    assert choose_forms(torch.device("cuda"), torch.bfloat16) == Forms()


@pytest.mark.parametrize("forms", [Forms(), ONEDNN, Forms(attention_products=True)], ids=str)
def test_the_classifier_computes_in_the_forms_that_were_chosen(
    small_checkpoint, monkeypatch, forms
):
    called = []
    for kind in (FourierConv1d, MatrixConv1d):
        monkeypatch.setattr(kind, "forward", _recorded(kind.__name__, kind.forward, called))
    name = "product_by_recording"
    monkeypatch.setattr(layers, name, _recorded("first layer", product_by_recording, called))
    for name in ("_onednn_product", "_packed"):
        monkeypatch.setattr(kernels, name, _recorded(name, getattr(kernels, name), called))
    monkeypatch.setattr(torch, "baddbmm", _recorded("baddbmm", torch.baddbmm, called))
    monkeypatch.setattr("ser_core.models.classifier.choose_forms", lambda *_: forms)
    classifier = Classifier(load_checkpoint(str(small_checkpoint)), "fp32")
    # Layer 0 has 3 parts; six products and their four further taps; the projection, six a layer.
    assert called.count("_packed") == (6 + 4 + 1 + 2 * 6 if forms.onednn else 0)
    called.clear()
    classifier.scores([speech_like(1.0)])
    assert [called.count(kind) for kind in ("FourierConv1d", "MatrixConv1d")] == [1, 6]
    assert called.count("first layer") == 1
    assert called.count("_packed") == forms.fused_first_layer
    parts = 7 if forms.fused_first_layer else 0  # of 3,279 rows
    assert called.count("_onednn_product") == parts + (6 + 1 + 2 * 6 if forms.onednn else 0)
    further_taps = 0 if forms.onednn else 4
    assert called.count("baddbmm") == further_taps + 2 * forms.attention_products


def _recorded(name, function, called):
    def wrapped(*args, **kwargs):
        called.append(name)
        return function(*args, **kwargs)

    return wrapped
