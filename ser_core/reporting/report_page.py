"""A summary of labels → the page of the report; it computes nothing and writes no file."""

from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from ser_core.reporting.clips import clips, player
from ser_core.reporting.distributions import MEASURES
from ser_core.reporting.html import page
from ser_core.reporting.listening import Listening, place
from ser_core.reporting.plots import plot_course, plot_histogram
from ser_core.schema import score_columns

_MOST_DEVIATIONS, _UNCERTAIN = 30, 10  # shown, and if none of them is certain
_MOST_COMPARISONS = 50
_MOST_RUNS = 50
_NO_VALUE = "(none)"
_MEASURES = {measure.column: measure for measure in MEASURES}


def report_page(
    summary: dict[str, Any],
    listening: list[Listening],
    courses: dict[str, pd.DataFrame],
    audio: bool,
) -> str:
    """The page, which needs no other file.

    Args:
        summary: what summary.json holds.
        listening: recordings to listen to.
        courses: the segments of some recordings, by path.
        audio: whether they can be played.
    """
    by_label = summary["by_label"]
    drift = summary["drift"] or {"comparisons": [], "changed_recordings": []}
    even = 1 / max(1, len(by_label))
    certain = [row for row in summary["slices"][:_MOST_DEVIATIONS] if row["low"] * row["high"] > 0]
    return page(
        "report.html",
        _pictures(summary, courses),
        summary=summary,
        made_at=f"{datetime.fromisoformat(summary['made_at']):%Y-%m-%d %H:%M} UTC",
        top=max(by_label, key=lambda row: row["rows"]) if summary["labeled"] else None,
        measures=_MEASURES,
        histogram_text={n: _in_words(n, d) for n, d in summary["distributions"].items()},
        by_label=[row | {"even": even} for row in by_label],
        errors=[
            {"status": row["status"], **example}
            for row in summary["by_status"]
            for example in row["examples"]
        ],
        deviations=[_deviation(row) for row in (certain or summary["slices"][:_UNCERTAIN])],
        certain=bool(certain),
        drift_rows=[_comparison(row) for row in drift["comparisons"][:_MOST_COMPARISONS]],
        changed=[row | {"where": place(row)} for row in drift["changed_recordings"]],
        listening=_with_clips(listening, audio),
        courses=list(courses),
        runs=summary["runs"][:_MOST_RUNS],
    )


def _pictures(summary: dict[str, Any], courses: dict[str, pd.DataFrame]) -> dict[str, bytes]:
    pictures = {}
    for name, shown in summary["distributions"].items():
        edges, counts = np.array(shown["edges"]), np.array(shown["counts"])
        pictures[name] = plot_histogram(edges, counts, _MEASURES[name].title, shown["chance"])
    for path, segments in courses.items():
        columns = score_columns(summary["classes"])
        scores = {
            label: segments[column].to_numpy()
            for label, column in zip(summary["classes"], columns, strict=True)
        }
        pictures[f"course: {path}"] = plot_course(
            segments["start"].to_numpy(), float(segments["end"].iloc[-1]), scores
        )
    return pictures


def _in_words(name: str, shown: dict[str, Any]) -> str:
    """A histogram for those who cannot see it."""
    low, median, high = (shown["percentiles"][percentile] for percentile in ("5", "50", "95"))
    title = _MEASURES[name].title
    spread = f"median {median:.3g}, 5 % below {low:.3g}, 5 % above {high:.3g}"
    return f"Distribution of {title}: {spread}"


def _deviation(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"part": f"{row['slice']}: {row['value'] or _NO_VALUE}"}


def _comparison(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"what": row["name"], "p": f"{row['p_value']:.1g}"}


def _with_clips(listening: list[Listening], audio: bool) -> list[dict[str, Any]]:
    """The recordings, each with a player or the reason why there is none."""
    playable = (group.recordings for group in listening if group.playable)
    wanted = [recording["identity"] for recordings in playable for recording in recordings]
    made = clips(wanted) if audio else {}
    return [
        {
            "title": group.title,
            "meaning": group.meaning,
            "recordings": [each | player(made.get(each["identity"])) for each in group.recordings],
        }
        for group in listening
    ]
