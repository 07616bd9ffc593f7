"""A training run → the card of a checkpoint and its curves; it writes no file.

Figures in it are the run's own; what they are worth depends on what the splits share, so the card
says that too.
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

Tells {{ labels | join(", ") }} apart in the first 6 s of a recording. Written by `jobs.train` on
{{ date }}, from `{{ config.model }}`{% if config.revision %} ({{ config.revision }}){% endif %}.
Start: {{ start }}.
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

Weights after epoch {{ epoch }} of {{ config.epochs }}.{% if temperature %} Logits are divided by
{{ "%.3f" | format(temperature) }}, a temperature fitted on validation.{% endif %}

| | recordings | accuracy | UAR | 95 % interval of UAR | macro F1 | loss | ECE |
|---|---|---|---|---|---|---|---|
{% for name, of in metrics.items() -%}
| {{ name }} | {{ of.recordings }} | {{ "%.3f" | format(of.accuracy) }} \
| {{ "%.3f" | format(of.uar) }} | {{ "%.3f–%.3f" | format(*of.uar_interval) }} \
| {{ "%.3f" | format(of.macro_f1) }} | {{ "%.3f" | format(of.loss) }} \
| {{ "%.3f" | format(of.ece) }} |
{% endfor %}
Chance is a UAR of {{ "%.3f" | format(1 / labels | length) }}. The interval is a bootstrap over
recordings, which overstates what is known where there are few speakers.

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
    """The card's Markdown, UTF-8, from what its template names."""
    import jinja2

    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    return environment.from_string(_CARD).render(**facts).encode()


def curves(history: pd.DataFrame) -> dict[str, bytes]:
    """``accuracy.png`` and ``loss.png``: training and validation by epoch.

    Args:
        history: columns ``epoch``, ``loss``, ``accuracy``, ``validation_loss`` and
            ``validation_accuracy``, a row per epoch.
    """
    from matplotlib.figure import Figure  # and not pyplot, which keeps a state and wants a screen

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
    """What predictions are worth.

    Args:
        logits: shape ``(num_recordings, num_class)``, of one recording at least.
        truth: classes, shape ``(num_recordings,)``.
        temperature: what the logits are divided by.
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
