"""A summary of labels → warnings where they may mean nothing."""

import math
from typing import Any

from ser_core.audio.constants import SAMPLING_RATE, SEGMENT_SECONDS
from ser_core.reporting.html import percent
from ser_core.reporting.label_table import LabelTable

_FEWEST_ROWS = 20  # from which shares say something
_NEARLY_ALL = 0.9  # of the rows, in one class
_NEAR_CHANCE = 0.1  # of the way from chance to certainty, for the median of the scores
_SAME_SCORE_LOGITS = 0.05  # scores whose logits differ by less count as the same
_SAME_SCORE = 0.2  # share of rows; demo corpus 0.08, the same checkpoint on real speech 0.24, 0.86
_CERTAIN_LOGIT = 12.0  # beyond it, float32 scores are rounded to 1
_MANY = 0.2  # of the rows: too short, silent, …
_MANY_FAILED = 0.1
_QUALITY = {
    "short": "are much shorter than what such models are trained on",
    "silent": "are silent",
    "quiet": "are very quiet",
    "clipped": "are clipped",
    "no_speech": "contain no speech, as far as their level tells",
    "low_score": "have scores below --min-score",
}


def warnings(table: LabelTable, summary: dict[str, Any]) -> list[str]:
    """Reasons to doubt the labels, a sentence or two each; the gravest first."""
    unit = summary["unit"]
    found = [_failures(summary)]
    if summary["labeled"] >= _FEWEST_ROWS:
        found += [
            _one_class(summary),
            _near_chance(summary),
            _same_scores(table, unit),
            _low_rates(summary),
            _unheard(table, summary),
            *_quality(summary),
        ]
    return [warning for warning in found if warning]


def _failures(summary: dict[str, Any]) -> str | None:
    if not summary["rows"]:
        since = summary["since"]
        return "The folder has no rows." if since is None else f"No row was made since {since}."
    share = summary["failed"] / summary["rows"]
    if share < _MANY_FAILED:
        return None
    return f"{percent(share)} of the {summary['unit']} have no label; see what failed."


def _one_class(summary: dict[str, Any]) -> str | None:
    top = max(summary["by_label"], key=lambda row: row["rows"])
    if len(summary["classes"]) < 2 or top["share"] < _NEARLY_ALL:
        return None
    return (
        f"{percent(top['share'])} of the labels are {top['label']}. Unless the corpus was chosen"
        " for it, the model does not tell these recordings apart."
    )


def _near_chance(summary: dict[str, Any]) -> str | None:
    shown = summary["distributions"].get("score")
    if shown is None or len(summary["classes"]) < 2:
        return None
    chance, median = shown["chance"], shown["percentiles"]["50"]
    if median > chance + _NEAR_CHANCE * (1 - chance):
        return None
    return (
        f"Half of the scores are below {median:.3f}, and guessing among"
        f" {len(summary['classes'])} classes has {chance:.3f}: the scores are hardly above"
        " guessing. Is this the checkpoint that you meant?"
    )


def _same_scores(table: LabelTable, unit: str) -> str | None:
    """A network that has saturated, or that hears the same in everything, repeats itself."""
    logit = "ln(score / (1 - score))"
    found = table.record(
        f"with bins as (select label, floor({logit} / {_SAME_SCORE_LOGITS}) as bin, count(*) as n,"
        " avg(score) as score from {rows}"
        f" where score > 0 and score < 1 and {logit} < {_CERTAIN_LOGIT} group by label, bin)"
        " select coalesce(max(n), 0) as most, coalesce(max_by(score, n), 0) as score,"
        " coalesce(max_by(label, n), '') as label from bins"
    )
    share = found["most"] / table.record("select count(label) as n from {rows}")["n"]
    if share < _SAME_SCORE:
        return None
    return (
        f"{percent(share)} of the {unit} have nearly the same score for the same label"
        f" ({found['label']}, {found['score']:.3f}). The model repeats itself, as it does where"
        " recordings are unlike those that it was trained on."
    )


def _low_rates(summary: dict[str, Any]) -> str | None:
    low = [row for row in summary["sampling_rates"] if row["sampling_rate"] < SAMPLING_RATE]
    share = sum(row["share"] for row in low)
    if share < _MANY:
        return None
    rates = ", ".join(f"{row['sampling_rate']:,}" for row in low)
    return (
        f"{percent(share)} of the {summary['unit']} were sampled at {rates} Hz, below the"
        f" {SAMPLING_RATE:,} Hz of the model: they lack the frequencies that it was trained on."
    )


def _unheard(table: LabelTable, summary: dict[str, Any]) -> str | None:
    """Recordings of which the model got only the beginning."""
    only_first = [run["segments"] for run in summary["runs"][:1]] == ["first"]  # the newest
    if not only_first or not table.has("duration"):
        return None
    found = table.record(
        "select coalesce(sum(duration), 0) as all_of_it,"
        f" coalesce(sum(greatest(duration - {SEGMENT_SECONDS}, 0)), 0) as rest from {{rows}}"
        " where label is not null and start is null"
    )
    share = found["rest"] / (found["all_of_it"] or math.inf)
    if share < _MANY:
        return None
    return (
        f"{percent(share)} of the audio comes after the first {SEGMENT_SECONDS:g} s of its"
        " recording, and the labels say nothing about it; --segments all labels all of it."
    )


def _quality(summary: dict[str, Any]) -> list[str]:
    return [
        f"{percent(row['share'])} of the {summary['unit']} {_QUALITY[row['word']]}."
        for row in summary["quality"]
        if row["share"] >= _MANY and row["word"] in _QUALITY
    ]
