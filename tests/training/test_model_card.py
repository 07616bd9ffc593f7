"""The model card says how to use the checkpoint, and the curves show the history."""

import pandas as pd
import pytest
from matplotlib.figure import Figure

from ser_core.training.config import TrainConfig
from ser_core.training.model_card import curves, render_card

METRICS = {
    "recordings": 4,
    "accuracy": 0.75,
    "uar": 0.625,
    "uar_interval": (0.5, 0.875),
    "macro_f1": 0.6,
    "loss": 0.7,
    "ece": 0.1,
}


def test_the_card():
    config = TrainConfig(corpus="casia", data="/data", output="/out", note="A [note] & more.")
    card = render_card(
        title="run/best",
        labels=["angry", "sad"],
        date="2026-11-26",
        config=config,
        start="all weights are new",
        method="random",
        split="train: 4 recordings",
        metrics={"validation": METRICS, "test": METRICS},
        temperature=None,
        epoch=3,
        settings={"seed": 34, "epochs": 30},
    ).decode()
    row = "4 | 0.750 | 0.625 | 0.500–0.875 | 0.600 | 0.700 | 0.100 |"
    assert f"|---|---|---|---|---|---|---|---|\n| validation | {row}\n| test | {row}\n" in card
    assert "--model FOLDER\n" in card
    assert "`FOLDER` is the folder of this file." in card
    assert "A [note] & more." in card  # Markdown, which is not escaped
    assert "`casia`, seed 34, split: random." in card
    assert card.rstrip().endswith("|---|---|\n| seed | 34 |\n| epochs | 30 |")


def test_curves(monkeypatch):
    figures = []
    save = Figure.savefig

    def savefig(figure, *args, **options):
        figures.append(figure)
        save(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    columns = ["epoch", "accuracy", "validation_accuracy", "loss", "validation_loss"]
    history = pd.DataFrame([(1, 0.5, 0.25, 2.0, 3.0), (2, 0.75, 0.5, 1.0, 2.5)], columns=columns)
    pictures = curves(history)
    assert list(pictures) == ["accuracy.png", "loss.png"]
    for figure, name in zip(figures, ("accuracy", "loss"), strict=True):
        (axes,) = figure.axes
        training, validation = (line.get_ydata().tolist() for line in axes.lines)
        assert training == history[name].tolist()
        assert validation == history[f"validation_{name}"].tolist()
        assert axes.get_ylim()[0] == 0
    assert figures[0].axes[0].get_ylim()[1] == pytest.approx(1)
