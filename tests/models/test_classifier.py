"""Preprocessing, segments, batches, memory back-off and precision of the classifier."""

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from recordings import speech_like
from transformers import Wav2Vec2FeatureExtractor

from ser_core.errors import DeviceError, UsageError
from ser_core.models.checkpoint import load_checkpoint
from ser_core.models.classifier import Classifier, choose_batches, resolve_precision
from ser_core.models.input_values import pad_and_normalize
from ser_core.models.kernels import Forms
from ser_core.models.preprocessing import Preprocessing

LENGTHS = (1, 400, 1600, 30400, 95999, 96000)


@pytest.mark.parametrize(
    ("normalize", "masked", "value"), itertools.product([True, False], [True, False], [0.0, 0.25])
)
def test_padding_and_normalization_equal_the_feature_extractors(normalize, masked, value):
    extractor = Wav2Vec2FeatureExtractor(
        do_normalize=normalize, return_attention_mask=masked, padding_value=value
    )
    segments = [3 + speech_like(n / 16000, seed=n)[:n] for n in LENGTHS]
    expected = extractor(
        segments,
        padding="max_length",
        truncation=True,
        max_length=96000,
        return_tensors="np",
        sampling_rate=16000,
    )
    preprocessing = Preprocessing(normalize, masked, value, "first")
    values, lengths = pad_and_normalize(segments, preprocessing, torch.device("cpu"))
    # A single sample has variance 0: both divide its rounding error by 3e-4.
    np.testing.assert_allclose(values[1:], expected.input_values[1:], atol=2e-5)
    if masked:
        mask = np.arange(96000) < lengths.numpy()[:, None]
        np.testing.assert_array_equal(mask, expected.attention_mask)


@pytest.mark.parametrize("masked", [True, False])
def test_fewer_samples_are_the_first_of_the_padded_segment(masked):
    preprocessing = Preprocessing(True, masked, 0.25, "first")
    segments = [3 + speech_like(n / 16000, seed=n)[:n] for n in LENGTHS[:4]]
    padded, _ = pad_and_normalize(segments, preprocessing, torch.device("cpu"))
    values, _ = pad_and_normalize(segments, preprocessing, torch.device("cpu"), 30720)
    assert values.shape == (4, 30720)
    np.testing.assert_allclose(values[1:], padded[1:, :30720], atol=2e-5)


def test_temperature_divides_the_logits(small_checkpoint):
    checkpoint = load_checkpoint(str(small_checkpoint))
    waveforms = [speech_like(1.5, seed=seed) for seed in range(3)]
    plain = Classifier(checkpoint, "fp32").scores(waveforms)
    softened = Classifier(replace(checkpoint, temperature=2.5), "fp32").scores(waveforms)
    expected = plain ** (1 / 2.5)  # softmax(z / T) ∝ softmax(z) ** (1 / T)
    np.testing.assert_allclose(softened, expected / expected.sum(1, keepdims=True), atol=1e-5)


@pytest.fixture
def classifier(small_checkpoint):
    return Classifier(load_checkpoint(str(small_checkpoint)), "fp32", 8)


@pytest.mark.parametrize("shape", [(0,), (2, 9), ()])
def test_a_waveform_of_another_shape_is_refused(classifier, shape):
    with pytest.raises(UsageError, match=rf"\(num_samples,\), not {re.escape(str(shape))}"):
        classifier.scores([speech_like(1), np.zeros(shape, np.float32)])


def test_options_that_cannot_be(classifier):
    with pytest.raises(UsageError, match="'fp8' is not one of auto, fp32, bf16, fp16"):
        Classifier(classifier.checkpoint, "fp8")
    with pytest.raises(UsageError, match="batch_size 0"):
        Classifier(classifier.checkpoint, batch_size=0)


def test_out_of_memory_halves_the_batch_and_keeps_all_scores(classifier):
    waveforms = [speech_like(1, seed=seed) for seed in range(11)]
    expected = classifier.scores(waveforms)
    pooled, sizes = classifier._network.pooled, []

    def with_little_memory(values, lengths):
        sizes.append(len(values))
        if len(values) > 3:
            raise torch.OutOfMemoryError("too many")
        return pooled(values, lengths)

    classifier._network.pooled = with_little_memory
    np.testing.assert_allclose(classifier.scores(waveforms), expected, atol=1e-5)
    assert sizes == [8, 4, 2, 2, 2, 2, 2, 1]
    assert classifier.batch_size == 2


def test_out_of_memory_with_one_recording_is_an_error(classifier):
    def without_memory(*_):
        raise torch.OutOfMemoryError("none")

    classifier._network.pooled = without_memory
    with pytest.raises(torch.OutOfMemoryError):
        classifier.scores([speech_like(1)] * 4)


def test_a_broken_device_is_told_apart_from_a_bug_at_every_step(classifier, monkeypatch):
    def broken(*_, **__):
        raise torch.AcceleratorError("an illegal memory access was encountered")

    with monkeypatch.context() as patched:
        patched.setattr("ser_core.models.classifier.stack", broken)
        with pytest.raises(DeviceError, match="cpu fp32: an illegal"):
            classifier.prepare([speech_like(1)])
    classifier._network.pooled = broken
    with pytest.raises(DeviceError, match="cpu fp32: an illegal"):
        classifier.compute(classifier.prepare([speech_like(1)]))


