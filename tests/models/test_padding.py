"""Without computing the padding, the logits equal those of transformers' networks on all of it."""

import copy

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from recordings import speech_like
from transformers import HubertConfig, Wav2Vec2Config
from transformers import HubertForSequenceClassification as Hubert
from transformers import Wav2Vec2ForSequenceClassification as Wav2Vec2

from examples.make_checkpoint import SMALL
from ser_core.models.hubert import HubertForSpeechClassification
from ser_core.models.input_values import pad_and_normalize
from ser_core.models.kernels import Forms
from ser_core.models.layers import Weights
from ser_core.models.network import Network
from ser_core.models.network_config import read_architecture
from ser_core.models.preprocessing import Preprocessing

CPU = torch.device("cpu")
CARD_PREPROCESSING = Preprocessing(True, False, 0.0, "first")
MASKING = Preprocessing(True, True, 0.0, "first")
LAYER = {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}
PUBLISHED = {"num_conv_pos_embeddings": 128}  # frames; SMALL has 16
OTHER_STRIDES = {"conv_dim": (32,) * 4, "conv_kernel": (32, 10, 8, 4), "conv_stride": (16, 5, 4, 2)}
CARD = {"num_class": 6, "classifier_dropout": 0.1}


def card(**config):
    return HubertForSpeechClassification(HubertConfig(**SMALL | CARD | config))


def standard(network, config_class, **config):
    return network(config_class(**SMALL | {"num_labels": 5} | config))


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
            if name == "layer_weights":
                weight += torch.randn_like(weight)
        for name, buffer in model.named_buffers():
            if "running" in name:
                buffer += torch.rand_like(buffer)
        logits = plain(model, padded([1000, 30000, 60000, 96000]))
        last = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)][-1]
        scale = 0.5 / logits.std(dim=0).mean()
        last.weight *= scale
        last.bias -= scale * (logits.mean(dim=0) - last.bias) + last.bias
    return model.requires_grad_(False)


def plain(model, values, attention_mask=None):
    """The logits of transformers' own forward pass."""
    if isinstance(model, HubertForSpeechClassification):
        return model(values)
    return model(values, attention_mask=attention_mask).logits


def elided(model, masked=False):
    """The network that is to compute the same."""
    weights = model.state_dict()
    dtype = next(model.parameters()).dtype
    architecture = read_architecture(model.config.to_dict(), 5)
    return Network(architecture, Weights(weights, CPU, dtype), Forms(), masked)


MODELS = {
    "group": card,
    "group, 128 frames": lambda: card(**PUBLISHED),
    "group, odd kernel": lambda: card(num_conv_pos_embeddings=15),
    "group, other strides": lambda: card(**OTHER_STRIDES),
    "group, with biases": lambda: card(conv_bias=True),
    "layer": lambda: card(**LAYER),
    "layer, 128 frames": lambda: card(**LAYER, **PUBLISHED),
    "batch norm": lambda: card(conv_pos_batch_norm=True),
    "no norm of the features": lambda: card(feat_proj_layer_norm=False),
    "no masking": lambda: card(mask_time_prob=0.0),
    "other activations": lambda: card(hidden_act="relu", feat_extract_activation="silu"),
    "approximate GELU": lambda: card(hidden_act="gelu_new", feat_extract_activation="tanh"),
    "standard HuBERT": lambda: standard(Hubert, HubertConfig),
    "standard HuBERT, all layers": lambda: standard(
        Hubert, HubertConfig, use_weighted_layer_sum=True
    ),
    "standard HuBERT, batch norm": lambda: standard(Hubert, HubertConfig, conv_pos_batch_norm=True),
    "standard wav2vec2": lambda: standard(Wav2Vec2, Wav2Vec2Config, **PUBLISHED),
    "standard wav2vec2, layer": lambda: standard(Wav2Vec2, Wav2Vec2Config, **LAYER),
    "standard wav2vec2, layer, all layers": lambda: standard(
        Wav2Vec2, Wav2Vec2Config, **LAYER, use_weighted_layer_sum=True
    ),
    "standard wav2vec2, adapted attention": lambda: standard(
        Wav2Vec2, Wav2Vec2Config, **LAYER, adapter_attn_dim=8
    ),
}
MASKED = [name for name in MODELS if name.startswith("standard")]


