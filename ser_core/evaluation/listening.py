"""Predictions → the recordings that are worth hearing; it opens none of them."""

import numpy as np
import pandas as pd

from ser_core.evaluation.predictions import Predictions

_EACH = 10  # recordings in a list: with players of 6 s, about 0.4 MB


def most_confident_errors(predictions: Predictions) -> pd.DataFrame:
    """Wrong labels with the highest scores; the model knows the true class of these recordings.

    Returns:
        Columns ``path``, ``identity``, ``truth``, ``prediction``, ``score`` and ``score_of_truth``.
    """
    recordings = predictions.recordings
    wrong = recordings["prediction"].notna() & (recordings["prediction"] != recordings["truth"])
    known = recordings["truth"].isin(predictions.classes)
    errors = predictions.select((wrong & known).to_numpy())
    return _first(errors, -errors.scores.max(axis=1, initial=0))


def least_sure(predictions: Predictions) -> pd.DataFrame:
    """Labels whose score is closest to that of the next class, right or wrong.

    Returns:
        Columns ``path``, ``identity``, ``truth``, ``prediction``, ``score`` and ``score_of_truth``.
    """
    labelled = predictions.select(predictions.recordings["prediction"].notna().to_numpy())
    ascending = np.sort(labelled.scores, axis=1)
    return _first(labelled, ascending[:, -1] - ascending[:, :-1].max(axis=1, initial=0))


def _first(predictions: Predictions, keys: np.ndarray) -> pd.DataFrame:
    """The recordings with the lowest keys, in their order."""
    rows = np.argsort(keys, kind="stable")[:_EACH]
    recordings, scores = predictions.recordings.iloc[rows], predictions.scores[rows]
    truth = pd.Index(predictions.classes).get_indexer(pd.Index(recordings["truth"]))
    of_truth = np.where(truth < 0, np.nan, scores[np.arange(len(rows)), truth])
    table = recordings[["path", "identity", "truth", "prediction"]].reset_index(drop=True)
    return table.assign(score=scores.max(axis=1, initial=0), score_of_truth=of_truth)
