"""Predictions → metrics, chance, intervals and tables; it does no I/O."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ser_core.evaluation import chance, metrics
from ser_core.evaluation.listening import least_sure, most_confident_errors
from ser_core.evaluation.notes import notes_on, warnings_of
from ser_core.evaluation.predictions import Predictions
from ser_core.schema import NO_LABEL

_TINY = np.finfo(np.float32).tiny


@dataclass(frozen=True)
class Report:
    """The result of an evaluation.

    Attributes:
        summary: all figures, ready for JSON.
        warnings: why the figures, or the labels, may be worth little.
        notes: what a reader needs to know about them, a sentence or two each.
        tables: by name: ``classes``, ``speakers``, ``confusion``, ``reliability``,
            ``confident_errors``, ``least_sure``.
    """

    summary: dict[str, Any]
    warnings: list[str]
    notes: list[str]
    tables: dict[str, pd.DataFrame]


def make_report(predictions: Predictions, temperature: float | None = None) -> Report:
    """Computes all figures of an evaluation.

    Args:
        predictions: at least one recording.
        temperature: fitted on other recordings; the report states what it would change.
    """
    recordings = predictions.recordings
    known_classes = predictions.classes
    in_truth = set(recordings["truth"])
    classes = [*known_classes, *sorted(in_truth - set(known_classes))]
    truth = pd.Index(classes).get_indexer(pd.Index(recordings["truth"]))
    prediction = pd.Index(classes).get_indexer(pd.Index(recordings["prediction"]))
    confusion = metrics.confusion_matrix(truth, prediction, len(classes))
    speakers, by_speaker = _by_speaker(recordings["speaker"], truth, prediction, len(classes))
    known = truth < len(known_classes)
    summary: dict[str, Any] = {
        "recordings": len(recordings),
        "without_label": dict(Counter(recordings["status"][prediction < 0])),
        "labels_without_truth": predictions.labels_without_truth,
        "models": list(predictions.models),
        "classes": classes,
        "unknown_to_model": classes[len(known_classes) :],
        "never_in_truth": [name for name in known_classes if name not in in_truth],
        **_totals(truth, prediction),
        "interval": _interval(len(speakers), by_speaker, confusion),
        "chance": _chance(truth, classes, predictions),
        **_calibration(predictions.scores, truth, prediction, known, temperature),
    }
    if not known.all() and known.any():
        summary["classes_that_the_model_knows"] = _totals_of_known(truth[known], prediction[known])
    columns = [*classes, NO_LABEL]
    tables = {
        "classes": _class_table(truth, prediction, classes),
        "confusion": pd.DataFrame(confusion, pd.Index(classes, name="truth"), columns),
        "speakers": _speaker_table(speakers, by_speaker[: len(speakers)]),
        "reliability": _reliability_table(predictions.scores, truth, prediction),
        "confident_errors": most_confident_errors(predictions),
        "least_sure": least_sure(predictions),
    }
    return Report(summary, warnings_of(summary), notes_on(summary), tables)


def fit_on_validation(predictions: Predictions) -> float | None:
    """The best temperature for the split ``validation``; None if it has no labelled recording."""
    recordings = predictions.recordings
    usable = recordings["truth"].isin(predictions.classes) & recordings["prediction"].notna()
    validation = predictions.select((usable & (recordings["split"] == "validation")).to_numpy())
    if validation.recordings.empty:
        return None
    truth = pd.Index(predictions.classes).get_indexer(pd.Index(validation.recordings["truth"]))
    return metrics.fit_temperature(_log(validation.scores), truth)


def _log(scores: np.ndarray) -> np.ndarray:
    """Finite logarithms, also of a score that is 0 in float32."""
    logarithms: np.ndarray = np.log(np.maximum(scores, _TINY))
    return logarithms


# ---- figures -------------------------------------------------------------------------------------


def _totals(truth: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    return {
        "accuracy": metrics.accuracy(truth, prediction),
        "uar": metrics.uar(truth, prediction),
        "macro_f1": metrics.macro_f1(truth, prediction),
    }


def _by_speaker(
    speaker: pd.Series, truth: np.ndarray, prediction: np.ndarray, num_classes: int
) -> tuple[list[str], np.ndarray]:
    """The known speakers, and the confusion matrix of each; then that of unknown ones, if any."""
    codes, names = pd.factorize(speaker.where(speaker.notna(), None))
    matrices = np.zeros((len(names) + 1, num_classes, num_classes + 1), np.int64)
    np.add.at(matrices, (codes, truth, prediction), 1)  # -1, for unknown and for none, is the last
    return [*names], matrices if (codes < 0).any() else matrices[:-1]


def _interval(speakers: int, by_speaker: np.ndarray, confusion: np.ndarray) -> dict[str, Any]:
    """95 % intervals over speakers, or over recordings if fewer than two speakers are known.

    The recordings of unknown speakers are resampled together, as if they had one speaker.
    """
    if speakers < 2:
        return {"over": "recordings", **metrics.interval_over_recordings(confusion)}
    ends = metrics.interval_over_groups(by_speaker)
    return {"over": "speakers", "speakers": speakers, **ends}


def _totals_of_known(truth: np.ndarray, prediction: np.ndarray) -> dict[str, Any]:
    totals = _totals(truth, prediction)
    return {"recordings": len(truth), **totals, "chance": _chance_of_totals(truth)}


def _chance_of_totals(truth: np.ndarray) -> dict[str, float]:
    return {
        "accuracy": chance.chance_of_accuracy(truth)[0],
        "uar": chance.chance_of_uar(truth),
        "macro_f1": chance.chance_of_macro_f1(truth),
    }


def _chance(truth: np.ndarray, classes: list[str], predictions: Predictions) -> dict[str, Any]:
    """What guessing reaches, by figure; for ECE, what a perfectly calibrated model has."""
    confidence = predictions.scores.max(axis=1)
    confidence = confidence[np.isfinite(confidence)]
    ece = chance.calibrated_error(confidence) if len(confidence) else (None, None)
    return {
        **_chance_of_totals(truth),
        "most_frequent": classes[chance.chance_of_accuracy(truth)[1]],
        "loss": float(np.log(len(predictions.classes))),
        "ece": ece[0],
        "ece_95": ece[1],
    }


def _calibration(
    scores: np.ndarray,
    truth: np.ndarray,
    prediction: np.ndarray,
    known: np.ndarray,
    temperature: float | None,
) -> dict[str, Any]:
    """Calibration error of labelled recordings, and loss of those whose class the model knows."""
    labelled = prediction >= 0
    if not (labelled & known).any():
        return dict.fromkeys(("loss", "ece", "with_temperature"))

    correct = (prediction == truth)[labelled]

    def measure(scores: np.ndarray) -> dict[str, float]:
        return {
            "loss": metrics.cross_entropy(scores[known[labelled]], truth[labelled & known]),
            "ece": metrics.expected_calibration_error(scores.max(axis=1), correct),
        }

    with_temperature = None
    if temperature is not None:
        scaled = metrics.at_temperature(_log(scores[labelled]), temperature)
        with_temperature = {"temperature": temperature, **measure(scaled)}
    return {
        **measure(scores[labelled]),
        "with_temperature": with_temperature,
        "confidence": float(scores[labelled].max(axis=1).mean()),
        "accuracy_of_labelled": float(correct.mean()),
    }


# ---- tables --------------------------------------------------------------------------------------


def _class_table(truth: np.ndarray, prediction: np.ndarray, classes: list[str]) -> pd.DataFrame:
    """A row per class; its share of the recordings is the precision and the F1 of guessing."""
    recordings = np.bincount(truth, minlength=len(classes))
    return pd.DataFrame(
        {
            "class": classes,
            "recordings": recordings,
            "share": recordings / len(truth),
            "predicted": np.bincount(prediction[prediction >= 0], minlength=len(classes)),
            **metrics.class_scores(truth, prediction, len(classes))._asdict(),
            "recall_chance": np.where(recordings > 0, chance.chance_of_uar(truth), np.nan),
        }
    )


def _speaker_table(speakers: list[str], by_speaker: np.ndarray) -> pd.DataFrame:
    """A row per known speaker, sorted by UAR from the lowest."""
    recordings = by_speaker.sum(axis=2)
    summary = metrics.summarize(by_speaker)
    table = pd.DataFrame(
        {
            "speaker": speakers,
            "recordings": recordings.sum(axis=1),
            "without_label": by_speaker[:, :, -1].sum(axis=1),
            "accuracy": summary.accuracy,
            "accuracy_chance": recordings.max(axis=1) / recordings.sum(axis=1),
            "uar": summary.uar,
            "uar_chance": 1 / (recordings > 0).sum(axis=1),
        }
    )
    return table.sort_values("uar", ignore_index=True, kind="stable")


def _reliability_table(
    scores: np.ndarray, truth: np.ndarray, prediction: np.ndarray
) -> pd.DataFrame:
    labelled = prediction >= 0
    bins = metrics.reliability(scores[labelled].max(axis=1), (truth == prediction)[labelled])
    edges = np.linspace(0, 1, metrics.BINS + 1)
    return pd.DataFrame({"from": edges[:-1], "to": edges[1:], **bins._asdict()})
