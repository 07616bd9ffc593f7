"""Makes a checkpoint in the format of the model card's, with random weights."""

import argparse
from pathlib import Path
from typing import Any

import torch
from transformers import HubertConfig, Wav2Vec2FeatureExtractor
from transformers.utils.logging import disable_progress_bar

from ser_core.emotions import CASIA_LABELS
from ser_core.models.hubert import HubertForSpeechClassification

# A small version of the published architecture; the strides are the same, so 6 s are 299 frames.
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": (32,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}


def make_checkpoint(folder: Path, full: bool = False) -> None:
    """Writes config.json, model.safetensors and preprocessor_config.json.

    Args:
        folder: where to write; created if it does not exist.
        full: make it as large as the published checkpoint, 95 million parameters.
    """
    torch.manual_seed(34)
    classes: dict[str, Any] = {
        "num_class": len(CASIA_LABELS),
        "classifier_dropout": 0.1,
        "id2label": dict(enumerate(CASIA_LABELS)),
        "label2id": {label: index for index, label in enumerate(CASIA_LABELS)},
    }
    config = HubertConfig(**classes, **({} if full else SMALL))
    model = HubertForSpeechClassification(config)
    spread_scores(model)
    disable_progress_bar()  # type: ignore[no-untyped-call]
    model.save_pretrained(folder)
    extractor = Wav2Vec2FeatureExtractor()  # type: ignore[no-untyped-call]
    extractor.save_pretrained(folder)  # the defaults are the card's: no attention mask


def spread_scores(model: HubertForSpeechClassification) -> None:
    """Initializes the head with weights so large that the scores of recordings differ visibly."""
    head = model.classifier
    size = head.dense.in_features
    torch.nn.init.normal_(head.dense.weight, std=size**-0.5)
    torch.nn.init.normal_(head.out_proj.weight, std=4 * size**-0.5)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--full", action="store_true", help="the published size, 380 MB")
    arguments = parser.parse_args()
    make_checkpoint(arguments.folder, arguments.full)
