"""The report job: a folder of labels → a page, summary.json and summary.parquet."""

import io
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.table import Table

from ser_core.console import counted, phase, show
from ser_core.errors import CheckError, UsageError, first_few, hint
from ser_core.labeling.current_rows import Labels, open_labels, report_folder
from ser_core.reporting.config import ReportConfig
from ser_core.reporting.drift import summarize_drift
from ser_core.reporting.embeddings import component_counts, sample
from ser_core.reporting.html import percent
from ser_core.reporting.label_table import (
    FOLDER,
    LabelTable,
    database,
    load,
    records,
    since,
)
from ser_core.reporting.libraries import require_libraries
from ser_core.reporting.listening import to_listen
from ser_core.reporting.plausibility import warnings
from ser_core.reporting.report_page import report_page
from ser_core.reporting.runs import read_runs
from ser_core.reporting.slices import deviations
from ser_core.reporting.summary import by_slice, courses, summarize

if TYPE_CHECKING:
    import duckdb

_MOST_DEVIATIONS, _FEWEST_ROWS = 200, 5  # in summary.json; the Parquet file has all
_PARTS_SCHEMA = pa.schema(
    [
        ("made_at", pa.timestamp("us", tz="UTC")),
        ("slice", pa.string()),
        ("value", pa.string()),
        ("label", pa.string()),
        ("rows", pa.int64()),
        ("of", pa.int64()),
        ("share", pa.float64()),
        ("rest_share", pa.float64()),
        ("difference", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("hours", pa.float64()),
        ("mean_score", pa.float64()),
    ]
)


def report_labels(config: ReportConfig) -> dict[str, Any]:
    """Reports on a folder of labels.

    Returns:
        What summary.json holds.

    Raises:
        UsageError: the command cannot run as written; nothing was written.
        RunError: labels could not be read, or the report not be written.
        CheckError: the labels drifted, and ``--fail-on-drift`` was given; the report was written.
    """
    require_libraries("report")
    labels = open_labels(config.labels)
    baseline = None if config.baseline is None else open_labels(config.baseline, "--baseline")
    read = [config.labels, *([] if config.baseline is None else [config.baseline])]
    output = report_folder(config.output, read)
    _check_slices(config.slice_by, labels)
    phase("reading the labels")
    with database() as connection:
        table, earlier = _tables(connection, config, labels, baseline)
        summary = _summary(config, labels, table)
        if earlier is not None:
            phase("comparing")
            name = config.baseline or f"the rows made before {summary['since']}"
            components = component_counts(*_embeddings(config, labels, baseline))
            summary["drift"] = summarize_drift(earlier, table, name, components)
        parts = deviations({column: by_slice(table, column) for column in table.slices})
        shown = parts[parts["of"] >= _FEWEST_ROWS].head(_MOST_DEVIATIONS)
        summary |= {"divided_by": list(table.slices), "slices": records(shown)}
        listening = to_listen(table, summary["drift"], config.examples)
        phase("making clips and drawing the page")
        page = report_page(summary, listening, courses(table), config.audio)
    phase("writing the report")
    output.write("summary.parquet", _as_parquet(summary, parts))
    output.write("summary.json", json.dumps(summary, indent=2, ensure_ascii=False).encode())
    output.write("index.html", page.encode())
    _print(summary, output.uri)
    _check_drift(summary["drift"], config.fail_on_drift, output.uri)
    return summary


def _summary(config: ReportConfig, labels: Labels, table: LabelTable) -> dict[str, Any]:
    summary = {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "source": config.labels,
        "since": None if config.since is None else _shown(config.since),
        **summarize(table),
        "runs": read_runs(labels.folder),
    }
    return summary | {"warnings": warnings(table, summary), "drift": None}


def _embeddings(
    config: ReportConfig, labels: Labels, baseline: Labels | None
) -> tuple[np.ndarray, np.ndarray]:
    """Of the rows to compare with, and of those to report on."""
    if baseline is not None:
        return sample(baseline), sample(labels)
    moment = pa.scalar(config.since, pa.timestamp("us", tz="UTC"))
    return (
        sample(labels, lambda rows: pc.less(rows["labeled_at"], moment)),
        sample(labels, lambda rows: pc.greater_equal(rows["labeled_at"], moment)),
    )


def _tables(
    connection: "duckdb.DuckDBPyConnection",
    config: ReportConfig,
    labels: Labels,
    baseline: Labels | None,
) -> tuple[LabelTable, LabelTable | None]:
    """The rows to report on, and those to compare them with."""
    table = load(connection, labels, "labels", config.slice_by)
    if baseline is not None:
        return table, load(connection, baseline, "baseline", config.slice_by)
    if config.since is None:
        return table, None
    condition = since(config.since)
    return table.where(condition, "current"), table.where(f"not ({condition})", "baseline")


def _shown(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _check_slices(columns: Sequence[str], labels: Labels) -> None:
    for column in columns:
        if column not in (FOLDER, *labels.schema.names):
            known = [*labels.manifest, FOLDER]
            suggestion = hint(column, known, f"it has {', '.join(known)}")
            raise UsageError(f"--slice-by {column}: the labels have no such column; {suggestion}")


def _check_drift(drift: dict[str, Any] | None, fail: bool, where: str) -> None:
    if fail and drift and drift["drifted"]:
        names, all_of_them = drift["drifted"], len(drift["comparisons"])
        raise CheckError(
            f"--fail-on-drift: {len(names)} of {all_of_them} comparisons show drift"
            f" ({first_few(names)}); see {where}/index.html"
        )


def _as_parquet(summary: dict[str, Any], parts: pd.DataFrame) -> bytes:
    """A row per label, of all and of each part of the corpus; reports may be concatenated."""
    overall = pd.DataFrame(summary["by_label"]).drop(columns="share_of_hours")
    overall["of"] = summary["labeled"]
    rows = pd.concat([overall, parts], ignore_index=True)
    rows.insert(0, "made_at", pd.Timestamp(summary["made_at"]))
    columns = [field.name for field in _PARTS_SCHEMA]
    table = pa.Table.from_pandas(rows.reindex(columns=columns), _PARTS_SCHEMA, preserve_index=False)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _print(summary: dict[str, Any], output: str) -> None:
    """The labels, the warnings and the drift, on standard output."""
    table = Table("label", summary["unit"], "share", "hours")
    for row in summary["by_label"]:
        share, hours = percent(row["share"]), f"{row['hours']:.2f}"
        table.add_row(row["label"], f"{row['rows']:,}", share, hours)
    lines = [f"warning: {warning}" for warning in summary["warnings"]]
    if drift := summary["drift"]:
        lines.append(f"compared with {drift['baseline']}: {drift['meaning']}")
        if drift["drifted"]:
            lines.append(f"drift in {first_few(drift['drifted'])}")
    rows = counted(summary["rows"], summary["unit"][:-1])
    failed = f"without a label: {summary['failed']:,} of {rows}"
    show(table, failed, *lines, f"page: {output}/index.html")
