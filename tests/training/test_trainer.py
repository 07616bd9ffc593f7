"""The loop against the model card's settings, and against itself."""

import json

import numpy as np
import pytest
import torch
from checkpoints import NOTHING_DRAWN
from recordings import speech_like
from transformers import HubertConfig, Wav2Vec2FeatureExtractor

from benchmarks.card import HubertForSpeechClassification
from examples.make_checkpoint import SMALL
from ser_core.training.dataset import Utterances
from ser_core.training.initialization import start_from
from ser_core.training.trainer import Learner, Recipe, epoch_order

CPU = torch.device("cpu")
LABELS = ("angry", "fear", "happy")


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
def start(tmp_path):
    def of(**settings):
        path = tmp_path / "config.json"
        path.write_text(json.dumps(SMALL | settings))
        return start_from(str(path), None, LABELS, seed=34)

    return of


@pytest.fixture(scope="module")
def utterances():
    waveforms = [speech_like(0.5 + 0.25 * seed, seed=seed) for seed in range(7)]
    return Utterances(waveforms, np.array([0, 1, 2, 0, 1, 2, 0]))


def weights_after(start, recipe, utterances, epochs=2):
    learner = Learner(start, recipe, CPU)
    for _ in range(epochs):
        learner.train_epoch(utterances)
    return learner.weights()


def assert_close(one, other, tolerance=1e-5):
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=tolerance)


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


def test_the_full_size_model_trains_with_the_cards_optimizer(full_checkpoint):
    start = start_from(str(full_checkpoint), None, LABELS, seed=34)
    learner = Learner(start, recipe(batch_size=2), CPU)
    ours = settings_by_parameter(learner.optimizer, learner.model)
    card = settings_by_parameter(card_optimizer(learner.model), learner.model)
    assert {name: s | {"initial_lr": s["lr"]} for name, s in card.items()} == ours
    assert len(ours) == sum(1 for _ in learner.model.parameters())
    before = learner.weights()
    waveforms = [speech_like(1.0, seed=seed) for seed in range(3)]
    loss, _ = learner.train_epoch(Utterances(waveforms, np.array([0, 1, 2])))  # two steps
    assert np.isfinite(loss)
    after = learner.weights()
    still = [name for name in before if torch.equal(before[name], after[name])]
    # What two steps of LayerDrop and SpecAugment may leave out; nothing is frozen.
    assert all("encoder.layers." in name or "masked_spec_embed" in name for name in still)


def test_the_rate_falls_as_the_cards(start, utterances):
    learner = Learner(start(), recipe(batch_size=7), CPU)
    rates = []
    one = Utterances(utterances.waveforms[:1], utterances.truth[:1])
    for _ in range(21):
        rates.append(learner.learning_rate)
        learner.train_epoch(one)
    expected = [2e-4] * 10 + [2e-4 * 0.3] * 10 + [2e-4 * 0.09]
    np.testing.assert_allclose(rates, expected)


def test_an_epoch_is_what_the_card_would_do(start, utterances):
    """The author's loop: one-hot targets, inputs from the feature extractor, the card's network."""
    begun = start(**NOTHING_DRAWN)
    config = HubertConfig(**SMALL, **NOTHING_DRAWN, num_class=3)
    model = HubertForSpeechClassification(config)
    model.load_state_dict({name: torch.tensor(a) for name, a in begun.weights.items()})
    model.train()
    optimizer = card_optimizer(model)
    extract = Wav2Vec2FeatureExtractor(return_attention_mask=False)
    order = epoch_order(34, 1, 7)
    for at in (0, 4):
        batch = order[at : at + 4]
        inputs = extract(
            [utterances.waveforms[i] for i in batch],
            sampling_rate=16_000,
            padding="max_length",
            truncation=True,
            max_length=96_000,
            return_tensors="pt",
        ).input_values
        targets = torch.eye(3)[utterances.truth[batch]]
        optimizer.zero_grad()
        torch.nn.CrossEntropyLoss()(model(inputs), targets).backward()
        optimizer.step()
    ours = weights_after(begun, recipe(), utterances, epochs=1)
    assert_close(ours, model.state_dict())


def test_the_same_batch_in_more_passes_is_the_same_step(start, utterances):
    begun = start(**NOTHING_DRAWN)
    whole = weights_after(begun, recipe(), utterances)
    assert_close(whole, weights_after(begun, recipe(accumulate=3), utterances))
    assert_close(whole, weights_after(begun, recipe(gradient_checkpointing=True), utterances))


def test_bf16_learns_nearly_the_same_and_keeps_its_weights_in_fp32(start, utterances):
    begun = start(**NOTHING_DRAWN)
    weights = weights_after(begun, recipe(precision="bf16"), utterances, epochs=1)
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert_close(weights, weights_after(begun, recipe(), utterances, epochs=1), tolerance=1e-3)


def test_going_on_from_a_state_ends_in_the_same_bits(start, utterances):
    begun = start()  # with dropout, LayerDrop and SpecAugment
    straight = weights_after(begun, recipe(), utterances, epochs=3)
    first = Learner(begun, recipe(), CPU)
    first.train_epoch(utterances)
    state = first.state()
    torch.manual_seed(0)
    np.random.seed(0)
    second = Learner(begun, recipe(), CPU)
    second.restore(state)
    assert second.epochs == 1
    for _ in range(2):
        second.train_epoch(utterances)
    assert_close(straight, second.weights(), tolerance=0)


def test_every_epoch_has_an_order_of_its_own_and_hears_everything():
    first, second = epoch_order(34, 1, 50), epoch_order(34, 2, 50)
    assert sorted(first) == sorted(second) == list(range(50))
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, epoch_order(35, 1, 50))


def test_predictions_do_not_depend_on_the_batch(start, utterances):
    begun = start()
    one = Learner(begun, recipe(batch_size=1), CPU).predict(utterances.waveforms)
    all_at_once = Learner(begun, recipe(batch_size=7), CPU).predict(utterances.waveforms)
    np.testing.assert_allclose(one, all_at_once, atol=1e-5)
    assert one.shape == (7, 3)
    assert Learner(begun, recipe(), CPU).predict([]).shape == (0, 3)
