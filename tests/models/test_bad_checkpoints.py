"""Whatever a checkpoint's files hold, they load or are refused in one line, and run no code."""

import json
import shutil
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import torch
from recordings import speech_like
from safetensors.torch import load_file, save_file
from transformers import HubertConfig, HubertForSequenceClassification
from transformers.integrations import hub_kernels

from examples.make_checkpoint import SMALL
from ser_core.emotions import CASIA_LABELS
from ser_core.errors import CheckpointError
from ser_core.models.checkpoint import load_checkpoint
from ser_core.models.classifier import Classifier
from ser_core.models.network_config import architecture_of
from ser_core.training.initialization import initialize_model

VALUES = (None, "abc", -1, 0, 1e308, [], {}, [None], True, 10**30)
FILES = ("config.json", "preprocessor_config.json")
FURTHER = ("architectures", "temperature", "dtype", "num_labels", "auto_map", "id2label")


@pytest.fixture
def copy(small_checkpoint, tmp_path) -> Path:
    return Path(shutil.copytree(small_checkpoint, tmp_path / "checkpoint"))


@pytest.fixture
def standard(copy) -> Path:
    """A checkpoint with the head of transformers."""
    names = dict(enumerate(CASIA_LABELS))
    config = HubertConfig(
        id2label=names, label2id={v: k for k, v in names.items()}, mask_time_length=2, **SMALL
    )
    HubertForSequenceClassification(config).save_pretrained(copy)
    return copy


def edit(folder, file, **changes):
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refusal(source, action=lambda source: architecture_of(load_checkpoint(source))):
    """The message of a refusal, or "" if there is none."""
    try:
        action(str(source))
    except CheckpointError as error:
        message = str(error)
        assert message.isprintable()  # in particular, one line
        assert message.startswith(str(source))
        return message
    return ""


SHIFTS = [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, len(VALUES)))]


@pytest.mark.parametrize("form", ["copy", "standard"])
@pytest.mark.parametrize("shift", SHIFTS)
def test_every_setting_replaced(request, form, shift):
    """Each shift replaces each setting by another value, one at a time."""
    folder = request.getfixturevalue(form)
    values = cycle(VALUES[shift:] + VALUES[:shift])
    refusals = 0
    for file in FILES:
        given = (folder / file).read_text()
        keys = json.loads(given).keys() | (FURTHER if file == FILES[0] else set())
        for key, value in zip(sorted(keys), values, strict=False):
            (folder / file).write_text(json.dumps(json.loads(given) | {key: value}))
            refusals += bool(refusal(folder))
        (folder / file).write_text(given)
    assert refusals > 20


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        (FILES[0], {"hidden_size": "abc"}),
        (FILES[0], {"layer_norm_eps": None}),
        (FILES[0], {"conv_dim": []}),
        (FILES[0], {"conv_stride": [-1] * 7}),
        (FILES[0], {"num_attention_heads": -1}),
        (FILES[0], {"num_hidden_layers": 10**9}),
        (FILES[0], {"id2label": list("abcdef")}),
        (FILES[0], {"id2label": {str(i): None for i in range(6)}}),
        (FILES[0], {"id2label": {str(i): f"\ud800{i}" for i in range(6)}}),
        (FILES[0], {"temperature": 1e-300}),
        (FILES[1], {"padding_value": "abc"}),
        (FILES[1], {"padding_value": 1e308}),
        (FILES[1], {"do_normalize": []}),
        (FILES[1], {"sampling_rate": "\n"}),
    ],
    ids=str,
)
def test_refused_settings(copy, file, changes):
    edit(copy, file, **changes)
    message = refusal(copy)
    assert message
    assert file in message or "id2label" in message


@pytest.mark.parametrize("changes", [{"architectures": 5}, {"dtype": "evil"}], ids=str)
def test_settings_that_do_not_matter(copy, changes):
    edit(copy, FILES[0], **changes)
    assert not refusal(copy)


