"""Measures how far scores in fp32, fp16 and bf16 are from the model card's, and how often.

The tolerances of `verify` are several times these differences. Networks: the example's, which is
trained, and one of the published size with random weights.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measuring import ROOT, add_emodb_flag, full_checkpoint, machine, write_result
from ser_core.audio.decode import decode
from ser_core.models.card import Card
from ser_core.models.checkpoint import load_checkpoint
from ser_core.models.classifier import Classifier
from ser_core.settings import Precision
from ser_core.storage.reading import open_file

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16")
EVERY = {"example": 5, "published size": 54}  # recording of EMO-DB's 535


def differences(checkpoint: str, paths: list[Path]) -> dict[str, Any]:
    """The largest difference of each recording's scores from the card's, in figures."""
    speeches = []
    for path in paths:
        with open_file(str(path)) as handle:
            speeches.append(decode(handle).waveform)
    expected, loaded = _scores(Card(checkpoint), speeches), load_checkpoint(checkpoint)
    sides: dict[str, np.ndarray] = {
        name: Classifier(loaded, name).scores(speeches) for name in PRECISIONS
    }
    sides["transformers bf16"] = _scores(Card(checkpoint, dtype=torch.bfloat16), speeches)
    return {
        "recordings": len(paths),
        **{name: _figures(scores, expected) for name, scores in sides.items()},
    }


def _scores(card: Card, speeches: list[np.ndarray]) -> np.ndarray:
    return np.stack([card.scores_of(speech) for speech in speeches])


def _figures(scores: np.ndarray, expected: np.ndarray) -> dict[str, float]:
    largest = np.abs(scores - expected).max(axis=1)
    return {
        "median": float(np.median(largest)),
        "nine_in_ten": float(np.quantile(largest, 0.9)),
        "largest": float(largest.max()),
        "equal_labels": float((scores.argmax(axis=1) == expected.argmax(axis=1)).mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_emodb_flag(parser)
    paths = sorted(parser.parse_args().data.glob("*.wav"))
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = {
            "example": str(ROOT / "examples" / "checkpoint"),
            "published size": str(full_checkpoint(Path(folder))),
        }
        host, networks = machine(), dict[str, Any]()
        for name, checkpoint in checkpoints.items():
            networks[name] = differences(checkpoint, paths[:: EVERY[name]])
            write_result("precision-cpu", {"machine": host, "data": "EMO-DB", "networks": networks})


if __name__ == "__main__":
    main()
