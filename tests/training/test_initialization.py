import json

import numpy as np
import pytest
import safetensors.numpy
import torch

from examples.make_checkpoint import SMALL
from ser_core.emotions import CASIA_LABELS
from ser_core.errors import CheckpointError
from ser_core.models.checkpoint import load_checkpoint
from ser_core.training.initialization import start_from

SEVEN = ("angry", "boredom", "disgust", "fear", "happy", "neutral", "sad")


@pytest.fixture
def body(small_checkpoint, tmp_path):
    """The small checkpoint as `HubertModel` saves its like: no prefix, no head, no classes."""

    def write(**changes):
        weights = safetensors.numpy.load_file(small_checkpoint / "model.safetensors")
        bare = {
            name.removeprefix("hubert."): array
            for name, array in weights.items()
            if name.startswith("hubert.")
        }
        config = json.loads((small_checkpoint / "config.json").read_text())
        for name in ("num_class", "classifier_dropout", "architectures"):
            config.pop(name)
        (tmp_path / "config.json").write_text(json.dumps(config))
        preprocessor = (small_checkpoint / "preprocessor_config.json").read_bytes()
        (tmp_path / "preprocessor_config.json").write_bytes(preprocessor)
        kept = {name: array for name, array in (bare | changes).items() if array is not None}
        safetensors.numpy.save_file(kept, tmp_path / "model.safetensors")
        return str(tmp_path), bare

    return write


def test_a_body_without_a_head_gets_one_and_says_so(body):
    folder, bare = body()
    start = start_from(folder, None, SEVEN, seed=1)
    for name, array in bare.items():
        np.testing.assert_array_equal(start.weights[f"hubert.{name}"], array)
    assert start.weights["classifier.out_proj.weight"].shape == (7, 32)
    assert "a classifier for 7 classes drawn" in start.words
    assert start.config["num_class"] == 7
    assert start.config["id2label"] == {str(i): label for i, label in enumerate(SEVEN)}
    assert start.config["classifier_dropout"] == 0.1


def test_the_head_is_drawn_by_the_seed(body):
    folder, _ = body()
    one, same, other = (
        start_from(folder, None, SEVEN, seed).weights["classifier.dense.weight"]
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize(
    "change",
    [
        {"encoder.layers.1.final_layer_norm.bias": None},
        {"encoder.layers.2.final_layer_norm.bias": np.zeros(32, np.float32)},
        {"encoder.layer_norm.bias": np.zeros(31, np.float32)},
    ],
)
def test_a_body_that_does_not_fit_is_refused_by_name(body, change):
    folder, _ = body(**change)
    with pytest.raises(CheckpointError, match=next(iter(change))):
        start_from(folder, None, SEVEN, seed=1)


def test_a_head_for_the_same_classes_is_kept_and_another_is_not(small_checkpoint):
    given = load_checkpoint(str(small_checkpoint)).weights["classifier.out_proj.weight"]
    kept = start_from(str(small_checkpoint), None, CASIA_LABELS, seed=1)
    np.testing.assert_array_equal(kept.weights["classifier.out_proj.weight"], given)
    assert "its classifier kept" in kept.words
    turned = start_from(str(small_checkpoint), None, CASIA_LABELS[::-1], seed=1)
    assert not np.array_equal(turned.weights["classifier.out_proj.weight"], given)


def test_a_config_alone_starts_from_scratch(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(SMALL))
    start = start_from(str(path), None, SEVEN, seed=1)
    assert "from scratch" in start.words
    assert start.network()(torch.zeros(1, 96_000)).shape == (1, 7)
    assert not start.preprocessing.return_attention_mask  # the card's


@pytest.mark.parametrize("content", ["{", "[]", '{"model_type": "wav2vec2"}'])
def test_a_config_that_is_none_is_one_line(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(CheckpointError, match=r"^--model .*config.json: [^\n]+$"):
        start_from(str(path), None, SEVEN, seed=1)