def test_segments_are_weighted_by_their_length(classifier):
    recording = speech_like(13.5, seed=5)
    parts = [recording[:96000], recording[96000:192000], recording[192000:]]
    expected = np.average(classifier.scores(parts), axis=0, weights=[96000, 96000, 24000])
    other = speech_like(2, seed=6)
    together = classifier.scores([other, recording, other])
    np.testing.assert_allclose(together[1], expected, atol=1e-5)
    np.testing.assert_allclose(together[2], classifier.scores([other])[0], atol=1e-5)


def test_embeddings_of_segments_are_weighted_by_their_length(classifier):
    recording = speech_like(13.5, seed=5)
    parts = [recording[:96000], recording[96000:192000], recording[192000:]]
    classifier.embeddings = True
    of_parts = classifier.compute(classifier.prepare(parts)).embeddings
    outputs = classifier.compute(classifier.prepare([speech_like(2, seed=6), recording]))
    assert outputs.embeddings.dtype == np.float16
    expected = np.average(of_parts.astype(np.float32), axis=0, weights=[96000, 96000, 24000])
    np.testing.assert_allclose(outputs.embeddings[1], expected, rtol=2e-3, atol=1e-3)
    assert classifier.compute(classifier.prepare([])).embeddings.shape == (0, 32)


def test_embeddings_beyond_the_range_of_float16_are_its_largest_number(classifier):
    pooled = classifier._network.pooled
    plain = classifier.compute(classifier.prepare([speech_like(2)]))
    assert plain.embeddings is None
    classifier.embeddings = True
    classifier._network.pooled = lambda *inputs: pooled(*inputs) * 1e7
    classifier._network.head = lambda pooled: pooled[:, :6]
    (embedding,) = classifier.compute(classifier.prepare([speech_like(2)])).embeddings
    assert set(np.abs(embedding).tolist()) == {65504.0}


def test_no_recordings(classifier):
    assert classifier.scores([]).shape == (0, 6)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16"), ({"avx2": True}, "fp32")],
)
def test_auto_precision_on_a_cpu(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert resolve_precision("auto", torch.device("cpu")) == expected


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16"), (False, "fp16")])
def test_auto_precision_on_a_gpu(monkeypatch, native, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: native)
    assert resolve_precision("auto", torch.device("cuda")) == expected


@pytest.mark.parametrize(
    ("precision", "capabilities", "expected"),
    [
        ("fp32", {"avx2": True, "cpu_name": "AMD EPYC"}, (1, 1)),
        ("fp32", {"avx512_f": True, "cpu_name": "AMD EPYC"}, (1, 8)),
        ("fp32", {"avx512_f": True, "amx_bf16": True, "cpu_name": "Intel(R) Xeon(R)"}, (1, 1)),
        ("bf16", {"avx512_f": True, "amx_bf16": True, "cpu_name": "Intel(R) Xeon(R)"}, (2, 16)),
        ("bf16", {"avx512_f": True, "avx512_bf16": True, "cpu_name": "AMD EPYC"}, (1, 8)),
    ],
)
def test_batches_on_a_cpu(monkeypatch, precision, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert choose_batches(torch.device("cpu"), precision) == expected


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_is_close(small_checkpoint, classifier, precision):
    checkpoint = load_checkpoint(str(small_checkpoint))
    waveforms = [speech_like(1.5, seed=seed) for seed in range(12)]
    low = Classifier(checkpoint, precision, 4)
    assert low.description == f"cpu {precision}"
    difference = np.abs(low.scores(waveforms) - classifier.scores(waveforms))
    assert 0 < difference.max() < 0.2
    assert difference.mean() < 0.02


def test_fp32_turns_tf32_off(small_checkpoint, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    checkpoint = load_checkpoint(str(small_checkpoint))
    Classifier(checkpoint, "bf16")
    assert torch.backends.cudnn.allow_tf32
    Classifier(checkpoint, "fp32")
    assert not torch.backends.cudnn.allow_tf32


def test_weights_are_shared_not_copied(small_checkpoint, monkeypatch):
    """But for oneDNN, which has a layout of its own."""
    monkeypatch.setattr("ser_core.models.classifier.choose_forms", lambda *_: Forms())
    checkpoint = load_checkpoint(str(small_checkpoint))
    network = Classifier(checkpoint, "fp32")._network
    for name, layer in {
        "classifier.dense": network._head[0],
        "hubert.encoder.layers.1.feed_forward.output_dense": network.layers[1].narrow,
    }.items():
        array = checkpoint.weights[f"{name}.weight"]
        assert layer._weight.data_ptr() == array.ctypes.data


def test_int16_samples_equal_their_floats(classifier):
    integers = (speech_like(1.5, seed=3) * 32767).astype(np.int16)
    floats = integers.astype(np.float32) / 32768
    np.testing.assert_array_equal(classifier.scores([integers]), classifier.scores([floats]))
    unnormalized = Preprocessing(False, False, 0.25, "first")  # normalization hides the scale
    for segments in ([integers, floats], [integers, integers]):
        values, _ = pad_and_normalize(segments, unnormalized, torch.device("cpu"))
        for row in values:
            np.testing.assert_array_equal(row[: len(floats)], floats)
            assert set(row[len(floats) :].tolist()) == {0.25}
