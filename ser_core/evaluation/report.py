"""Judged recordings → metrics, intervals, tables, and what a reader must know; it does no I/O."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ser_core.evaluation import metrics
from ser_core.evaluation.predictions import Judged

_FEW_SPEAKERS = 10  # with fewer, intervals drawn over them come out too narrow
_TINY = np.finfo(np.float32).tiny


@dataclass(frozen=True)
class Scorecard:
    """What came out.

    Attributes:
        summary: every number, ready for JSON.
        notes: what a reader must know about them, a sentence each.
        tables: by name ``classes``, ``speakers``, ``confusion``, ``reliability``.
    """

    summary: dict[str, Any]
    notes: list[str]
    tables: dict[str, pd.DataFrame]


def score(judged: Judged, temperature: float | None = None) -> Scorecard:
    """Every number of the evaluation.

    Args:
        judged: recordings with truth and prediction.
        temperature: fitted on other recordings; what it would change is told.
    """
    recordings = judged.recordings
    classes = [*judged.labels, *sorted(set(recordings["truth"]) - set(judged.labels))]
    truth = pd.Index(classes).get_indexer(pd.Index(recordings["truth"]))
    prediction = pd.Index(classes).get_indexer(pd.Index(recordings["prediction"]))
    confusion = metrics.confusion_matrix(truth, prediction, len(classes))
    total = metrics.summarize(confusion)
    unlabelled = recordings["status"][prediction < 0]
    known = truth < len(judged.labels)
    summary: dict[str, Any] = {
        "recordings": len(recordings),
        "without_label": dict(Counter(unlabelled)),
        "labels_without_truth": judged.unjudged,
        "models": list(judged.models),
        "classes": classes,
        "unknown_to_model": classes[len(judged.labels) :],
        "never_in_truth": [name for name in judged.labels if name not in set(recordings["truth"])],
        **{name: value.item() for name, value in total._asdict().items()},
        "interval": _interval(recordings["speaker"], truth, prediction, confusion),
        **_calibration(judged.scores, truth, prediction, known, temperature),
    }
    if not known.all() and known.any():
        among = metrics.confusion_matrix(truth[known], prediction[known], len(classes))
        of_known = {
            name: value.item() for name, value in metrics.summarize(among)._asdict().items()
        }
        summary["classes_that_the_model_knows"] = {"recordings": int(known.sum()), **of_known}
    tables = {
        "classes": _class_table(confusion, classes),
        "confusion": pd.DataFrame(
            confusion, pd.Index(classes, name="truth"), [*classes, "no label"]
        ),
        "speakers": _speaker_table(recordings, truth, prediction),
        "reliability": _reliability_table(judged.scores, truth, prediction),
    }
    return Scorecard(summary, _notes(summary), tables)


def fit_on_validation(judged: Judged) -> float | None:
    """The best temperature of the split ``validation``, or None where there is none."""
    recordings = judged.recordings
    known = recordings["truth"].isin(judged.labels) & recordings["prediction"].notna()
    held = judged.only((known & (recordings["split"] == "validation")).to_numpy())
    if held.recordings.empty:
        return None
    truth = pd.Index(judged.labels).get_indexer(pd.Index(held.recordings["truth"]))
    return metrics.fit_temperature(_log(held.scores), truth)


def _log(scores: np.ndarray) -> np.ndarray:
    logarithms: np.ndarray = np.log(np.maximum(scores, _TINY))
    return logarithms


def _interval(
    speaker: pd.Series, truth: np.ndarray, prediction: np.ndarray, confusion: np.ndarray
) -> dict[str, Any]:
    """95 % intervals over speakers, or over recordings where fewer than two are known.

    Recordings of unknown speakers are drawn as those of one more.
    """
    if speaker.nunique() < 2:
        return {"over": "recordings", **metrics.interval_over_recordings(confusion)}
    of_each = [
        metrics.confusion_matrix(truth[rows], prediction[rows], len(confusion))
        for rows in speaker.groupby(speaker, dropna=False).indices.values()
    ]
    ends = metrics.interval_over_groups(np.stack(of_each))
    return {"over": "speakers", "speakers": speaker.nunique(), **ends}


def _calibration(
    scores: np.ndarray,
    truth: np.ndarray,
    prediction: np.ndarray,
    known: np.ndarray,
    temperature: float | None,
) -> dict[str, Any]:
    """Loss and calibration error of what has a label; the loss, where the model knows the truth."""
    labelled = prediction >= 0
    if not (labelled & known).any():
        return {"loss": None, "ece": None, "with_temperature": None}

    def measured(scores: np.ndarray) -> dict[str, float]:
        correct = (prediction == truth)[labelled]
        return {
            "loss": metrics.cross_entropy(scores[known[labelled]], truth[labelled & known]),
            "ece": metrics.expected_calibration_error(scores.max(axis=1), correct),
        }

    given = scores[labelled]
    with_temperature = None
    if temperature is not None:
        after = metrics.at_temperature(_log(given), temperature)
        with_temperature = {"temperature": temperature, **measured(after)}
    return {**measured(given), "with_temperature": with_temperature}


# ---- tables --------------------------------------------------------------------------------------


def _class_table(confusion: np.ndarray, classes: list[str]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "class": classes,
            "recordings": confusion.sum(axis=1),
            "predicted": confusion.sum(axis=0)[:-1],
            "recall": metrics.recalls(confusion),
            "precision": metrics.precisions(confusion),
            "f1": metrics.f1_scores(confusion),
        }
    )


def _speaker_table(
    recordings: pd.DataFrame, truth: np.ndarray, prediction: np.ndarray
) -> pd.DataFrame:
    """One row a speaker, from the one who is understood worst; empty where none is known."""
    rows = [
        {
            "speaker": name,
            "recordings": len(at),
            "without_label": int((prediction[at] < 0).sum()),
            "accuracy": metrics.accuracy(truth[at], prediction[at]),
            "uar": metrics.uar(truth[at], prediction[at]),
        }
        for name, at in recordings.groupby("speaker").indices.items()
    ]
    columns = ["speaker", "recordings", "without_label", "accuracy", "uar"]
    return pd.DataFrame(rows, columns=columns).sort_values("uar", ignore_index=True)


def _reliability_table(
    scores: np.ndarray, truth: np.ndarray, prediction: np.ndarray
) -> pd.DataFrame:
    labelled = prediction >= 0
    bins = metrics.reliability(scores[labelled].max(axis=1), (truth == prediction)[labelled])
    edges = np.linspace(0, 1, metrics.BINS + 1)
    return pd.DataFrame({"from": edges[:-1], "to": edges[1:], **bins._asdict()})


# ---- words ---------------------------------------------------------------------------------------


def _notes(summary: dict[str, Any]) -> list[str]:
    interval = summary["interval"]
    over_speakers = interval["over"] == "speakers"
    if over_speakers:
        notes = [
            f"The intervals (95 %) come from drawing the {interval['speakers']} speakers anew."
        ]
        if interval["speakers"] < _FEW_SPEAKERS:
            notes[0] += (
                " So few say little about people who are not among them: take the intervals for"
                " too narrow."
            )
    else:
        notes = [
            "The intervals (95 %) come from drawing the recordings anew, as fewer than two speakers"
            " are known. They say nothing about other speakers."
        ]
    missing = summary["without_label"]
    if missing:
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in missing.items())
        count = f"{sum(missing.values()):,} of {summary['recordings']:,}"
        notes.append(f"{count} recordings have no label ({kinds}); they count as errors.")
    return notes + _notes_on_classes(summary) + _notes_on_labels(summary)


def _notes_on_classes(summary: dict[str, Any]) -> list[str]:
    notes = []
    if unknown := summary["unknown_to_model"]:
        words = f"The model does not know {', '.join(unknown)}: such recordings count as errors."
        if among := summary.get("classes_that_the_model_knows"):
            words += (
                f" Among the {among['recordings']:,} others, UAR is {among['uar']:.3f} and accuracy"
                f" {among['accuracy']:.3f}."
            )
        notes.append(words)
    if never := summary["never_in_truth"]:
        notes.append(f"The model also knows {', '.join(never)}, of which the truth has none.")
    return notes


def _notes_on_labels(summary: dict[str, Any]) -> list[str]:
    notes = []
    if summary["labels_without_truth"]:
        notes.append(f"{summary['labels_without_truth']:,} labels have no truth and are left out.")
    if len(summary["models"]) > 1:
        notes.append(f"The labels are of several models: {', '.join(summary['models'])}.")
    if after := summary["with_temperature"]:
        notes.append(
            f"With the temperature {after['temperature']:.2f}, fitted on validation, the loss would"
            f" be {after['loss']:.3f} and the calibration error {after['ece']:.3f}."
        )
    return notes
