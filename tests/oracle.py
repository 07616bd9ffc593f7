"""The model card's script, restated: what every score is compared with."""

from pathlib import Path

import librosa
import numpy as np
import torch
from torch import nn
from transformers import HubertModel, HubertPreTrainedModel, Wav2Vec2FeatureExtractor

DURATION = 6
SAMPLE_RATE = 16000


class HubertClassificationHead(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.out_proj = nn.Linear(config.hidden_size, config.num_class)

    def forward(self, x):
        return self.out_proj(self.dropout(torch.tanh(self.dense(x))))


class HubertForSpeechClassification(HubertPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.hubert = HubertModel(config)
        self.classifier = HubertClassificationHead(config)
        self.post_init()

    def forward(self, x):
        return self.classifier(torch.mean(self.hubert(x)[0], dim=1))


class Card:
    """The card's `predict`, loading the model once."""

    def __init__(self, checkpoint: Path) -> None:
        self.processor = Wav2Vec2FeatureExtractor.from_pretrained(checkpoint)
        self.model = HubertForSpeechClassification.from_pretrained(checkpoint).eval()

    def scores(self, path: str | Path) -> np.ndarray:
        speech, rate = librosa.load(path=path, sr=SAMPLE_RATE)
        return self.scores_of(speech, rate)

    @torch.no_grad()
    def scores_of(self, speech: np.ndarray, rate: int = SAMPLE_RATE) -> np.ndarray:
        inputs = self.processor(
            speech,
            padding="max_length",
            truncation=True,
            max_length=DURATION * SAMPLE_RATE,
            return_tensors="pt",
            sampling_rate=rate,
        ).input_values
        return torch.softmax(self.model(inputs), dim=1).numpy()[0]
