"""Figures of an evaluation → sentences on how to read them; it computes no figure."""

from typing import Any

from ser_core.console import counted
from ser_core.reporting.html import number

_FEW_SPEAKERS = 10  # with fewer, a bootstrap over them gives intervals that are too narrow


def warnings_of(summary: dict[str, Any]) -> list[str]:
    """Why the labels may be no better than guesses; empty if nothing says so.

    Args:
        summary: of a ``Report``.
    """
    chance, (low, high) = summary["chance"], summary["interval"]["uar"]
    if chance["accuracy"] == 1:
        return [
            f"Every recording is {chance['most_frequent']} in truth, so the figures do not show"
            " whether the model tells classes apart."
        ]
    warnings = []
    if low <= chance["uar"]:
        warnings.append(
            f"The labels are not shown to be better than guesses: the 95 % interval of UAR"
            f" ({number(low)} to {number(high)}) is not above chance ({number(chance['uar'])})."
        )
    if summary["accuracy"] < chance["accuracy"]:
        warnings.append(
            f"The accuracy ({number(summary['accuracy'])}) is below that of always answering"
            f" {chance['most_frequent']} ({number(chance['accuracy'])})."
        )
    return warnings


def notes_on(summary: dict[str, Any]) -> list[str]:
    """What a reader needs to know about the figures.

    Args:
        summary: of a ``Report``.
    """
    notes = [_note_on_intervals(summary["interval"])]
    if missing := summary["without_label"]:
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in missing.items())
        recordings = counted(summary["recordings"], "recording")
        have = "has" if summary["recordings"] == 1 else "have"
        count = f"{sum(missing.values()):,} of {recordings} {have} no label"
        notes.append(f"{count} ({kinds}), which counts as an error.")
    notes += _notes_on_classes(summary) + _notes_on_labels(summary)
    return notes + _notes_on_calibration(summary)


def _note_on_intervals(interval: dict[str, Any]) -> str:
    if interval["over"] == "recordings":
        return (
            "The 95 % intervals come from resampling the recordings, because fewer than two"
            " speakers are known. They say nothing about other speakers."
        )
    note = f"The 95 % intervals come from resampling the {interval['speakers']} speakers."
    if interval["speakers"] < _FEW_SPEAKERS:
        note += " With so few speakers, the intervals are too narrow for conclusions about others."
    return note


def _notes_on_classes(summary: dict[str, Any]) -> list[str]:
    notes = []
    if unknown := summary["unknown_to_model"]:
        note = f"The model does not know {', '.join(unknown)}; such recordings count as errors."
        if rest := summary.get("classes_that_the_model_knows"):
            others = counted(rest["recordings"], "other recording")
            note += (
                f" For the {others}, UAR is {rest['uar']:.3f}"
                f" (chance {rest['chance']['uar']:.3f}) and accuracy {rest['accuracy']:.3f}"
                f" (chance {rest['chance']['accuracy']:.3f})."
            )
        notes.append(note)
    if never := summary["never_in_truth"]:
        notes.append(f"The model also knows {', '.join(never)}, which the truth does not contain.")
    return notes


def _notes_on_labels(summary: dict[str, Any]) -> list[str]:
    notes = []
    if summary["labels_without_truth"]:
        notes.append(f"Ignored: {counted(summary['labels_without_truth'], 'label')} without truth.")
    if len(summary["models"]) > 1:
        notes.append(f"Several models made the labels: {', '.join(summary['models'])}.")
    return notes


def _notes_on_calibration(summary: dict[str, Any]) -> list[str]:
    if summary["ece"] is None:
        return []
    ece, chance = summary["ece"], summary["chance"]
    if ece <= chance["ece_95"]:
        note = (
            f"A calibration error of {number(ece)} is no sign of wrong scores: with so few"
            f" recordings, a perfectly calibrated model has up to {number(chance['ece_95'])}."
        )
    else:
        gap = summary["confidence"] - summary["accuracy_of_labelled"]
        if abs(gap) < ece / 2:
            wrong = f"Some scores are too high and others too low, by {number(ece)}"
        else:
            wrong = f"The scores are {'higher' if gap > 0 else 'lower'} than they should be"
        note = (
            f"{wrong}: {number(summary['confidence'])} on average, where"
            f" {number(summary['accuracy_of_labelled'])} of the labels are correct."
        )
    if summary["loss"] > chance["loss"]:
        note += (
            f" The loss is above that of equal scores ({number(chance['loss'])}), so the scores"
            " mislead as probabilities."
        )
    return [note, *_notes_on_temperature(summary)]


def _notes_on_temperature(summary: dict[str, Any]) -> list[str]:
    """What a temperature would change; it is offered only if it makes nothing worse."""
    if not (scaled := summary["with_temperature"]):
        return []
    names = {"loss": "the loss", "ece": "the calibration error"}
    changes = ", and ".join(
        f"{name} from {number(summary[key])} to {number(scaled[key])}"
        for key, name in names.items()
    )
    note = f"Temperature {scaled['temperature']:.2f}, fitted on validation, would change {changes}"
    differences = {key: round(scaled[key], 3) - round(summary[key], 3) for key in names}
    worse = [names[key] for key, difference in differences.items() if difference > 0]
    if len(worse) == len(names):
        return [f"{note}. Both get worse, so do not use it."]
    if worse:
        return [f"{note}. As {worse[0]} gets worse, it is no clear improvement."]
    if not any(differences.values()):
        return [f"{note}. It makes no difference."]
    return [f"{note}. ser-batch train --calibrate stores such a temperature in the checkpoint."]
