"""The training loop against the model card's, and against itself."""

import copy
import json

import numpy as np
import pytest
import torch
from checkpoints import NOTHING_DRAWN
from recordings import speech_like
from transformers import HubertConfig, Wav2Vec2FeatureExtractor

from examples.make_checkpoint import SMALL
from ser_core.models.card import HubertForSpeechClassification
from ser_core.training.dataset import Dataset
from ser_core.training.initialization import initialize_model
from ser_core.training.trainer import Recipe, Trainer, epoch_order

CPU = torch.device("cpu")
LABELS = ("angry", "fear", "happy")


pytestmark = pytest.mark.usefixtures("one_thread")


def recipe(**changes):
    defaults = {
        "learning_rate": 2e-4,
        "batch_size": 4,
        "accumulate": 1,
        "precision": "fp32",
        "gradient_checkpointing": False,
        "seed": 34,
    }
    return Recipe(**defaults | changes)


@pytest.fixture
def initialize(tmp_path):
    def initialize(**settings):
        path = tmp_path / "config.json"
        path.write_text(json.dumps(SMALL | settings))
        return initialize_model(str(path), None, LABELS, seed=34)

    return initialize


@pytest.fixture(scope="module")
def dataset():
    waveforms = [speech_like(0.5 + 0.25 * seed, seed=seed) for seed in range(7)]
    return Dataset(waveforms, np.array([0, 1, 2, 0, 1, 2, 0]))


def weights_after(initial, recipe, dataset, epochs=2):
    trainer = Trainer(initial, recipe, CPU)
    for _ in range(epochs):
        trainer.train_epoch(dataset)
    return trainer.weights()


def assert_close(actual, expected, tolerance=1e-5):
    assert actual.keys() == expected.keys()
    for name in actual:
        torch.testing.assert_close(actual[name], expected[name], rtol=0, atol=tolerance)


def card_optimizer(model, lr=2e-4):
    """The card's, under "Training setting"."""
    parameter = []
    for name, param in model.named_parameters():
        if "hubert" in name:
            parameter.append({"params": param, "lr": 0.2 * lr})
        else:
            parameter.append({"params": param, "lr": lr})
    return torch.optim.AdamW(parameter, lr=lr, betas=(0.93, 0.98), weight_decay=0.2)


def settings_by_parameter(optimizer, model):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: {key: value for key, value in group.items() if key != "params"}
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


@pytest.mark.slow
def test_the_full_size_model_trains_with_the_cards_optimizer(full_checkpoint):
    initial = initialize_model(str(full_checkpoint), None, LABELS, seed=34)
    trainer = Trainer(initial, recipe(batch_size=2), CPU)
    ours = settings_by_parameter(trainer.optimizer, trainer.network)
    card = settings_by_parameter(card_optimizer(trainer.network), trainer.network)
    assert {name: s | {"initial_lr": s["lr"]} for name, s in card.items()} == ours
    assert len(ours) == sum(1 for _ in trainer.network.parameters())
    before = trainer.weights()
    waveforms = [speech_like(1.0, seed=seed) for seed in range(3)]
    loss, _ = trainer.train_epoch(Dataset(waveforms, np.array([0, 1, 2])))  # two steps
    assert np.isfinite(loss)
    after = trainer.weights()
    unchanged = [name for name in before if torch.equal(before[name], after[name])]
    # LayerDrop and SpecAugment may leave these out in two steps; nothing is frozen.
    assert all("encoder.layers." in name or "masked_spec_embed" in name for name in unchanged)


def test_the_learning_rate_falls_like_the_cards(initialize, dataset):
    trainer = Trainer(initialize(), recipe(batch_size=7), CPU)
    rates = []
    short = Dataset(dataset.waveforms[:1], dataset.truth[:1])
    for _ in range(21):
        rates.append(trainer.learning_rate)
        trainer.train_epoch(short)
    expected = [2e-4] * 10 + [2e-4 * 0.3] * 10 + [2e-4 * 0.09]
    np.testing.assert_allclose(rates, expected)


def test_an_epoch_equals_the_cards(initialize, dataset):
    """The author's loop: one-hot targets, inputs from the feature extractor, the card's network."""
    initial = initialize(**NOTHING_DRAWN)
    config = HubertConfig(**SMALL, **NOTHING_DRAWN, num_class=3)
    model = HubertForSpeechClassification(config)
    model.load_state_dict({name: torch.tensor(a) for name, a in initial.weights.items()})
    model.train()
    optimizer = card_optimizer(model)
    extract = Wav2Vec2FeatureExtractor(return_attention_mask=False)
    order = epoch_order(34, 1, 7)
    for at in (0, 4):
        batch = order[at : at + 4]
        inputs = extract(
            [dataset.waveforms[i] for i in batch],
            sampling_rate=16_000,
            padding="max_length",
            truncation=True,
            max_length=96_000,
            return_tensors="pt",
        ).input_values
        targets = torch.eye(3)[dataset.truth[batch]]
        optimizer.zero_grad()
        torch.nn.CrossEntropyLoss()(model(inputs), targets).backward()
        optimizer.step()
    ours = weights_after(initial, recipe(), dataset, epochs=1)
    assert_close(ours, model.state_dict())


def test_more_passes_per_batch_are_the_same_step(initialize, dataset):
    initial = initialize(**NOTHING_DRAWN)
    whole = weights_after(initial, recipe(), dataset)
    assert_close(whole, weights_after(initial, recipe(accumulate=3), dataset))
    assert_close(whole, weights_after(initial, recipe(gradient_checkpointing=True), dataset))


def test_bf16_keeps_fp32_weights_and_learns_nearly_the_same(initialize, dataset):
    initial = initialize(**NOTHING_DRAWN)
    weights = weights_after(initial, recipe(precision="bf16"), dataset, epochs=1)
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert_close(weights, weights_after(initial, recipe(), dataset, epochs=1), tolerance=1e-3)


def test_a_restored_trainer_ends_with_the_same_bits(initialize, dataset):
    initial = initialize()  # with dropout, LayerDrop and SpecAugment
    straight = weights_after(initial, recipe(), dataset, epochs=3)
    first = Trainer(initial, recipe(), CPU)
    first.train_epoch(dataset)
    weights, state = first.weights(), copy.deepcopy(first.state())
    torch.manual_seed(0)
    np.random.seed(0)
    second = Trainer(initial, recipe(), CPU)
    second.restore(weights, state)
    assert second.epochs == 1
    for _ in range(2):
        second.train_epoch(dataset)
    assert_close(straight, second.weights(), tolerance=0)


def test_every_epoch_has_its_own_order_of_all_recordings():
    first, second = epoch_order(34, 1, 50), epoch_order(34, 2, 50)
    assert sorted(first) == sorted(second) == list(range(50))
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, epoch_order(35, 1, 50))


def test_predictions_do_not_depend_on_the_batch(initialize, dataset):
    initial = initialize()
    single = Trainer(initial, recipe(batch_size=1), CPU).predict(dataset.waveforms)
    all_at_once = Trainer(initial, recipe(batch_size=7), CPU).predict(dataset.waveforms)
    np.testing.assert_allclose(single, all_at_once, atol=1e-5)
    assert single.shape == (7, 3)
    assert Trainer(initial, recipe(), CPU).predict([]).shape == (0, 3)
