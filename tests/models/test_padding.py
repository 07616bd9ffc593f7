"""Without computing the padding, the logits equal those of the plain forward pass."""

import copy

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from recordings import speech_like
from transformers import AutoConfig, AutoModelForAudioClassification, HubertConfig, Wav2Vec2Config
from transformers import HubertForSequenceClassification as Hubert
from transformers import Wav2Vec2ForSequenceClassification as Wav2Vec2

from examples.make_checkpoint import SMALL
from ser_core.models.hubert import HubertForSpeechClassification
from ser_core.models.padding import ElidedClassifier, can_elide
from ser_core.models.preprocessing import Preprocessing, pad_and_normalize
from ser_core.models.standard import StandardClassifier

CPU = torch.device("cpu")
CARD_PREPROCESSING = Preprocessing(True, False, 0.0, "first")
LAYER = {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}
PUBLISHED = {"num_conv_pos_embeddings": 128}  # frames; SMALL has 16
OTHER_STRIDES = {"conv_dim": (32,) * 4, "conv_kernel": (32, 10, 8, 4), "conv_stride": (16, 5, 4, 2)}
CARD = {"num_class": 6, "classifier_dropout": 0.1}


def card(**config):
    return HubertForSpeechClassification(HubertConfig(**SMALL | CARD | config))


def standard(network, config_class, **config):
    return StandardClassifier(network(config_class(**SMALL | {"num_labels": 5} | config)))


def with_varied_logits(make):
    """Random networks hardly distinguish recordings: their logits would not reveal an error."""
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "pos_conv_embed" in name and name.endswith("original0"):
                weight *= 30  # otherwise this convolution hardly affects the logits
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
    "batch norm": lambda: card(conv_pos_batch_norm=True),
    "standard HuBERT": lambda: standard(Hubert, HubertConfig),
    "standard wav2vec2": lambda: standard(Wav2Vec2, Wav2Vec2Config, **PUBLISHED),
    "standard wav2vec2, layer": lambda: standard(Wav2Vec2, Wav2Vec2Config, **LAYER),
    "standard wav2vec2, adapted attention": lambda: standard(
        Wav2Vec2, Wav2Vec2Config, **LAYER, adapter_attn_dim=8
    ),
}


def recordings(lengths):
    return [speech_like(n / 16000 + 0.01, seed=n)[:n] for n in lengths]


def padded(lengths, num_samples=96000):
    return pad_and_normalize(recordings(lengths), CARD_PREPROCESSING, CPU, num_samples)[0]


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return with_varied_logits(MODELS[request.param])


@pytest.fixture(scope="module")
def model64(model):
    return copy.deepcopy(model).double()


@settings(max_examples=4, deadline=None, derandomize=True)
@given(st.lists(st.integers(800, 96000), min_size=1, max_size=3), st.sampled_from([1, 8, 16]))
@example([96000, 800], 1)
@example([54400], 1)  # 170 frames: the longest for which the transformer gets fewer frames
@example([54720], 1)
@example([95360, 95361], 1)  # the longest for which a frame is omitted, and the next length
def test_logits_equal_the_plain_pass(model, model64, lengths, frames_per_step):
    num_samples = ElidedClassifier(model).required_samples(max(lengths), frames_per_step)
    inputs = padded(lengths)
    for network, values, tolerance in ((model, inputs, 1e-4), (model64, inputs.double(), 1e-9)):
        logits = ElidedClassifier(network)(values[:, :num_samples])
        torch.testing.assert_close(logits, network(values), atol=tolerance, rtol=0)


def test_padding_affects_the_logits(model):
    """Otherwise the test above would pass for an implementation that drops the padding."""
    unpadded = model(padded([16000], 16000))
    assert (unpadded - model(padded([16000]))).abs().max() > 0.05


def test_silence(model64):
    silence = torch.zeros(1, 96000, dtype=torch.float64)
    num_samples = ElidedClassifier(model64).required_samples(8000)
    logits = ElidedClassifier(model64)(silence[:, :num_samples])
    torch.testing.assert_close(logits, model64(silence), atol=1e-9, rtol=0)


@pytest.mark.slow
def test_the_published_size(full_checkpoint):
    model = HubertForSpeechClassification.from_pretrained(full_checkpoint).eval()
    model.requires_grad_(False)
    elided, lengths = ElidedClassifier(model), [4000, 30400]
    logits = elided(padded(lengths, elided.required_samples(30400)))
    torch.testing.assert_close(logits, model(padded(lengths)), atol=1e-4, rtol=0)


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
def test_no_more_samples_are_required_than_necessary(seconds, frames_per_step, samples):
    elided = ElidedClassifier(card())
    assert elided.required_samples(round(seconds * 16000), frames_per_step) == samples


def test_frames_in_the_transformer():
    elided, seen = ElidedClassifier(card(**PUBLISHED).eval()), []
    elided.backbone.encoder.layers[0].register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].shape[1])
    )
    for seconds in (1, 1.9, 3.42, 3.44, 6):
        length = round(seconds * 16000)
        elided(padded([length], elided.required_samples(length)))
    assert seen == [50 + 128, 95 + 128, 171 + 128, 299, 299]


def test_networks_of_the_derivation_can_be_elided(model):
    assert can_elide(model)


@pytest.mark.parametrize("model_type", ["wavlm", "data2vec-audio", "unispeech-sat", "sew"])
def test_other_families_are_refused(model_type):
    sizes = {name: size for name, size in SMALL.items() if name != "conv_dim"}  # SEW has 13 layers
    config = AutoConfig.for_model(model_type, num_labels=5, **sizes)
    assert not can_elide(StandardClassifier(AutoModelForAudioClassification.from_config(config)))


def test_a_head_on_all_layers_is_refused():
    assert not can_elide(standard(Hubert, HubertConfig, use_weighted_layer_sum=True))


@pytest.mark.parametrize("change", [{"feat_extract_norm": "batch"}, {"add_adapter": True}])
def test_unknown_variants_are_refused(change):
    model = standard(Wav2Vec2, Wav2Vec2Config)
    model.backbone.config.update(change)
    assert not can_elide(model)
