"""The label store: ``OUTPUT/part-*.parquet``, the only state of a job; it knows no Ray, no audio.

One row per recording is current:

- A row is *final* if the recording's content caused it, and *transient* if the content could not
  be read (`Status.final`). A transient row never replaces a final one.
- A newer final row replaces an older one of the same recording. Times only go forward: what a run
  writes is newer than everything in the folder, whatever the clock says.
- A recording is done if a final row has its `file_id` and the model's digest; with
  ``--precision fp32``, a label must also have been computed in fp32.
- Columns are read by name; an older part that lacks one has nulls there.
- One run at a time: a run claims the folder for as long as it writes.
"""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ser_core.errors import FINAL, OutputError, Status
from ser_core.labeling import release_0_1
from ser_core.labeling.file_ids import FileIds
from ser_core.labeling.parts import Part, as_stored, conform, find_parts, write_part
from ser_core.schema import classes_of, output_schema
from ser_core.settings import Precision
from ser_core.storage.claim import Claim
from ser_core.storage.folder import Folder

RUNS = "__runs"  # two underscores: `datasets` would take files in `_runs` for data
ROWS_PER_PART = 50_000  # about 5 MB
_SMALL_PART = ROWS_PER_PART // 2  # rows; smaller parts are merged
_CONCURRENT_PARTS = 8  # parts read at once, and in memory at once
_EPOCH = datetime.fromtimestamp(0, UTC)
_REQUIRED = {"path", "file_id", "status", "model_digest", "labeled_at"}


# ---- the rules -----------------------------------------------------------------------------------


def superseded(recording: np.ndarray, final: np.ndarray, labeled_at: np.ndarray) -> np.ndarray:
    """Which rows are not current.

    The current row of a recording is its newest final one or, if it has none, its newest one.

    Args:
        recording: what identifies each row's recording, shape ``(num_rows,)``.
        final: whether each row is final.
        labeled_at: when each row was made.

    >>> superseded(np.array([7, 7, 8]), np.array([True, False, False]), np.array([1, 2, 3]))
    array([False,  True, False])
    """
    order = np.lexsort((labeled_at, final, recording))  # the current row comes last
    is_current = np.ones(len(order), bool)
    is_current[:-1] = recording[order][1:] != recording[order][:-1]
    stale = np.ones(len(order), bool)
    stale[order[is_current]] = False
    return stale


def is_final(status: pa.ChunkedArray) -> pa.ChunkedArray:
    """Which rows are valid until the file changes."""
    return pc.is_in(status.cast(pa.string()), pa.array(sorted(FINAL), pa.string()))


def is_precise_enough(precision: pa.ChunkedArray, requested: Precision) -> Any:
    """Which labels need not be computed again in the precision that a run asks for."""
    if requested != "fp32":
        return pa.scalar(True)
    return pc.equal(precision.cast(pa.string()).fill_null("unknown"), "fp32")


class Done(NamedTuple):
    """The recordings that need no labelling again."""

    ok: FileIds
    failed: FileIds


# ---- the store -----------------------------------------------------------------------------------


