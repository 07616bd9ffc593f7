"""Recordings that two tables of labels have both, and whose labels differ."""

from typing import Any

from ser_core.reporting.label_table import LabelTable, records

_MOST_SHOWN = 200


def changes(baseline: LabelTable, current: LabelTable) -> dict[str, Any]:
    """Which recordings have another label than in the baseline, or have lost or gained one.

    Segments are matched by their start and channel. A recording that failed has one row
    without a start: beside its segments in the other table it does not count.

    Returns:
        ``in_both``: how many rows; ``changed``: how many of them differ; ``changed_by_label``: a
        row per pair of labels, ``before``, ``now`` and ``rows``; ``changed_recordings``: the first
        of them with both labels and scores, those with the highest scores first.
    """
    joined = (
        f"from {baseline.name} as old join {current.name} as new on old.uri = new.uri"
        " and old.start is not distinct from new.start"
        " and old.channel is not distinct from new.channel"
    )
    differ = "old.label is distinct from new.label"
    total = current.record(f"select count(*) as n, count_if({differ}) as changed {joined}")
    pairs = current.frame(
        "select coalesce(old.label, old.status) as before, coalesce(new.label, new.status) as now,"
        f" count(*) as rows {joined} where {differ} group by all order by rows desc"
    )
    rows = current.frame(
        'select new.path as path, new.uri as uri, new.start as start, new."end" as "end",'
        " new.channel as channel,"
        " coalesce(old.label, old.status) as before, old.score as score_before,"
        " coalesce(new.label, new.status) as now, new.score as score_now"
        f" {joined} where {differ}"
        f" order by old.score + new.score desc nulls last, path limit {_MOST_SHOWN}"
    )
    return {
        "in_both": total["n"],
        "changed": total["changed"],
        "changed_by_label": records(pairs),
        "changed_recordings": records(rows),
    }
