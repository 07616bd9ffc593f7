"""Without its padding computed, the network's logits are the plain pass's."""

import copy

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from recordings import speech_like
from transformers import HubertConfig, HubertForSequenceClassification, Wav2Vec2Config
from transformers import Wav2Vec2ForSequenceClassification as Wav2Vec2

from examples.make_checkpoint import SMALL
from ser_core.models.checkpoint import Preprocessing
from ser_core.models.classifier import pad_and_normalize
from ser_core.models.hubert import HubertForSpeechClassification, StandardClassifier
from ser_core.models.padding import ElidedClassifier, can_elide

CPU = torch.device("cpu")
CASIA_LIKE = Preprocessing(True, False, 0.0, "first")
LAYER = {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}
PUBLISHED = {"num_conv_pos_embeddings": 128}  # frames; the small twin has 16
OTHER_STRIDES = {"conv_dim": (32,) * 4, "conv_kernel": (32, 10, 8, 4), "conv_stride": (16, 5, 4, 2)}
CARD = {"num_class": 6, "classifier_dropout": 0.1}


def card(**settings_):
    return HubertForSpeechClassification(HubertConfig(**SMALL | CARD | settings_))


def standard(network, config, **settings_):
    return StandardClassifier(network(config(**SMALL | {"num_labels": 5} | settings_)))


def with_spread_logits(make):
    """Random networks hardly tell recordings apart: an error would not show in their logits."""
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "pos_conv_embed" in name and name.endswith("original0"):
                weight *= 30  # else the convolution that elision has to respect is hardly heard
            if "layer_norm.weight" in name:
                weight += 0.1 * torch.randn_like(weight)
            if name.endswith("bias"):
                weight += 0.1 * torch.randn_like(weight)
        logits = model(padded([1000, 30000, 60000, 96000]))
        last = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)][-1]
        scale = 0.5 / logits.std(dim=0).mean()
        last.weight *= scale
        last.bias -= scale * (logits.mean(dim=0) - last.bias) + last.bias
    return model.requires_grad_(False)


MODELS = {
    "group": card,
    "group, 128 frames": lambda: card(**PUBLISHED),
    "group, odd kernel": lambda: card(num_conv_pos_embeddings=15),
    "group, other strides": lambda: card(**OTHER_STRIDES),
    "group, with biases": lambda: card(conv_bias=True),
    "layer": lambda: card(**LAYER),
    "layer, 128 frames": lambda: card(**LAYER, **PUBLISHED),
    "standard HuBERT": lambda: standard(HubertForSequenceClassification, HubertConfig),
    "standard wav2vec2": lambda: standard(Wav2Vec2, Wav2Vec2Config, **PUBLISHED),
    "standard wav2vec2, layer": lambda: standard(Wav2Vec2, Wav2Vec2Config, **LAYER),
}


def recordings(lengths):
    return [speech_like(n / 16000 + 0.01, seed=n)[:n] for n in lengths]


def padded(lengths, num_samples=96000):
    return pad_and_normalize(recordings(lengths), CASIA_LIKE, CPU, num_samples)[0]


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return with_spread_logits(MODELS[request.param])


@pytest.fixture(scope="module")
def model64(model):
    return copy.deepcopy(model).double()


@settings(max_examples=4, deadline=None, derandomize=True)
@given(st.lists(st.integers(800, 96000), min_size=1, max_size=3), st.sampled_from([1, 8, 16]))
@example([96000, 800], 1)
@example([54400], 1)  # 170 frames: the last length at which the transformer's frames are fewer
@example([54720], 1)
@example([95360, 95361], 1)  # the last length that leaves a frame out, and the next
def test_logits_are_the_plain_pass(model, model64, lengths, frames_per_step):
    num_samples = ElidedClassifier(model).samples_for(max(lengths), frames_per_step)
    inputs = padded(lengths)
    for network, values, tolerance in ((model, inputs, 1e-4), (model64, inputs.double(), 1e-9)):
        got = ElidedClassifier(network)(values[:, :num_samples])
        torch.testing.assert_close(got, network(values), atol=tolerance, rtol=0)


def test_what_a_network_makes_of_padding_matters(model):
    """Otherwise the property would hold for a pass that leaves the padding out."""
    alone = model(padded([16000], 16000))
    assert (alone - model(padded([16000]))).abs().max() > 0.05


def test_silence(model64):
    silent = torch.zeros(1, 96000, dtype=torch.float64)
    num_samples = ElidedClassifier(model64).samples_for(8000)
    got = ElidedClassifier(model64)(silent[:, :num_samples])
    torch.testing.assert_close(got, model64(silent), atol=1e-9, rtol=0)


def test_the_published_size(full_checkpoint):
    model = HubertForSpeechClassification.from_pretrained(full_checkpoint).eval()
    model.requires_grad_(False)
    elided, lengths = ElidedClassifier(model), [4000, 30400]
    got = elided(padded(lengths, elided.samples_for(30400)))
    torch.testing.assert_close(got, model(padded(lengths)), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("seconds", "frames_per_step", "samples"),
    [
        (1.0, 1, 16400),
        (1.01, 1, 16720),
        (1.0, 16, 64 * 320 + 400),
        (5.96, 1, 95760),
        (6.0, 1, 96000),
    ],
)
def test_as_much_is_computed_as_is_heard(seconds, frames_per_step, samples):
    elided = ElidedClassifier(card())
    assert elided.samples_for(round(seconds * 16000), frames_per_step) == samples


def test_frames_in_the_transformer():
    elided, seen = ElidedClassifier(card(**PUBLISHED).eval()), []
    elided.backbone.encoder.layers[0].register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].shape[1])
    )
    for seconds in (1, 1.9, 3.42, 3.44, 6):
        elided(padded([round(seconds * 16000)], elided.samples_for(round(seconds * 16000))))
    assert seen == [50 + 128, 95 + 128, 171 + 128, 299, 299]


def test_a_head_that_wants_more_than_the_last_layer_is_left_alone():
    assert can_elide(card())
    assert not can_elide(
        standard(HubertForSequenceClassification, HubertConfig, use_weighted_layer_sum=True)
    )
