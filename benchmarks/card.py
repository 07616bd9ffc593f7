"""The model card's script, restated: the baseline of the benchmarks and the oracle of the tests.

It is the only restatement: whatever compares with the card imports it from here. It shares no code
with `ser_core`, so that an error in one cannot hide an error in the other.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import HubertModel, Wav2Vec2FeatureExtractor
from transformers.models.hubert.modeling_hubert import HubertPreTrainedModel

DURATION = 6  # s
SAMPLE_RATE = 16_000  # Hz


class HubertClassificationHead(nn.Module):
    """As on the card."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.out_proj = nn.Linear(config.hidden_size, config.num_class)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """As on the card."""
        logits: torch.Tensor = self.out_proj(self.dropout(torch.tanh(self.dense(pooled))))
        return logits


class HubertForSpeechClassification(HubertPreTrainedModel):
    """As on the card, plus `post_init`, which transformers 5 requires."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.hubert = HubertModel(config)
        self.classifier = HubertClassificationHead(config)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(self, speech: torch.Tensor) -> torch.Tensor:
        """As on the card."""
        logits: torch.Tensor = self.classifier(torch.mean(self.hubert(speech)[0], dim=1))
        return logits


class Card:
    """The card's `predict`, with the model loaded once."""

    def __init__(
        self, checkpoint: str | Path, device: str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        self.processor = Wav2Vec2FeatureExtractor.from_pretrained(checkpoint)
        model: Any = HubertForSpeechClassification.from_pretrained(checkpoint)
        self.model = model.eval().to(device, dtype)

    def scores(self, path: str | Path) -> np.ndarray:
        """The scores of a file, shape ``(num_class,)``.

        The card dates from 2023, when `librosa.load` still read m4a and others through FFmpeg;
        librosa 1.0 raises ``LibsndfileError`` for them and returns the same samples otherwise.
        """
        import librosa  # not installed where only the network is measured

        speech, _ = librosa.load(path=path, sr=SAMPLE_RATE)
        return self.scores_of(speech)

    def scores_of(self, speech: np.ndarray) -> np.ndarray:
        """The scores of a waveform, shape ``(num_class,)``."""
        scores: np.ndarray = self.scores_of_batch([speech])[0]
        return scores

    @torch.no_grad()
    def scores_of_batch(self, speeches: list[np.ndarray]) -> np.ndarray:
        """The scores of several waveforms, shape ``(len(speeches), num_class)``.

        All are padded to 6 s, so they do not affect each other.
        """
        inputs = self.processor(
            speeches,
            padding="max_length",
            truncation=True,
            max_length=DURATION * SAMPLE_RATE,
            return_tensors="pt",
            sampling_rate=SAMPLE_RATE,
        ).input_values
        logits = self.model(inputs.to(self.model.device, self.model.dtype))
        scores: np.ndarray = torch.softmax(logits.float(), dim=1).cpu().numpy()
        return scores