def recordings(lengths):
    return [speech_like(n / 16000 + 0.01, seed=n)[:n] for n in lengths]


def padded(lengths, num_samples=96000, preprocessing=CARD_PREPROCESSING):
    return pad_and_normalize(recordings(lengths), preprocessing, CPU, num_samples)[0]


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
    inputs, counts = padded(lengths), torch.tensor(lengths)
    num_samples = elided(model).required_samples(lengths, frames_per_step)
    for network, values, tolerance in ((model, inputs, 1e-4), (model64, inputs.double(), 1e-9)):
        logits = elided(network)(values[:, :num_samples], counts)
        torch.testing.assert_close(logits, plain(network, values), atol=tolerance, rtol=0)


@pytest.mark.parametrize("name", MASKED)
@settings(max_examples=4, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 96000), min_size=1, max_size=3), st.sampled_from([1, 8, 16]))
@example([96000, 800], 1)
@example([399, 400, 401], 1)  # a frame sees 400 samples; transformers masks nothing of fewer
@example([5, 30000], 1)
@example([95360, 95361], 1)
def test_logits_equal_the_plain_pass_with_an_attention_mask(name, lengths, frames_per_step):
    model = with_varied_logits(MODELS[name]).double()
    values = padded(lengths, preprocessing=MASKING).double()
    mask = (torch.arange(96000) < torch.tensor(lengths)[:, None]).long()
    network = elided(model, masked=True)
    num_samples = network.required_samples(lengths, frames_per_step)
    logits = network(values[:, :num_samples], torch.tensor(lengths))
    torch.testing.assert_close(logits, plain(model, values, mask), atol=1e-9, rtol=0)


def test_weights_are_those_of_transformers(model):
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert elided(model).architecture.weight_shapes() == shapes


def test_padding_affects_the_logits(model):
    """Otherwise the tests above would pass for an implementation that drops the padding."""
    unpadded = plain(model, padded([16000], 16000))
    assert (unpadded - plain(model, padded([16000]))).abs().max() > 0.05


def test_silence(model64):
    silence = torch.zeros(1, 96000, dtype=torch.float64)
    network = elided(model64)
    num_samples = network.required_samples([8000])
    logits = network(silence[:, :num_samples], torch.tensor([8000]))
    torch.testing.assert_close(logits, plain(model64, silence), atol=1e-9, rtol=0)


@pytest.mark.slow
def test_the_published_size(full_checkpoint):
    model = HubertForSpeechClassification.from_pretrained(full_checkpoint).eval()
    model.requires_grad_(False)
    network, lengths = elided(model), [4000, 30400]
    logits = network(padded(lengths, network.required_samples(lengths)), torch.tensor(lengths))
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
    network = elided(card())
    assert network.required_samples([round(seconds * 16000)], frames_per_step) == samples


def test_frames_in_the_transformer():
    network, seen = elided(card(**PUBLISHED).eval()), []
    network.layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    for seconds in (1, 1.9, 3.42, 3.44, 6):
        length = round(seconds * 16000)
        network(padded([length], network.required_samples([length])), torch.tensor([length]))
    assert seen == [50 + 128, 95 + 128, 171 + 128, 299, 299]


def test_no_frame_is_computed_that_a_mask_excludes():
    network, seen = elided(standard(Wav2Vec2, Wav2Vec2Config, **LAYER), masked=True), []
    network.layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    for length in (16000, 96000):
        network(padded([length], network.required_samples([length])), torch.tensor([length]))
    assert seen == [51, 299]


@pytest.mark.parametrize("name", ["group, 128 frames", "standard wav2vec2, layer, all layers"])
@pytest.mark.parametrize("masked", [False, True])
def test_the_forward_pass_compiles_without_a_break(name, masked):
    """As one graph, in the forms that suit a GPU; the shapes are those of one length."""
    network, lengths = elided(with_varied_logits(MODELS[name]), masked), [16000, 24000]
    values = padded(lengths, network.required_samples(lengths))
    expected = network(values, torch.tensor(lengths))
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(values, torch.tensor(lengths)), expected)
