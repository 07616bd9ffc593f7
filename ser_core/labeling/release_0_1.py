"""How an output of release 0.1 is continued: its rows get the columns that they lack.

Release 0.1 had no column `uri` and no column `precision`, and put its reports into ``_runs/``.
"""

import json

import pyarrow as pa
import pyarrow.compute as pc

from ser_core.storage.folder import Folder

REPORTS = "_runs"
_ABSOLUTE = r"^(/|[a-z0-9+]+://)"


def with_missing_columns(rows: pa.Table, precision: str | None) -> pa.Table:
    """Rows with `uri` and `precision` where these can be known.

    An absolute path is the URI. A path that a manifest gave relative to itself leaves it null: such
    a row stands for whatever recording has its path.

    Args:
        rows: of one part, in the current columns.
        precision: that the reports of the folder agree on.
    """
    path, uri = rows["path"], rows["uri"]
    absolute = pc.match_substring_regex(path, _ABSOLUTE)
    known = pc.coalesce(uri, pc.if_else(absolute, path, None))
    rows = rows.set_column(rows.schema.get_field_index("uri"), "uri", known)
    if precision is None:
        return rows
    labelled = pc.equal(rows["status"].cast(pa.string()), "ok")
    made_in = pc.coalesce(
        rows["precision"].cast(pa.string()), pc.if_else(labelled, pa.scalar(precision), None)
    )
    return rows.set_column(rows.schema.get_field_index("precision"), "precision", made_in)


def with_identity(rows: pa.Table, known: pa.Table) -> pa.Table:
    """Rows without a URI, found again by their `file_id`, with the URI and the current `file_id`.

    Args:
        rows: of one part.
        known: columns ``file_id_of_0_1``, ``uri`` and ``file_id``.
    """
    without_uri = pa.array(rows["uri"].is_null().combine_chunks())
    at = pc.index_in(rows["file_id"], known["file_id_of_0_1"].combine_chunks())
    found = pc.if_else(without_uri, at, None)
    for name in ("uri", "file_id"):
        values = pc.coalesce(known[name].combine_chunks().take(found), rows[name].combine_chunks())
        rows = rows.set_column(rows.schema.get_field_index(name), name, values)
    return rows


def precision_of_reports(folder: Folder) -> str | None:
    """The precision of all runs in a folder, or None if they differ or no report says it."""
    found: set[str] = set()
    for name in folder.names(REPORTS):
        report = json.loads(folder.read(f"{REPORTS}/{name}"))
        found |= {device.rpartition(" ")[2] for device in report.get("by_device", {})}
    return found.pop() if len(found) == 1 else None


def move_reports(folder: Folder, destination: str) -> None:
    """Moves the reports to where no reader takes them for data."""
    names = folder.names(REPORTS)
    for name in names:
        folder.write(f"{destination}/{name}", folder.read(f"{REPORTS}/{name}"))
        folder.remove(f"{REPORTS}/{name}")
    if names:
        folder.remove_empty(REPORTS)
