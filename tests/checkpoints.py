"""Checkpoints with random weights in the format of the model card's."""

from pathlib import Path

import torch
from recordings import speech_like
from transformers import HubertConfig, Wav2Vec2FeatureExtractor

from ser_core.models.card import HubertForSpeechClassification

NOTHING_DRAWN = {  # training without dropout, skipped layers and masked frames
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "feat_proj_dropout": 0.0,
    "classifier_dropout": 0.0,
    "layerdrop": 0.0,
    "apply_spec_augment": False,
}


def save_card_style(folder: Path, **sizes) -> Path:
    """Saves a checkpoint with the card's head, whose scores differ between recordings."""
    torch.manual_seed(0)
    model = HubertForSpeechClassification(
        HubertConfig(num_class=6, classifier_dropout=0.1, **sizes)
    ).eval()
    speech = torch.stack([torch.from_numpy(speech_like(2.0, seed=seed)) for seed in range(8)])
    with torch.no_grad():
        # Random layers hardly distinguish recordings: center and scale the inputs of the head.
        pooled = model.hubert(speech)[0].mean(dim=1)
        hidden = model.classifier.dense.weight @ (pooled / pooled.std(dim=0)).T
        model.classifier.dense.weight /= pooled.std(dim=0)
        model.classifier.dense.bias -= hidden.mean(dim=1)
        model.classifier.out_proj.weight *= 2 / model(speech).std(dim=0).mean()
    model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=False).save_pretrained(folder)
    return folder
