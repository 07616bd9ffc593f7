"""The evaluation job: labels and truth → metrics, tables, figures and a page; it runs no model."""

import json
from collections.abc import Sequence
from typing import Any

import pandas as pd
from rich.table import Table

from ser_core.console import phase, show
from ser_core.evaluation.config import EvaluateConfig
from ser_core.evaluation.page import LISTS, evaluation_page
from ser_core.evaluation.predictions import read_predictions
from ser_core.evaluation.report import Report, fit_on_validation, make_report
from ser_core.labeling.current_rows import report_folder
from ser_core.reporting.clips import clips
from ser_core.reporting.html import number
from ser_core.reporting.libraries import require_libraries
from ser_core.reporting.plots import plot_confusion, plot_reliability
from ser_core.storage.folder import Folder


def evaluate_labels(config: EvaluateConfig) -> Report:
    """Evaluates a folder of labels, and writes and prints the report.

    Raises:
        UsageError: the command cannot run as written; nothing was written.
        RunError: the output could not be written.
    """
    output = open_report(config.output, [config.labels])
    phase("reading labels and truth")
    predictions = read_predictions(config.labels, config.truth)
    phase("computing metrics")
    temperature = None
    if config.split not in (None, "validation"):  # never evaluated on what it was fitted on
        temperature = fit_on_validation(predictions)
    if config.split is not None:
        predictions = predictions.of_split(config.split)
    report = make_report(predictions, temperature)
    phase("drawing and writing the page")
    title = f"{config.labels}, {config.split or 'all recordings'}"
    write_report(report, output, title, config.audio)
    print_report(report, output.uri)
    return report


def open_report(uri: str, labels: Sequence[str] = ()) -> Folder:
    """The folder for a report.

    Args:
        uri: of the folder.
        labels: URIs of the labels that it is about.

    Raises:
        UsageError: it cannot be written to, or an optional library is not installed.
    """
    require_libraries("report")
    return report_folder(uri, labels)


def write_report(report: Report, output: Folder, title: str, audio: bool = False) -> None:
    """Writes ``metrics.json``, a CSV file per table, the figures and ``index.html``.

    Args:
        report: what is written.
        output: from `open_report`.
        title: what was evaluated.
        audio: whether the page has players.

    Raises:
        RunError: a file could not be written.
    """
    heard = pd.concat([report.tables[name]["identity"] for name in LISTS]) if audio else []
    reliability = plot_reliability(report.tables["reliability"])
    html = evaluation_page(report, title, {"reliability": reliability}, clips(heard))
    files = {
        "metrics.json": as_json(report.summary),
        **{f"{name}.csv": _as_csv(table) for name, table in report.tables.items()},
        "confusion.png": plot_confusion(report.tables["confusion"]),
        "reliability.png": reliability,
        "index.html": html.encode(),
    }
    for name, content in files.items():
        output.write(name, content)


def as_json(content: object) -> bytes:
    """Indented JSON in UTF-8."""
    return json.dumps(content, indent=2, ensure_ascii=False).encode()


def _as_csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=table.index.name is not None).encode()


def print_report(report: Report, output: str) -> None:
    """Prints the classes, the headline, the warnings and the notes on standard output."""
    table = Table("class", "recordings", "recall", "chance", "precision", "chance")
    for row in report.tables["classes"].to_dict("records"):
        shares = (row[name] for name in ("recall", "recall_chance", "precision", "share"))
        table.add_row(row["class"], number(row["recordings"]), *map(number, shares))
    warnings = [f"warning: {warning}" for warning in report.warnings]
    notes = [f"- {note}" for note in report.notes]
    show(table, headline(report.summary), *warnings, *notes, f"page: {output}/index.html")


def headline(summary: dict[str, Any]) -> str:
    """UAR, accuracy and macro F1 with their intervals and with chance, in one line."""
    names = {"uar": "UAR", "accuracy": "accuracy", "macro_f1": "macro F1"}
    parts = []
    for key, name in names.items():
        low, high = summary["interval"][key]
        chance = summary["chance"][key]
        parts.append(f"{name} {summary[key]:.3f} ({low:.3f} to {high:.3f}; chance {chance:.3f})")
    return ", ".join(parts)
