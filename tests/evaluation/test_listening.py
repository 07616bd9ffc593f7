"""Which recordings are worth hearing."""

import numpy as np
import pandas as pd

from ser_core.evaluation.listening import least_sure, most_confident_errors
from ser_core.evaluation.predictions import Predictions

LABELS = ("angry", "happy", "sad")


def predictions(*rows):
    """Of a truth and scores each; None is a recording without a label."""
    scores = np.array([[np.nan] * 3 if s is None else s for _, s in rows], np.float32)
    labels = [None if s is None else LABELS[int(np.argmax(s))] for _, s in rows]
    names = [f"{at}" for at in range(len(rows))]
    recordings = pd.DataFrame(
        {
            "path": names,
            "identity": [f"/{name}" for name in names],
            "truth": [truth for truth, _ in rows],
            "prediction": labels,
        },
        dtype=object,
    )
    return Predictions(recordings, scores, LABELS)


ROWS = [
    ("sad", [0.5, 0.4, 0.1]),
    ("sad", [0.8, 0.1, 0.1]),
    ("sad", [0.1, 0.1, 0.8]),
    ("boredom", [0.9, 0.1, 0.0]),
    ("sad", None),
    ("happy", [0.6, 0.3, 0.1]),
]


def test_the_most_confident_errors():
    table = most_confident_errors(predictions(*ROWS))
    assert table["path"].tolist() == ["1", "5", "0"]  # not boredom, which the model does not know
    assert table["identity"].tolist() == ["/1", "/5", "/0"]
    assert table["truth"].tolist() == ["sad", "happy", "sad"]
    assert table["prediction"].tolist() == ["angry"] * 3
    np.testing.assert_allclose(table["score"], [0.8, 0.6, 0.5], rtol=1e-6)
    np.testing.assert_allclose(table["score_of_truth"], [0.1, 0.3, 0.1], rtol=1e-6)


def test_the_least_sure():
    table = least_sure(predictions(*ROWS))
    assert table["path"].tolist() == ["0", "5", "1", "2", "3"]
    assert np.isnan(table["score_of_truth"].iloc[-1])  # boredom has no score


def test_lists_are_short():
    assert len(least_sure(predictions(*ROWS * 10))) == 10


def test_a_model_with_one_class():
    recordings = predictions(("sad", [1, 0, 0])).recordings.assign(prediction="sad")
    table = least_sure(Predictions(recordings, np.ones((1, 1), np.float32), ("sad",)))
    assert table["score"].tolist() == [1]
