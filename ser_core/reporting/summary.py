"""A table of labels → what the report says of them, in numbers; it draws and judges nothing."""

from typing import Any

import pandas as pd

from ser_core.errors import Status
from ser_core.reporting.distributions import MEASURES, chance, distribution
from ser_core.reporting.label_table import LabelTable, quoted, records
from ser_core.schema import NO_LABEL, score_columns

_MOST_RATES = 12
_MOST_ERRORS = 3  # of each status
_COURSES = 3  # recordings whose segments are shown


def summarize(table: LabelTable) -> dict[str, Any]:
    """Counts, shares and distributions, as JSON takes them."""
    totals = _totals(table)
    return {
        **totals,
        "classes": list(table.classes),
        "by_label": _by_label(table),
        "by_status": _by_status(table),
        "distributions": _distributions(table),
        "sampling_rates": _sampling_rates(table),
        "quality": _quality(table),
        "origins": _origins(table),
    }


def _totals(table: LabelTable) -> dict[str, Any]:
    found = table.record(
        "select count(*) as rows, count(label) as labeled,"
        " coalesce(sum(seconds), 0) / 3600 as hours,"
        " count(channel) > 0 as by_channel, count(distinct start) > 1 as by_start from {rows}"
    )
    by_channel, by_start = found.pop("by_channel"), found.pop("by_start")
    recordings, unit = found["rows"], "recordings"
    if by_channel or by_start:
        recordings = table.record("select count(distinct uri) as n from {rows}")["n"]
    if by_channel:  # the channels of a recording are the same audio
        found["hours"] = table.record(
            "select coalesce(sum(seconds), 0) / 3600 as hours from"
            " (select max(seconds) as seconds from {rows} group by uri, start)"
        )["hours"]
    if recordings < found["rows"]:
        unit = "segments" if by_start else "channels"
    failed = found["rows"] - found["labeled"]
    return {"unit": unit, "recordings": recordings, "failed": failed, **found}


def _by_label(table: LabelTable) -> list[dict[str, Any]]:
    """A row per class, also of those that no row has."""
    found = table.frame(
        "select label, count(*) as rows, coalesce(sum(seconds), 0) / 3600 as hours,"
        " avg(score) as mean_score from {rows} where label is not null group by label"
    ).set_index("label")
    found = found.reindex(table.classes)
    counts = ["rows", "hours"]
    found[counts] = found[counts].fillna(0)
    found["rows"] = found["rows"].astype(int)
    found["share"] = found["rows"] / max(1, found["rows"].sum())
    found["share_of_hours"] = found["hours"] / (found["hours"].sum() or 1)
    return records(found.reset_index(names="label"))


def _by_status(table: LabelTable) -> list[dict[str, Any]]:
    found = table.frame(
        "select status, count(*) as rows, count(*) / sum(count(*)) over () as share from {rows}"
        " group by status order by rows desc"
    )
    errors = table.frame(
        "select status, error, count(*) as rows, min(path) as path from {rows}"
        " where error is not null group by status, error"
        f" qualify row_number() over (partition by status order by rows desc) <= {_MOST_ERRORS}"
        " order by rows desc"
    )
    rows = records(found)
    for row in rows:
        row["examples"] = records(errors[errors["status"] == row["status"]].drop(columns="status"))
    return rows


def _distributions(table: LabelTable) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for measure in MEASURES:
        shown = distribution(table, measure)
        if shown is not None:
            level = chance(measure.column, max(2, len(table.classes)))
            found[measure.column] = shown.as_dict() | {"chance": level}
    return found


def _sampling_rates(table: LabelTable) -> list[dict[str, Any]]:
    return records(
        table.frame(
            "select sampling_rate, count(*) as rows, count(*) / sum(count(*)) over () as share"
            " from {rows} where sampling_rate is not null group by sampling_rate"
            f" order by rows desc limit {_MOST_RATES}"
        )
    )


def _quality(table: LabelTable) -> list[dict[str, Any]]:
    """How many rows have each word of `quality`, and how many have none."""
    if not table.has("quality"):
        return []
    return records(
        table.frame(
            "with words as (select unnest(string_split(quality, ' ')) as word, count(*) as rows"
            " from {rows} where quality is not null group by quality)"
            " select if(word = '', 'good', word) as word, sum(rows)::bigint as rows, sum(rows) /"
            " (select count(quality) from {rows}) as share from words group by word"
            " order by rows desc"
        )
    )


def _origins(table: LabelTable) -> list[dict[str, Any]]:
    """What made the rows: checkpoint and precision, and when."""
    found = table.frame(
        "select model, model_digest, precision, count(*) as rows, min(labeled_at) as first,"
        " max(labeled_at) as last from {rows} group by all order by last desc"
    )
    for name in ("first", "last"):
        found[name] = found[name].dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    return records(found)


def by_slice(table: LabelTable, column: str) -> pd.DataFrame:
    """Rows, hours and scores for each value of a column and each label.

    Returns:
        Columns ``value``, ``label`` (`NO_LABEL` for those that failed), ``rows``, ``hours`` and
        ``mean_score``.
    """
    return table.frame(
        f"select coalesce({table.divisors[column]}, '') as value,"
        f" coalesce(label, '{NO_LABEL}') as label, count(*) as rows,"
        " coalesce(sum(seconds), 0) / 3600 as hours, avg(score) as mean_score"
        " from {rows} group by all order by value, label"
    )


def courses(table: LabelTable) -> dict[str, pd.DataFrame]:
    """The segments of the recordings that have the most, with ``start``, ``end`` and scores.

    Returns:
        By the path, or by the URI if another has the same path, with the channel if they were
        labelled one by one.
    """
    longest = table.frame(
        "select uri, channel, any_value(path) as path from {rows} where start is not null"
        f" and status = '{Status.OK}' group by uri, channel having count(*) > 2"
        f" order by count(*) desc, uri, channel limit {_COURSES}"
    )
    scores = ", ".join(map(quoted, score_columns(table.classes)))
    found = {}
    for row in records(longest):
        channel = "" if row["channel"] is None else f", channel {row['channel']}"
        name = row["path"] if f"{row['path']}{channel}" not in found else row["uri"]
        found[f"{name}{channel}"] = table.frame(
            f'select start, "end", label, {scores} from {{rows}} where uri = ? and status ='
            f" '{Status.OK}' and channel is not distinct from ? order by start",
            row["uri"],
            row["channel"],
        )
    return found