class LabelStore:
    """A folder of labels.

    Attributes:
        folder: where its parts are.
        schema: this run's columns, and those of the manifests of earlier runs.
    """

    def __init__(self, uri: str, labels: Sequence[str], manifest: pa.Schema) -> None:
        """Looks at what is there and writes nothing.

        Args:
            uri: ``--output``.
            labels: the checkpoint's classes.
            manifest: the manifest's own columns.

        Raises:
            OutputError: the folder cannot be used, or holds something other than such labels.
        """
        self.folder = Folder(uri)
        if problem := self.folder.why_unusable():
            raise OutputError(f"--output {self.folder.uri}: {problem}")
        self._columns = as_stored(output_schema(labels, pa.schema([])))
        self._manifest = as_stored(manifest)
        self._newest = _EPOCH
        self._known_parts: list[Part] | None = None
        self.schema = self._columns
        self._parts()

    @contextmanager
    def claimed(self) -> Iterator[Claim]:
        """Claims the folder for one run, and compacts what earlier runs left.

        Raises:
            OutputError: another run is writing there.
        """
        with Claim(self.folder, f"{RUNS}/claim.json") as claim:
            self._known_parts = None  # another run may just have ended
            self.compact()
            yield claim

    def now(self) -> datetime:
        """The time of new rows: later than that of every row in the folder."""
        return max(datetime.now(UTC), self._newest + timedelta(microseconds=1))

    def done(self, model_digest: str, precision: Precision) -> Done:
        """The recordings that this model need not label again."""
        labelled, failed = [], []
        for table in self._tables(["file_id", "model_digest", "status", "precision"]):
            same_model = pc.equal(table["model_digest"].cast(pa.string()), model_digest)
            final = pc.and_(same_model, is_final(table["status"]))
            ok = pc.equal(table["status"].cast(pa.string()), Status.OK)
            enough = is_precise_enough(table["precision"], precision)
            labelled.append(table.filter(pc.and_(final, pc.and_(ok, enough)))["file_id"])
            failed.append(table.filter(pc.and_(final, pc.invert(ok)))["file_id"])
        return Done(FileIds(labelled), FileIds(failed))

    def write_part(self, rows: pa.Table) -> str:
        """Writes rows as one part and returns its name.

        Columns are taken by name, and those that the rows lack become null.
        """
        self._known_parts = None
        return write_part(self.folder, conform(rows, self.schema))

    def compact(self, known_to_0_1: pa.Table | None = None) -> int:
        """Removes superseded rows and merges small parts; every part gets the same columns.

        A part is written before those whose rows it takes are removed: a kill in between leaves a
        row twice, never none, and the next run begins by compacting.

        Args:
            known_to_0_1: `Plan.known_to_0_1`: the current identity of rows of release 0.1.

        Returns:
            How many superseded rows were removed.
        """
        self.folder.remove_temporary_files()
        upgrade = release_0_1.Upgrade(self.folder, known_to_0_1)
        parts, current = self._parts(), self._current_rows()
        small = [part for part in parts if len(current[part.name]) < _SMALL_PART]
        rewritten = [
            part
            for part in parts
            if len(current[part.name]) < part.num_rows
            or part.schema.names != self.schema.names
            or (len(small) > 1 and part in small)
            or known_to_0_1 is not None
        ]
        for bundle in _bundles(rewritten, current):
            tables = [part.read(self.schema).take(current[part.name]) for part in bundle]
            rows = upgrade.apply(pa.concat_tables(tables))
            written = self.write_part(rows) if rows.num_rows else None
            for part in bundle:
                if part.name != written:
                    self.folder.remove(part.name)
        upgrade.move_reports(RUNS)
        return sum(part.num_rows - len(current[part.name]) for part in parts)

    def counts(self) -> dict[str, Any]:
        """How many rows there are, in all, by status and by label."""
        names = ["status", "label"]
        table = pa.concat_tables([self.schema.empty_table().select(names), *self._tables(names)])
        status, label = (_value_counts(table[name]) for name in names)
        return {"rows": table.num_rows, "by_status": status, "by_label": label}

    def write_report(self, run_id: str, report: dict[str, Any]) -> None:
        """Writes ``__runs/<run_id>.json``, the sign that a run is complete."""
        text = json.dumps(report, indent=2, ensure_ascii=False)
        self.folder.write(f"{RUNS}/{run_id}.json", text.encode())

    # ---- parts -----------------------------------------------------------------------------------

    def _parts(self) -> list[Part]:
        """The parts; sets the folder's columns: ours, then earlier manifests', then new ones."""
        if self._known_parts is not None:
            return self._known_parts
        parts = find_parts(self.folder)
        schema = self._columns
        for part in parts:
            self._refuse_other_tables(part)
            for field in part.schema:
                if field.name not in schema.names:
                    schema = schema.append(field)
        for field in self._manifest:
            if field.name not in schema.names:
                schema = schema.append(field)
        self.schema, self._known_parts = schema, parts
        return parts

    def _refuse_other_tables(self, part: Part) -> None:
        theirs, ours = classes_of(part.schema), classes_of(self._columns)
        types = {field.name: field.type for field in part.schema}
        fields = [*self._columns, *self._manifest]
        differing = [f.name for f in fields if types.get(f.name, f.type) != f.type]
        if not types.keys() >= _REQUIRED:
            reason = "was not written by jobs.label; remove it"
        elif theirs != ours:
            reason = f"has the classes {', '.join(theirs)}, and the model has {', '.join(ours)};"
        elif differing:
            reason = f"has columns of another type ({', '.join(differing)});"
        else:
            return
        raise OutputError(f"{part.where} {reason} choose another folder")

    def _tables(self, columns: list[str]) -> Iterator[pa.Table]:
        """The columns of each part, in order."""
        parts = self._parts()
        with ThreadPoolExecutor(_CONCURRENT_PARTS) as pool:
            for start in range(0, len(parts), _CONCURRENT_PARTS):
                few = parts[start : start + _CONCURRENT_PARTS]
                yield from pool.map(lambda part: part.read(self.schema, columns), few)

    def _with_path(self, part: Part, rows: pa.Table) -> pa.Table:
        """Rows of release 0.1 whose URI is not known are known by their path."""
        path = part.read(self.schema, ["path"])["path"]
        return rows.set_column(0, "uri", pc.coalesce(rows["uri"], path))

    def _current_rows(self) -> dict[str, np.ndarray]:
        """The numbers of the current rows, by part."""
        parts = self._parts()
        if not parts:
            return {}
        tables = self._tables(["uri", "status", "labeled_at"])
        columns = [
            _rule_columns(table if not table["uri"].null_count else self._with_path(part, table))
            for part, table in zip(parts, tables, strict=True)
        ]
        recording, final, labeled_at = map(np.concatenate, zip(*columns, strict=True))
        if len(labeled_at):
            newest = _EPOCH + timedelta(microseconds=int(labeled_at.max()))
            self._newest = max(self._newest, newest)
        stale = superseded(recording, final, labeled_at)
        ends = np.cumsum([part.num_rows for part in parts])[:-1]
        return {
            part.name: np.flatnonzero(~stale_of_part)
            for part, stale_of_part in zip(parts, np.split(stale, ends), strict=True)
        }


def _rule_columns(rows: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A hash of each row's recording, whether the row is final, and its time in µs.

    Hashes have eight bytes: among 10 million recordings, two collide with probability 3e-6.
    """
    uri = rows["uri"].to_numpy(zero_copy_only=False)
    return (
        pd.util.hash_array(uri),
        is_final(rows["status"]).to_numpy(),
        rows["labeled_at"].cast(pa.int64()).to_numpy(),
    )


def _bundles(parts: list[Part], current: dict[str, np.ndarray]) -> Iterator[list[Part]]:
    """Parts whose current rows fit into one part."""
    bundle: list[Part] = []
    num_rows = 0
    for part in parts:
        if bundle and num_rows + len(current[part.name]) > ROWS_PER_PART:
            yield bundle
            bundle, num_rows = [], 0
        bundle.append(part)
        num_rows += len(current[part.name])
    if bundle:
        yield bundle


def _value_counts(column: pa.ChunkedArray) -> dict[str, int]:
    counts = column.cast(pa.string()).drop_null().value_counts().to_pylist()
    return {row["values"]: row["counts"] for row in counts}
