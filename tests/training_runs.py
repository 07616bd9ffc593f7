"""A small corpus with truth, the settings of a short training run, and what its output holds."""

import json
from pathlib import Path

import pandas as pd
import safetensors.numpy
from checkpoints import NOTHING_DRAWN
from recordings import speech_like, write_audio

from examples.make_checkpoint import SMALL
from ser_core.training.config import TrainConfig

SPLITS = ["train"] * 7 + ["validation"] * 3 + ["test"] * 4


def write_corpus(folder: Path) -> Path:
    """Writes a manifest of recordings of two classes, one of which is not audio, and configs."""
    rows = []
    for index, split in enumerate(SPLITS):
        write_audio(folder / f"{index}.wav", speech_like(0.5 + 0.1 * index, seed=index))
        rows.append((f"{index}.wav", ("sad", "angry")[index % 2], f"speaker{index % 3}", split))
    (folder / "broken.wav").write_bytes(b"This is not audio.\n")
    rows.append(("broken.wav", "sad", "speaker0", "train"))
    table = pd.DataFrame(rows, columns=["path", "label", "speaker", "split"])
    table.to_csv(folder / "manifest.csv", index=False)
    (folder / "model.json").write_text(json.dumps(SMALL))
    (folder / "deterministic.json").write_text(json.dumps(SMALL | NOTHING_DRAWN))
    return folder


def short_run(corpus: Path, output: object, model: str = "model.json", **changes) -> TrainConfig:
    """The settings of a run of six epochs."""
    return TrainConfig(
        corpus="manifest",
        data=str(corpus / "manifest.csv"),
        model=str(corpus / model),
        output=str(output),
        **{"epochs": 6, "batch_size": 3, "learning_rate": 1e-3, "precision": "fp32"} | changes,
    )


def flags(config: TrainConfig) -> dict[str, str]:
    """The flags of the command, but for those without a value."""
    values = config.model_dump(exclude_defaults=True, exclude={"calibrate"})
    return {name: str(value) for name, value in values.items()}


def load_weights(folder):
    return safetensors.numpy.load_file(f"{folder}/model.safetensors")


def read_history(output):
    """``history.csv`` without what differs from run to run."""
    table = pd.read_csv(f"{output}/history.csv", float_precision="round_trip")
    return table.drop(columns="seconds")
