"""The evaluation job: labels and truth → metrics, tables, pictures, one page; it runs no model."""

import json
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from ser_core.errors import OutputError
from ser_core.evaluation.config import EvaluateConfig
from ser_core.evaluation.predictions import judge
from ser_core.evaluation.report import Scorecard, fit_on_validation, score
from ser_core.reporting.html import confusion_picture, page, reliability_picture, require_libraries
from ser_core.storage.folder import Folder


def evaluate_labels(config: EvaluateConfig) -> Scorecard:
    """Evaluates a folder of labels and writes what came out.

    Raises:
        UsageError: the command cannot run as written; nothing was written.
        RunError: the output could not be written.
    """
    output = open_report(config.output)
    judged = judge(config.labels, config.truth)
    temperature = None
    if config.split not in (None, "validation"):
        temperature = fit_on_validation(judged)
    if config.split is not None:
        judged = judged.of_split(config.split)
    card = score(judged, temperature)
    write_scorecard(card, output, f"{config.labels}, {config.split or 'all recordings'}")
    print_scorecard(card, output.uri)
    return card


def open_report(uri: str) -> Folder:
    """The folder that a report goes to.

    Raises:
        UsageError: it cannot be written to, or what draws and lays out pages is not installed.
    """
    require_libraries("report")
    folder = Folder(uri)
    if problem := folder.why_unusable():
        raise OutputError(f"--output {uri}: {problem}")
    return folder


def write_scorecard(card: Scorecard, output: Folder, title: str) -> None:
    """Writes ``metrics.json``, a CSV a table, the pictures and ``index.html``.

    Raises:
        RunError: something could not be written.
    """
    pictures = {
        "confusion": confusion_picture(card.tables["confusion"]),
        "reliability": reliability_picture(card.tables["reliability"]),
    }
    html = page("evaluation.html", pictures, title=title, card=card)
    files = {
        "metrics.json": as_json(card.summary),
        **{f"{name}.csv": _csv(table) for name, table in card.tables.items()},
        **{f"{name}.png": picture for name, picture in pictures.items()},
        "index.html": html.encode(),
    }
    for name, content in files.items():
        output.write(name, content)


def as_json(content: object) -> bytes:
    """JSON for reading, in UTF-8."""
    return json.dumps(content, indent=2, ensure_ascii=False).encode()


def _csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=table.index.name is not None).encode()


def print_scorecard(card: Scorecard, output: str) -> None:
    """The classes and the headline, on standard output."""
    table = Table("class", "recordings", "recall", "precision")
    for row in card.tables["classes"].to_dict("records"):
        shares = (_share(row[name]) for name in ("recall", "precision"))
        table.add_row(row["class"], f"{row['recordings']:,}", *shares)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(table)
    console.print(headline(card.summary))
    for note in card.notes:
        console.print(f"- {note}")
    console.print(f"page: {output}/index.html")


def headline(summary: dict[str, Any]) -> str:
    """The three figures with their intervals, in one line."""
    words = {"uar": "UAR", "accuracy": "accuracy", "macro_f1": "macro F1"}
    parts = []
    for name, word in words.items():
        low, high = summary["interval"][name]
        parts.append(f"{word} {summary[name]:.3f} ({low:.3f} to {high:.3f})")
    return ", ".join(parts)


def _share(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:.3f}"
