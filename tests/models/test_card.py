"""`Card` gives what the script on the model card gives, run from its own text."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from labelled_rows import changed_checkpoint
from recordings import speech_like, write_audio
from safetensors.numpy import load_file, save_file
from transformers import (
    HubertConfig,
    HubertForSequenceClassification,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
    pipeline,
)

from examples.make_checkpoint import SMALL
from ser_core.models.card import EMOTIONS, Card, exact_card
from ser_core.models.checkpoint import load_checkpoint

# Verbatim: https://huggingface.co/xmj2002/hubert-base-ch-speech-emotion-recognition
SCRIPT = Path(__file__).with_name("model_card.txt").read_text()


def test_the_text_on_the_card(small_checkpoint, tmp_path, monkeypatch, capsys):
    """Only the name of the checkpoint is another one, and a method that transformers 5 renamed."""
    script = SCRIPT.replace("xmj2002/hubert-base-ch-speech-emotion-recognition", "checkpoint")
    script = script.replace("self.init_weights()", "self.post_init()")
    card = Card(small_checkpoint)
    (tmp_path / "checkpoint").symlink_to(small_checkpoint)
    monkeypatch.chdir(tmp_path)
    for number, seconds in enumerate((0.4, 2.0, 9.0)):
        path = write_audio(tmp_path / "test_data" / "x.wav", speech_like(seconds, 22050), 22050)
        exec(compile(script, "model_card.txt", "exec"), {"__name__": "card"})
        printed = capsys.readouterr().out.splitlines()[-1]
        label, score = re.search(r"predict: (\w+) \t score:([\d.]+)", printed).groups()
        scores = card.scores(path)
        assert card.labels[scores.argmax()] == label, number
        assert scores.max() == pytest.approx(float(score), abs=1e-6)


def test_names_of_the_classes(small_checkpoint, tmp_path):
    assert Card(small_checkpoint).labels == EMOTIONS
    names = {str(n): name for n, name in enumerate("abcdef")}
    named = changed_checkpoint(small_checkpoint, tmp_path / "named", id2label=names)
    assert Card(named).labels == tuple("abcdef") == load_checkpoint(str(named)).labels


def test_a_temperature(small_checkpoint, tmp_path):
    warm = changed_checkpoint(small_checkpoint, tmp_path / "warm", temperature=4.0)
    speech = speech_like(2.0)
    logits = np.log(Card(small_checkpoint).scores_of(speech))
    expected = torch.softmax(torch.from_numpy(logits / 4), 0)
    np.testing.assert_allclose(Card(warm).scores_of(speech), expected, atol=1e-6)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("network", "config"),
    [
        (HubertForSequenceClassification, HubertConfig),
        (Wav2Vec2ForSequenceClassification, Wav2Vec2Config),
    ],
)
def test_heads_of_transformers(tmp_path, network, config, masked):
    torch.manual_seed(0)
    names = dict(enumerate(("sad", "happy", "angry")))
    network(config(**SMALL, id2label=names)).save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor(return_attention_mask=masked).save_pretrained(tmp_path)
    card, speech = Card(tmp_path), speech_like(6.0)  # the pipeline adds no padding
    scores = card.scores_of(speech)
    for each in pipeline("audio-classification", str(tmp_path))(speech):
        assert scores[card.labels.index(each["label"])] == pytest.approx(each["score"], abs=1e-5)
    inputs = Wav2Vec2FeatureExtractor.from_pretrained(tmp_path)(
        speech[:20000],
        padding="max_length",
        max_length=96000,
        return_tensors="pt",
        sampling_rate=16000,
    )
    assert ("attention_mask" in inputs) == masked
    with torch.no_grad():
        expected = network.from_pretrained(tmp_path)(**inputs).logits.softmax(dim=1)[0]
    np.testing.assert_allclose(card.scores_of(speech[:20000]), expected, atol=1e-6)


def test_weights_that_are_missing(small_checkpoint, tmp_path):
    broken = changed_checkpoint(small_checkpoint, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    del weights["classifier.out_proj.bias"]
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"no weights for classifier.out_proj.bias"):
        Card(broken)


def test_the_exact_card_computes_without_tf32(small_checkpoint, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    card = exact_card(small_checkpoint)
    assert not torch.backends.cudnn.allow_tf32
    assert next(card.model.parameters()).dtype is torch.float32
