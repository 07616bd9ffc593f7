"""How an output of release 0.1 is continued: its rows get the columns and identity they lack.

Release 0.1 had no columns `uri` and `precision`, computed `file_id` from the path as a manifest
gave it, and put its reports into ``_runs/``.
"""

import json
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ser_core.sources.manifest import is_manifest, recording_uris
from ser_core.storage.filesystem import absolute, is_absolute
from ser_core.storage.folder import Folder, storage_errors
from ser_core.storage.listing import is_file

REPORTS = "_runs"


class Upgrade:
    """What an output of release 0.1 says about its rows; for later outputs, it changes nothing."""

    def __init__(self, folder: Folder, known: pa.Table | None = None) -> None:
        """Reads the reports.

        Args:
            folder: the output.
            known: columns ``file_id_of_0_1``, ``uri`` and ``file_id`` of recordings that a run
                found again.
        """
        self._folder = folder
        self._known = known
        with storage_errors(f"--output {folder.uri}: {REPORTS}/ could not be read"):
            names = [name for name in folder.names(REPORTS) if name.endswith(".json")]
            contents = {name: folder.read(f"{REPORTS}/{name}") for name in names}
        reports = {name: _report(content) for name, content in contents.items()}
        self._reports = {name: report for name, report in reports.items() if report is not None}

    @cached_property
    def precision(self) -> str | None:
        """The precision of all runs, or None if they differ or no report says it."""
        devices = (report["by_device"] for report in self._reports.values())
        return _only({name.rpartition(" ")[2] for by_device in devices for name in by_device})

    @cached_property
    def manifest(self) -> str | None:
        """A manifest in the folder to which all relative paths are relative, or None."""
        inputs = {str(report["config"].get("input")) for report in self._reports.values()}
        manifests = {uri for uri in inputs if is_manifest(uri)}
        # A relative one can be trusted if it is there from here: the command was typed again.
        if not all(is_absolute(uri) or is_file(uri) for uri in manifests):
            return None
        folder = _only({absolute(uri).rpartition("/")[0] for uri in manifests})
        return None if folder is None else f"{folder}/manifest.csv"

    def lacks_columns(self, schema: pa.Schema) -> bool:
        """Whether a part has the columns of release 0.1."""
        return "uri" not in schema.names

    def knows(self, file_ids: pa.ChunkedArray) -> bool:
        """Whether a run found one of these recordings again."""
        if self._known is None:
            return False
        found = pc.is_in(file_ids, self._known["file_id_of_0_1"].combine_chunks())
        return bool(pc.any(found).as_py())

    def apply(self, rows: pa.Table) -> pa.Table:
        """Fills what can be known: `uri`, the current `file_id`, `precision`."""
        without_uri = rows["uri"].is_null()
        if pc.any(without_uri).as_py():
            rows = _fill(
                rows, "uri", pa.array(map(self._uri, rows["path"].to_pylist()), pa.string())
            )
        if self.precision is not None:
            labeled = pc.equal(rows["status"].cast(pa.string()), "ok")
            rows = _fill(rows, "precision", pc.if_else(labeled, pa.scalar(self.precision), None))
        return rows if self._known is None else self._with_identity(rows, self._known)

    def move_reports(self, destination: str) -> None:
        """Moves the reports to where no reader takes them for data."""
        for name in self._reports:
            data = self._folder.read(f"{REPORTS}/{name}")
            self._folder.write(f"{destination}/{name}", data)
            self._folder.remove(f"{REPORTS}/{name}")
        if self._reports:
            self._folder.remove_empty(REPORTS)

    def _uri(self, path: str) -> str | None:
        if is_absolute(path):
            return recording_uris("/", [path])[0]
        return None if self.manifest is None else recording_uris(self.manifest, [path])[0]

    @staticmethod
    def _with_identity(rows: pa.Table, known: pa.Table) -> pa.Table:
        at = pc.index_in(rows["file_id"], known["file_id_of_0_1"].combine_chunks())
        for name in ("uri", "file_id"):
            found = known[name].combine_chunks().take(at.combine_chunks())
            rows = _replace(rows, name, pc.coalesce(found, rows[name].combine_chunks()))
        return rows


def _report(content: bytes) -> dict[str, Any] | None:
    """A report of a run, or None for any other file."""
    try:
        report = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(report, dict):
        return None
    is_ours = all(isinstance(report.get(key), dict) for key in ("by_device", "config"))
    return report if is_ours else None


def _fill(rows: pa.Table, name: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    """Rows with values where the column is null."""
    return _replace(rows, name, pc.coalesce(rows[name].cast(pa.string()), values))


def _replace(rows: pa.Table, name: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    return rows.set_column(rows.schema.get_field_index(name), name, values)


def _only(values: set[str]) -> str | None:
    return next(iter(values)) if len(values) == 1 else None
