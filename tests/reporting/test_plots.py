"""Figures show the tables that they are given."""

import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from ser_core.reporting.plots import plot_confusion, plot_lines, plot_reliability

LABELS = ["sad", "happy"]
CONFUSION = pd.DataFrame([[3, 1, 0], [0, 0, 0]], LABELS, [*LABELS, "no label"])


@pytest.fixture
def drawn(monkeypatch):
    """The axes of the last figure that was saved."""
    axes = []
    save = Figure.savefig

    def savefig(figure, *args, **options):
        axes.extend(figure.axes)
        save(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return axes


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["$a_$", "平静"])
def test_names_of_classes_are_no_formulas_and_may_be_chinese(name):
    confusion = pd.DataFrame([[3, 1]], [name], [name, "no label"])
    assert imread(io.BytesIO(plot_confusion(confusion))).ndim == 3


def test_confusion(drawn):
    confusion = CONFUSION.copy()
    confusion.loc["angry"] = [0, 1, 1]
    picture = imread(io.BytesIO(plot_confusion(confusion)))
    assert picture.ndim == 3
    (axes,) = drawn
    assert [text.get_text() for text in axes.texts] == list("310000011")
    np.testing.assert_allclose(
        axes.images[0].get_array(), [[0.75, 0.25, 0], [0, 0, 0], [0, 0.5, 0.5]]
    )
    assert [label.get_text() for label in axes.get_yticklabels()] == ["sad", "happy", "angry"]
    assert axes.get_ylabel() == "truth"


def test_reliability(drawn):
    table = pd.DataFrame(
        {
            "from": [0, 0.25, 0.5, 0.75],
            "to": [0.25, 0.5, 0.75, 1],
            "recordings": [0, 10, 0, 5],
            "confidence": [np.nan, 0.4, np.nan, 0.9],
            "accuracy": [np.nan, 0.3, np.nan, 1.0],
        }
    )
    plot_reliability(table)
    axes, below = drawn
    bars = [(bar.get_x(), bar.get_y(), bar.get_height()) for bar in axes.patches]
    expected = [(0.25, 0, 0.3), (0.75, 0, 1), (0.25, 0.3, 0.1), (0.75, 1, -0.1)]
    np.testing.assert_allclose(bars, expected, atol=1e-9)
    assert [bar.get_height() for bar in below.patches] == [10, 5]
    assert [text.get_text() for text in below.texts] == ["10", "5"]
    legend = axes.get_legend()
    names = [text.get_text() for text in legend.texts if text.get_text() != "perfectly calibrated"]
    colors = [patch.get_facecolor() for patch in legend.get_patches()]
    assert names == ["accuracy", "score above accuracy", "score below accuracy"]
    assert colors == [axes.patches[at].get_facecolor() for at in (0, 2, 3)]
    assert all(alpha == 1 for *_, alpha in colors)  # else the legend shows another colour


def test_lines(drawn):
    lines = {"training": [3, 2, 1], "validation": [3, 3, 2]}
    plot_lines([1, 2, 3], lines, ("epoch", "loss"), bottom=0)
    (axes,) = drawn
    assert [line.get_ydata().tolist() for line in axes.lines] == list(lines.values())
    assert [text.get_text() for text in axes.get_legend().texts] == list(lines)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "loss")
    assert axes.get_ylim()[0] == 0
    assert axes.get_ylim()[1] > 3


def test_the_same_table_is_the_same_file():
    assert plot_confusion(CONFUSION) == plot_confusion(CONFUSION)
    assert b"Matplotlib" not in plot_confusion(CONFUSION)
