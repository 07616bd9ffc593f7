"""A training run → a checkpoint's model card and learning curves; it writes no file.

What the figures mean depends on what the splits share, so the card says that too.
"""

import io
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

_CARD = """\
---
pipeline_tag: audio-classification
tags: [speech-emotion-recognition, hubert]
---
# {{ title }}

Classifies the first 6 s of a recording as {{ labels | join(", ") }}. Trained by `jobs.train` on
{{ date }} from `{{ config.model }}`{% if config.revision %} ({{ config.revision }}){% endif %}.
Initial weights: {{ start }}.
{% if config.note %}
{{ config.note }}
{% endif %}
```bash
python -m jobs.label --input FOLDER --output LABELS --model {{ title }}
```

## Data

`{{ config.corpus }}`, seed {{ config.seed }}, split: {{ protocol }}.

```
{{ split }}
```

## Metrics

Weights after epoch {{ epoch }} of {{ config.epochs }}.{% if temperature %} Temperature
{{ "%.3f" | format(temperature) }}, fitted on validation.{% endif %}

| | recordings | accuracy | UAR | 95 % interval of UAR | macro F1 | loss | ECE |
|---|---|---|---|---|---|---|---|
{% for name, m in metrics.items() -%}
| {{ name }} | {{ m.recordings }} | {{ "%.3f" | format(m.accuracy) }} \
| {{ "%.3f" | format(m.uar) }} | {{ "%.3f–%.3f" | format(*m.uar_interval) }} \
| {{ "%.3f" | format(m.macro_f1) }} | {{ "%.3f" | format(m.loss) }} \
| {{ "%.3f" | format(m.ece) }} |
{% endfor %}
Chance level is a UAR of {{ "%.3f" | format(1 / labels | length) }}. The interval is a bootstrap
over recordings; with few speakers it is too narrow.

![accuracy](accuracy.png)
![loss](loss.png)

## Training

| | |
|---|---|
{% for name, value in settings.items() -%}
| {{ name }} | {{ value }} |
{% endfor %}
"""


def render_card(**facts: Any) -> bytes:
    """The card as Markdown, UTF-8; ``facts`` are the variables of its template."""
    import jinja2

    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    return environment.from_string(_CARD).render(**facts).encode()


def curves(history: pd.DataFrame) -> dict[str, bytes]:
    """``accuracy.png`` and ``loss.png``: training and validation by epoch.

    Args:
        history: columns ``epoch``, ``loss``, ``accuracy``, ``validation_loss`` and
            ``validation_accuracy``, a row per epoch.
    """
    from matplotlib.figure import Figure  # not pyplot, which keeps global state

    pictures = {}
    for name in ("accuracy", "loss"):
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        axes.plot(history["epoch"], history[name], label="training")
        axes.plot(history["epoch"], history[f"validation_{name}"], label="validation")
        axes.set(xlabel="epoch", ylabel=name, ylim=(0, 1 if name == "accuracy" else None))
        axes.legend()
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
        pictures[f"{name}.png"] = buffer.getvalue()
    return pictures


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
