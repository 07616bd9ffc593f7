"""Tables → pictures and pages; it computes nothing and knows no file.

matplotlib and jinja2 are of the extra ``report``, hence imported where they are used.
"""

import base64
import importlib.util
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ser_core.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 160
_LIBRARIES = ("matplotlib", "jinja2")
_BLUE, _RED, _GREY = "#2b6cb0", "#c53030", "#718096"


def require_libraries(extra: str) -> None:
    """Says at the start that what draws is missing, rather than at the end of a long run.

    Args:
        extra: which one of the package brings it.

    Raises:
        UsageError: it is not installed.
    """
    if not all(map(importlib.util.find_spec, _LIBRARIES)):
        words = "what draws and lays out pages is not installed"
        raise UsageError(f"{words}: pip install 'ser-batch[{extra}]'")


def confusion_picture(confusion: pd.DataFrame) -> bytes:
    """A PNG of a confusion matrix: shares of each row as shades, counts as numbers.

    Args:
        confusion: counts; the index is the truth, the columns what it was taken for.
    """
    counts = confusion.to_numpy()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = _figure(1.2 + 0.75 * counts.shape[1], 1.2 + 0.6 * counts.shape[0])
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), count in np.ndenumerate(counts):
        shade = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, f"{count:,}", ha="center", va="center", color=shade, fontsize=9)
    axes.set_xticks(range(counts.shape[1]), confusion.columns, rotation=40, ha="right")
    axes.set_yticks(range(counts.shape[0]), confusion.index)
    axes.set_xlabel("label")
    axes.set_ylabel("truth")
    return _png(figure)


def reliability_picture(reliability: pd.DataFrame) -> bytes:
    """A PNG of a reliability diagram: how often predictions of each confidence are right.

    Args:
        reliability: a row a bin, columns ``from``, ``to``, ``recordings``, ``confidence`` and
            ``accuracy``.
    """
    figure, axes = _figure(5, 4.4)
    bins = reliability[reliability["recordings"] > 0]
    width = float(reliability["to"].iloc[0] - reliability["from"].iloc[0])
    axes.bar(bins["from"], bins["accuracy"], width, align="edge", color=_BLUE, edgecolor="white")
    gap = (bins["confidence"] - bins["accuracy"]).to_numpy()
    axes.bar(
        bins["from"],
        gap,
        width,
        bins["accuracy"],
        align="edge",
        color=_RED,
        alpha=0.25,
        label="gap",
    )
    axes.plot([0, 1], [0, 1], "--", color=_GREY, label="calibrated")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="score of the label", ylabel="share that is right")
    axes.legend(frameon=False, loc="upper left")
    return _png(figure)


def _figure(width: float, height: float) -> "tuple[Figure, Axes]":
    """A figure of its own, in inches, that pyplot knows nothing of."""
    from matplotlib.figure import Figure

    figure = Figure((width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def page(template: str, pictures: Mapping[str, bytes], **content: Any) -> str:
    """A page of HTML that needs no other file.

    Args:
        template: a file in ``ser_core/reporting/templates``.
        pictures: PNGs by name, for the template as ``data:`` URIs.
        content: whatever else the template names.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ser_core.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    inlined = {
        name: f"data:image/png;base64,{base64.b64encode(picture).decode()}"
        for name, picture in pictures.items()
    }
    return environment.get_template(template).render(pictures=inlined, **content)
