"""A report → its HTML page; it computes no figure and opens no recording."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ser_core.errors import RecordingError, one_line
from ser_core.evaluation.report import Report
from ser_core.reporting.html import data_uri, number, page

_SPEAKERS = 200  # in the page; all are in speakers.csv
LISTS = ("confident_errors", "least_sure")  # tables of recordings that are worth hearing


def evaluation_page(
    report: Report,
    title: str,
    pictures: Mapping[str, bytes],
    clips: Mapping[str, bytes | RecordingError],
) -> str:
    """The page of a report.

    Args:
        report: what it shows.
        title: what was evaluated.
        pictures: PNGs by name: ``reliability``.
        clips: of recordings in the tables ``LISTS``, by identity; without them, there are no
            players.
    """
    tables, summary = report.tables, report.summary
    num_known = len(summary["classes"]) - len(summary["unknown_to_model"])
    return page(
        "evaluation.html",
        pictures,
        title=title,
        report=report,
        confusion=_confusion_rows(tables["confusion"], num_known),
        bins=_bins(tables["reliability"]),
        speakers=tables["speakers"].head(_SPEAKERS).to_dict("records"),
        lists={name: [_item(row, clips) for _, row in tables[name].iterrows()] for name in LISTS},
    )


def _confusion_rows(confusion: pd.DataFrame, known: int) -> list[dict[str, Any]]:
    """Counts by truth and label, with their shares of the row, without rows that have none.

    Args:
        confusion: counts; the last column is of recordings without a label.
        known: how many classes the model has; they come first, and no label is another one.
    """
    columns = [*confusion.columns[:known], *confusion.columns[-1:]]
    if not confusion[columns[-1]].any():
        columns.pop()
    rows = []
    for truth, counts in confusion[confusion.sum(axis=1) > 0].iterrows():
        shares = counts / counts.sum()
        cells = [
            {"label": name, "right": name == truth, "count": counts[name], "share": shares[name]}
            for name in columns
        ]
        rows.append({"truth": truth, "cells": cells})
    return rows


def _bins(reliability: pd.DataFrame) -> list[dict[str, Any]]:
    """The bins of the reliability diagram that have recordings."""
    occupied = reliability[reliability["recordings"] > 0]
    ranges = [
        f"{number(low)} to {number(high)}"
        for low, high in zip(occupied["from"], occupied["to"], strict=True)
    ]
    gap = occupied["confidence"] - occupied["accuracy"]
    return [dict(row) for _, row in occupied.assign(range=ranges, gap=gap).iterrows()]


def _item(row: pd.Series, clips: Mapping[str, bytes | RecordingError]) -> dict[str, Any]:
    """A recording as the page lists it."""
    text = f"truth {row['truth']}, label {row['prediction']} with score {number(row['score'])}"
    if row["truth"] != row["prediction"] and not pd.isna(row["score_of_truth"]):
        text += f" ({row['truth']} has {number(row['score_of_truth'])})"
    item = {"path": row["path"], "text": text, "audio": None, "why": ""}
    match clips.get(row["identity"]):
        case bytes(clip):
            item["audio"] = data_uri("audio/mpeg", clip)
        case RecordingError() as error:
            item["why"] = f"no clip: {error.status}: {one_line(error)}"
    return item
