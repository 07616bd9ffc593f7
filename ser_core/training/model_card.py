"""A training run → a checkpoint's model card and learning curves; it writes no file.

What the figures mean depends on what the splits share, so the card says that too.
"""

from typing import Any

import numpy as np
import pandas as pd

from ser_core.evaluation.metrics import (
    accuracy,
    at_temperature,
    confusion_matrix,
    cross_entropy,
    expected_calibration_error,
    interval_over_recordings,
    macro_f1,
    uar,
)
from ser_core.reporting.plots import plot_lines


def render_card(**facts: Any) -> bytes:
    """The card as Markdown, UTF-8; ``facts`` are the variables of its template."""
    import jinja2  # an optional library: see reporting/libraries.py

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ser_core.reporting"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template("model_card.md").render(**facts).encode()


def curves(history: pd.DataFrame) -> dict[str, bytes]:
    """``accuracy.png`` and ``loss.png``: training and validation by epoch.

    Args:
        history: columns ``epoch``, ``loss``, ``accuracy``, ``validation_loss`` and
            ``validation_accuracy``, a row per epoch.
    """
    tops = {"accuracy": 1.0, "loss": None}
    return {f"{name}.png": _curve(history, name, top) for name, top in tops.items()}


def _curve(history: pd.DataFrame, name: str, top: float | None) -> bytes:
    lines = {"training": history[name], "validation": history[f"validation_{name}"]}
    return plot_lines(
        history["epoch"].tolist(),
        {line: values.tolist() for line, values in lines.items()},
        labels=("epoch", name),
        bottom=0,
        top=top,
    )


def measure(logits: np.ndarray, truth: np.ndarray, temperature: float) -> dict[str, Any]:
    """Metrics of predictions, as in ``metrics.json``.

    Args:
        logits: shape ``(num_recordings, num_class)``, with at least one recording.
        truth: class indices, shape ``(num_recordings,)``.
        temperature: the logits are divided by it.
    """
    scores = at_temperature(logits.astype(np.float64), temperature)
    prediction = scores.argmax(axis=1)
    confusion = confusion_matrix(truth, prediction, logits.shape[1])
    return {
        "recordings": len(truth),
        "accuracy": accuracy(truth, prediction),
        "uar": uar(truth, prediction),
        "uar_interval": interval_over_recordings(confusion)["uar"],
        "macro_f1": macro_f1(truth, prediction),
        "loss": cross_entropy(scores, truth),
        "ece": expected_calibration_error(scores.max(axis=1), prediction == truth),
        "confusion": confusion.tolist(),
    }