@pytest.mark.parametrize("file", FILES)
def test_json_that_is_nested_or_a_folder(copy, file):
    for depth in (30, 900, 10**6):
        (copy / file).write_text(f'{{"a": {"[" * depth}{"]" * depth}}}')
        assert f"{file} is nested too deeply" in refusal(copy)
    (copy / file).unlink()
    (copy / file).mkdir()
    assert f"{file} cannot be read (Is a directory)" in refusal(copy)


@pytest.mark.parametrize(
    "changes",
    [
        {"mask_time_length": 0},
        {"hidden_act": "abc"},
        {"num_hidden_layers": 10**30},
        {"id2label": 5},
    ],
    ids=str,
)
def test_training(copy, changes):
    def train(source):
        initialize_model(source, None, tuple("abcdef"), seed=1)

    edit(copy, FILES[0], **changes)
    assert bool(refusal(copy, train)) == ("id2label" not in changes)  # a new head replaces these
    edit(copy, FILES[0], id2label=None, vocab_size=32, num_hidden_layers=100, hidden_size=999_999)
    assert refusal(copy / FILES[0], train)  # from scratch: it does not allocate terabytes


# ---- weights -------------------------------------------------------------------------------------


def pickled(folder, weights):
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink(missing_ok=True)


def test_parameters_are_weights(copy, small_checkpoint):
    weights = load_file(copy / "model.safetensors")
    pickled(copy, {name: torch.nn.Parameter(tensor) for name, tensor in weights.items()})
    assert load_checkpoint(str(copy)).digest == load_checkpoint(str(small_checkpoint)).digest


@pytest.mark.parametrize(
    ("name", "tensor", "problem"),
    [
        ("a\nb", torch.zeros(1), "table of names"),
        ("\ud800", torch.zeros(1), "table of names"),
        ("a", torch.zeros(1).expand(10**13), "table of names"),
        ("a", torch.zeros(2, dtype=torch.complex64).conj(), "damaged"),
        ("classifier.out_proj.weight", torch.tensor(1.0), "wrong shape"),
        ("classifier.out_proj.bias", torch.zeros(6, dtype=torch.int32), "wrong type"),
        ("classifier.out_proj.bias", torch.zeros(6, dtype=torch.complex64), "wrong type"),
    ],
)
def test_refused_weights(copy, name, tensor, problem):
    pickled(copy, load_file(copy / "model.safetensors") | {name: tensor})
    assert problem in refusal(copy)


def test_weights_of_another_type_are_not_trained(copy):
    weights = load_file(copy / "model.safetensors")
    name = "hubert.encoder.layer_norm.bias"
    save_file(weights | {name: weights[name].int()}, copy / "model.safetensors")
    message = refusal(copy, lambda source: initialize_model(source, None, CASIA_LABELS, seed=1))
    assert name in message


# ---- code ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["copy", "standard"])
def test_no_kernel_is_fetched(request, form, monkeypatch):
    folder = request.getfixturevalue(form)
    waveforms = [speech_like(1.0, seed=7)]
    expected = Classifier(load_checkpoint(str(folder)), "fp32").scores(waveforms)
    fetched = []
    monkeypatch.setattr(hub_kernels, "is_kernels_available", lambda *_, **__: True)
    monkeypatch.setattr(hub_kernels, "get_kernel", lambda *a, **_: fetched.append(a))
    kernel = "kernels-community/x"
    edit(
        folder,
        FILES[0],
        **dict.fromkeys(("_attn_implementation", "attn_implementation"), kernel),
        **dict.fromkeys(("_attn_implementation_internal", "experts_implementation"), kernel),
        auto_map={"AutoConfig": "configuration_hubert.Config"},
        dtype="float16",
        torch_dtype="evil",
        quantization_config={"quant_method": "bitsandbytes"},
        return_dict=False,
        per_layer_config={"0": {"hidden_size": 1}},
    )
    scores = Classifier(load_checkpoint(str(folder)), "fp32").scores(waveforms)
    np.testing.assert_array_equal(scores, expected)
    initial = initialize_model(str(folder), None, tuple("abcdef"), seed=1)
    assert initial.build().config._attn_implementation == "sdpa"
    assert not {"auto_map", "quantization_config"} & initial.config.keys()
    assert not fetched
