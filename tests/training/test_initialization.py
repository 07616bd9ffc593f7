import json

import numpy as np
import pytest
import safetensors.numpy
import torch

from examples.make_checkpoint import SMALL
from ser_core.emotions import CASIA_LABELS
from ser_core.errors import CheckpointError
from ser_core.models.checkpoint import load_checkpoint
from ser_core.training.initialization import initialize_model

SEVEN = ("angry", "boredom", "disgust", "fear", "happy", "neutral", "sad")


@pytest.fixture
def body(small_checkpoint, tmp_path):
    """Saves the small checkpoint as `HubertModel` would: no prefix, no head, no classes."""

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


def test_a_body_without_a_head_gets_a_new_one(body):
    folder, bare = body()
    initial = initialize_model(folder, None, SEVEN, seed=1)
    for name, array in bare.items():
        np.testing.assert_array_equal(initial.weights[f"hubert.{name}"], array)
    assert initial.weights["classifier.out_proj.weight"].shape == (7, 32)
    assert "new classifier for 7 classes" in initial.description
    assert initial.config["num_class"] == 7
    assert initial.config["id2label"] == {str(i): label for i, label in enumerate(SEVEN)}
    assert initial.config["classifier_dropout"] == 0.1


def test_the_new_head_depends_on_the_seed(body):
    folder, _ = body()
    first, same, other = (
        initialize_model(folder, None, SEVEN, seed).weights["classifier.dense.weight"]
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    "change",
    [
        {"encoder.layers.1.final_layer_norm.bias": None},
        {"encoder.layers.2.final_layer_norm.bias": np.zeros(32, np.float32)},
        {"encoder.layer_norm.bias": np.zeros(31, np.float32)},
    ],
)
def test_misfitting_weights_are_refused_by_name(body, change):
    folder, _ = body(**change)
    with pytest.raises(CheckpointError, match=next(iter(change))):
        initialize_model(folder, None, SEVEN, seed=1)


def test_a_head_is_kept_only_for_the_same_classes(small_checkpoint):
    given = load_checkpoint(str(small_checkpoint)).weights["classifier.out_proj.weight"]
    kept = initialize_model(str(small_checkpoint), None, CASIA_LABELS, seed=1)
    np.testing.assert_array_equal(kept.weights["classifier.out_proj.weight"], given)
    assert "classifier kept" in kept.description
    reversed_ = initialize_model(str(small_checkpoint), None, CASIA_LABELS[::-1], seed=1)
    assert not np.array_equal(reversed_.weights["classifier.out_proj.weight"], given)


def test_a_config_alone_trains_from_scratch(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(SMALL))
    initial = initialize_model(str(path), None, SEVEN, seed=1)
    assert "all weights are new" in initial.description
    assert initial.build()(torch.zeros(1, 96_000)).shape == (1, 7)
    assert not initial.preprocessing.return_attention_mask  # the card's


@pytest.mark.parametrize("content", ["{", "[]", '{"model_type": "wav2vec2"}'])
def test_an_invalid_config_is_a_one_line_error(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(CheckpointError, match=r"^/.*config.json: [^\n]+$"):
        initialize_model(str(path), None, SEVEN, seed=1)
