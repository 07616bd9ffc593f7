"""Tables → PNG figures; it computes no metric and writes no file."""

import functools
import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ParamSpec

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_P = ParamSpec("_P")
_DPI = 160
# matplotlib's own has no Chinese; the first of these that are installed are used for it.
_CHINESE_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Microsoft YaHei",
    "PingFang SC",
    "SimHei",
    "Arial Unicode MS",
)
_BLUE, _GREY = "#2b6cb0", "#718096"
_LIGHT_BLUE, _LIGHT_ORANGE = "#9cc3e6", "#f6b26b"


def _drawn_in_our_style(plot: Callable[_P, bytes]) -> Callable[_P, bytes]:
    """Names of classes are drawn as they are: not as formulas, and in Chinese if a font has it."""

    @functools.wraps(plot)
    def styled(*args: _P.args, **kwargs: _P.kwargs) -> bytes:
        import matplotlib  # an optional library: see libraries.py
        from matplotlib.font_manager import get_font_names

        installed = set(get_font_names())
        fonts = ["DejaVu Sans", *(name for name in _CHINESE_FONTS if name in installed)]
        with (
            matplotlib.rc_context({"font.family": fonts, "text.parse_math": False}),
            warnings.catch_warnings(),
        ):
            warnings.filterwarnings("ignore", "Glyph .* missing from font")
            return plot(*args, **kwargs)

    return styled


@_drawn_in_our_style
def plot_confusion(confusion: pd.DataFrame) -> bytes:
    """A confusion matrix: the number is the count, the shade its share of the row.

    Args:
        confusion: counts; the index is the truth, the columns are the predictions.
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
    axes.set_xlabel("prediction")
    axes.set_ylabel("truth")
    return _png(figure)


@_drawn_in_our_style
def plot_reliability(reliability: pd.DataFrame) -> bytes:
    """A reliability diagram: the accuracy of predictions by their confidence, above their number.

    Args:
        reliability: a row per bin of equal width, with columns ``from``, ``to``, ``recordings``,
            ``confidence`` and ``accuracy``.
    """
    from matplotlib.ticker import MaxNLocator  # an optional library: see libraries.py

    figure, axes, counts = _two_panels(5, 4.8)
    bins = reliability[reliability["recordings"] > 0]
    left, accuracy = bins["from"].to_numpy(), bins["accuracy"].to_numpy()
    gap = bins["confidence"].to_numpy() - accuracy
    width = float(reliability["to"].iloc[0] - reliability["from"].iloc[0])
    axes.bar(left, accuracy, width, align="edge", color=_BLUE, edgecolor="white", label="accuracy")
    for name, color, side in (
        ("score above accuracy", _LIGHT_ORANGE, gap > 0),
        ("score below accuracy", _LIGHT_BLUE, gap < 0),
    ):
        if side.any():  # opaque: what the legend shows is what is drawn
            axes.bar(
                *(left[side], gap[side], width, accuracy[side]),
                align="edge",
                color=color,
                edgecolor="white",
                label=name,
            )
    axes.plot([0, 1], [0, 1], "--", color=_GREY, label="perfectly calibrated")
    axes.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    axes.legend(frameon=False, loc="upper left", fontsize=9)
    bars = counts.bar(left, bins["recordings"], width, align="edge", color=_GREY, edgecolor="white")
    labels = [f"{count:,}" for count in bins["recordings"]]
    counts.bar_label(bars, labels, fontsize=8, padding=1, rotation=90 if _are_long(labels) else 0)
    counts.set(xlabel="confidence (score)", ylabel="recordings")
    counts.yaxis.set_major_formatter("{x:,.0f}")
    counts.yaxis.set_major_locator(MaxNLocator(integer=True))
    counts.margins(y=0.45 if _are_long(labels) else 0.2)
    return _png(figure)


def _are_long(labels: Sequence[str]) -> bool:
    return max(map(len, labels), default=0) > 3


@_drawn_in_our_style
def plot_lines(
    x: Sequence[float],
    lines: Mapping[str, Sequence[float]],
    labels: tuple[str, str],
    bottom: float | None = None,
    top: float | None = None,
) -> bytes:
    """Lines over the same x values, as training curves.

    Args:
        x: shape ``(num_points,)``.
        lines: y values by the name in the legend, each of the same shape.
        labels: of the x axis and the y axis.
        bottom: lower end of the y axis; None fits the data.
        top: upper end of the y axis; None fits the data.
    """
    figure, axes = _figure(6, 4)
    for name, y in lines.items():
        axes.plot(x, y, label=name)
    axes.set(xlabel=labels[0], ylabel=labels[1])
    axes.set_ylim(bottom, top)
    axes.legend(frameon=False)
    return _png(figure)


def _figure(width: float, height: float) -> "tuple[Figure, Axes]":
    """A figure with one pair of axes, in inches."""
    # An optional library: see libraries.py. pyplot would keep global state and look for a display.
    from matplotlib.figure import Figure

    figure = Figure((width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _two_panels(width: float, height: float) -> "tuple[Figure, Axes, Axes]":
    """A figure with a large pair of axes above a small one of the same x, in inches."""
    from matplotlib.figure import Figure  # an optional library: see libraries.py

    figure = Figure((width, height), layout="constrained")
    large, small = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    for axes in (large, small):
        axes.spines[["top", "right"]].set_visible(False)
    return figure, large, small


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    # Without matplotlib's version in it, the same figure is the same bytes.
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()


@_drawn_in_our_style
def plot_histogram(
    edges: np.ndarray, counts: np.ndarray, label: str, chance: float | None
) -> bytes:
    """A histogram, with a line where guessing would be.

    Args:
        edges: of bins of equal width, shape ``(num_bins + 1,)``.
        counts: of rows, shape ``(num_bins,)``.
        label: of the x axis.
        chance: what a model that cannot tell its classes apart would have, if that says something.
    """
    figure, axes = _figure(4.2, 2.4)
    axes.bar(edges[:-1], counts, edges[1] - edges[0], align="edge", color=_BLUE)
    if chance is not None:
        axes.axvline(chance, linestyle="--", color=_GREY, label="guessing")
        axes.legend(frameon=False, fontsize=9)
    axes.set(xlabel=label, ylabel="rows", xlim=(edges[0], edges[-1]))
    axes.ticklabel_format(axis="y", style="plain")
    return _png(figure)


@_drawn_in_our_style
def plot_course(starts: np.ndarray, end: float, scores: Mapping[str, np.ndarray]) -> bytes:
    """The scores of a recording's segments over time, stacked to 1.

    Args:
        starts: of the segments, s, shape ``(num_segments,)``.
        end: of the last one, s.
        scores: by class, each of the same shape.
    """
    figure, axes = _figure(7.6, 2.6)
    edges = np.append(starts, end)
    heights = (np.append(score, score[-1]) for score in scores.values())
    axes.stackplot(edges, *heights, labels=list(scores), step="post")
    axes.set(xlabel="time, s", ylabel="score", ylim=(0, 1), xlim=(edges[0], edges[-1]))
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    return _png(figure)
