"""The model card's script, restated: what `verify`, the tests and the benchmarks compare with.

It is the only restatement. It imports nothing of this project, and in particular neither the
loading of checkpoints nor the network, so that an error there cannot hide itself here.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import (
    AutoModelForAudioClassification,
    BatchFeature,
    HubertModel,
    Wav2Vec2FeatureExtractor,
)
from transformers.models.hubert.modeling_hubert import HubertPreTrainedModel
from transformers.utils.logging import disable_progress_bar

DURATION = 6  # s
SAMPLE_RATE = 16_000  # Hz
EMOTIONS = ("angry", "fear", "happy", "neutral", "sad", "surprise")  # the card's `id2class`


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
        self.post_init()

    def forward(self, speech: torch.Tensor) -> torch.Tensor:
        """As on the card."""
        logits: torch.Tensor = self.classifier(torch.mean(self.hubert(speech)[0], dim=1))
        return logits


class Card:
    """The card's `predict`, with the model loaded once.

    A checkpoint with a head of transformers is passed to the class of transformers instead, with
    the attention mask, if its feature extractor makes one.

    Attributes:
        labels: the classes in the order of the scores.
    """

    def __init__(
        self, checkpoint: str | Path, device: str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        """Loads a checkpoint with transformers.

        Raises:
            ValueError: it lacks weights, which transformers would initialize at random.
            Exception: what transformers raises, of whatever type.
        """
        settings = json.loads((Path(checkpoint) / "config.json").read_text(encoding="utf-8"))
        self.processor = Wav2Vec2FeatureExtractor.from_pretrained(checkpoint)
        self._temperature = settings.get("temperature", 1.0)
        self._is_card = not _is_of_transformers(settings)
        network: Any = AutoModelForAudioClassification
        if self._is_card:
            network = HubertForSpeechClassification
        model, info = network.from_pretrained(
            checkpoint, dtype=torch.float32, output_loading_info=True
        )
        if missing := {*info["missing_keys"], *info["mismatched_keys"]}:
            raise ValueError(f"it has no weights for {sorted(map(str, missing))[0]}")
        self.model = model.eval().to(device, dtype)
        self.labels = _labels(settings)

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

    @property
    def device(self) -> str:
        """What it runs on: ``cpu``, or the name of a GPU."""
        device = self.model.device
        return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"

    def inputs(self, speeches: list[np.ndarray]) -> BatchFeature:
        """What the feature extractor makes of waveforms: ``input_values``, padded to 6 s."""
        return self.processor(
            speeches,
            padding="max_length",
            truncation=True,
            max_length=DURATION * SAMPLE_RATE,
            return_tensors="pt",
            sampling_rate=SAMPLE_RATE,
        )

    @torch.no_grad()
    def scores_of_batch(self, speeches: list[np.ndarray]) -> np.ndarray:
        """The scores of several waveforms, shape ``(len(speeches), num_class)``.

        All are padded to 6 s, so they do not affect each other.
        """
        inputs = self.inputs(speeches)
        values = inputs.input_values.to(self.model.device, self.model.dtype)
        if self._is_card:
            logits = self.model(values)
        else:
            mask = inputs.get("attention_mask")
            mask = None if mask is None else mask.to(self.model.device)
            logits = self.model(values, attention_mask=mask).logits
        scores: np.ndarray = torch.softmax(logits.float() / self._temperature, dim=1).cpu().numpy()
        return scores


def exact_card(checkpoint: str | Path) -> Card:
    """The card's script in fp32, on a GPU if there is one; see `Card`."""
    disable_progress_bar()
    torch.backends.cudnn.allow_tf32 = False  # 10 bits of mantissa, by default, in convolutions
    return Card(checkpoint, "cuda" if torch.cuda.is_available() else "cpu")


def _is_of_transformers(settings: dict[str, Any]) -> bool:
    """Whether a ``config.json`` describes a head of transformers rather than the card's."""
    architectures = settings.get("architectures") or []
    return "num_class" not in settings or any("ForSequence" in name for name in architectures)


def _labels(settings: dict[str, Any]) -> tuple[str, ...]:
    """The names in ``config.json``; where it has none, the card's."""
    names = settings.get("id2label") or {}
    labels = tuple(names[key] for key in sorted(names, key=int))
    return EMOTIONS if all(name.startswith("LABEL_") for name in labels) else labels
