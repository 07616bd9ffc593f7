"""The label store: ``OUTPUT/part-*.parquet``, the only state of a job; it knows no Ray, no audio.

One row per recording is current:

- A row is *final* if the recording's content decided it, and *transient* if the way to the content
  did (`Status.final`). A transient row never replaces a final one.
- A newer final row replaces an older one of the same recording. Times only go forward: what a run
  writes is newer than all that the folder holds, whatever the clock says.
- A recording is done if a final row has its `file_id` and the model's digest; with
  ``--precision fp32``, a label must also have been made in fp32.
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
from ser_core.labeling.parts import Part, as_stored, find_parts, write_part
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
    """Which rows stand until the file changes."""
    return pc.is_in(status.cast(pa.string()), pa.array(sorted(FINAL), pa.string()))


def is_precise_enough(precision: pa.ChunkedArray, requested: Precision) -> pa.ChunkedArray:
    """Which labels need not be made again in the precision that a run asks for."""
    if requested == "fp32":
        return pc.equal(precision.cast(pa.string()).fill_null("unknown"), "fp32")
    return pc.is_valid(precision.cast(pa.string()).fill_null("unknown"))


# ---- the store -----------------------------------------------------------------------------------


class Done(NamedTuple):
    """The recordings that need no labelling again."""

    ok: FileIds
    failed: FileIds


class LabelStore:
    """A folder of labels.

    Attributes:
        folder: where its parts are.
        schema: this run's columns, and those that the manifests of earlier runs left.
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
        self._ours = as_stored(output_schema(labels, manifest))
        self.schema = self._with_earlier_columns()
        self._newest = _EPOCH

    @contextmanager
    def claimed(self) -> Iterator[Claim]:
        """Claims the folder for one run, and compacts what earlier runs left.

        Raises:
            OutputError: another run is writing there.
        """
        with Claim(self.folder, f"{RUNS}/claim.json") as claim:
            self.schema = self._with_earlier_columns()  # a run may just have ended
            self.compact()
            yield claim

    def now(self) -> datetime:
        """The time of new rows: later than that of every row in the folder."""
        return max(datetime.now(UTC), self._newest + timedelta(microseconds=1))

    def done(self, model_digest: str, precision: Precision) -> Done:
        """The recordings that this model need not label again."""
        labelled, failed = [], []
        for table in self._tables(["file_id", "model_digest", "status", "precision"]):
            ours = pc.equal(table["model_digest"].cast(pa.string()), model_digest)
            ok = pc.equal(table["status"].cast(pa.string()), Status.OK)
            final = pc.and_(ours, is_final(table["status"]))
            enough = is_precise_enough(table["precision"], precision)
            labelled.append(table.filter(pc.and_(final, pc.and_(ok, enough)))["file_id"])
            failed.append(table.filter(pc.and_(final, pc.invert(ok)))["file_id"])
        return Done(FileIds(labelled), FileIds(failed))

    def write_part(self, rows: pa.Table) -> str:
        """Writes rows as one part and returns its name.

        Columns are taken by name, and those that the rows lack become null.
        """
        columns = [
            _as_type(rows[field.name], field.type)
            if field.name in rows.column_names
            else pa.nulls(len(rows), field.type)
            for field in self.schema
        ]
        table = pa.table(columns, schema=self.schema).unify_dictionaries().combine_chunks()
        return write_part(self.folder, table)

    def compact(self) -> int:
        """Leaves the current rows only, in few parts with the same columns.

        A part is written before those whose rows it takes are removed: a kill in between leaves a
        row twice, never none, and the next run begins by compacting.

        Returns:
            How many superseded rows were removed.
        """
        for subfolder in ("", RUNS):
            self.folder.remove_temporary_files(subfolder)
        parts = find_parts(self.folder)
        current = self._current_rows(parts)
        small = [part for part in parts if len(current[part.name]) < _SMALL_PART]
        rewritten = [
            part
            for part in parts
            if len(current[part.name]) < part.num_rows
            or part.schema.names != self.schema.names
            or (len(small) > 1 and part in small)
        ]
        precision = release_0_1.precision_of_reports(self.folder)
        for bundle in _bundles(rewritten, current):
            tables = [
                part.read(self.schema, self.schema.names).take(current[part.name])
                for part in bundle
            ]
            rows = release_0_1.with_missing_columns(pa.concat_tables(tables), precision)
            self._replace(bundle, rows)
        release_0_1.move_reports(self.folder, RUNS)
        return sum(part.num_rows - len(current[part.name]) for part in parts)

    def adopt(self, known_to_0_1: pa.Table) -> None:
        """Gives rows of release 0.1 the identity under which a run found their recordings again.

        Args:
            known_to_0_1: columns ``file_id_of_0_1``, ``uri`` and ``file_id``.
        """
        for part in find_parts(self.folder):
            rows = part.read(self.schema, self.schema.names)
            if rows["uri"].null_count:
                self._replace([part], release_0_1.with_identity(rows, known_to_0_1))

    def _replace(self, parts: list[Part], rows: pa.Table) -> None:
        written = self.write_part(rows) if rows.num_rows else None
        for part in parts:
            if part.name != written:
                self.folder.remove(part.name)

    def counts(self) -> dict[str, Any]:
        """How many rows the folder holds, in all, by status and by label."""
        names = ["status", "label"]
        table = pa.concat_tables([self.schema.empty_table().select(names), *self._tables(names)])
        status, label = (_value_counts(table[name]) for name in names)
        return {"rows": table.num_rows, "by_status": status, "by_label": label}

    def write_report(self, run_id: str, report: dict[str, Any]) -> None:
        """Writes ``__runs/<run_id>.json``, the sign that a run is complete."""
        text = json.dumps(report, indent=2, ensure_ascii=False)
        self.folder.write(f"{RUNS}/{run_id}.json", text.encode())

    def _with_earlier_columns(self) -> pa.Schema:
        """Our columns, then those that only earlier parts have."""
        schema = self._ours
        for part in find_parts(self.folder):
            self._refuse_other_tables(part)
            for field in part.schema:
                if field.name not in schema.names:
                    schema = schema.append(field)
        return schema

    def _refuse_other_tables(self, part: Part) -> None:
        theirs, ours = classes_of(part.schema), classes_of(self._ours)
        types = {field.name: field.type for field in part.schema}
        differing = [f.name for f in self._ours if types.get(f.name, f.type) != f.type]
        if not types.keys() >= _REQUIRED:
            reason = "was not written by jobs.label; remove it"
        elif theirs != ours:
            reason = f"has the classes {', '.join(theirs)}, and the model has {', '.join(ours)};"
        elif differing:
            reason = f"has columns of another type ({', '.join(differing)});"
        else:
            return
        raise OutputError(f"{part.where} {reason} choose another folder")

    def _tables(self, columns: list[str], parts: list[Part] | None = None) -> Iterator[pa.Table]:
        """The columns of each part, in order."""
        parts = find_parts(self.folder) if parts is None else parts
        with ThreadPoolExecutor(_CONCURRENT_PARTS) as pool:
            for start in range(0, len(parts), _CONCURRENT_PARTS):
                few = parts[start : start + _CONCURRENT_PARTS]
                yield from pool.map(lambda part: part.read(self.schema, columns), few)

    def _current_rows(self, parts: list[Part]) -> dict[str, np.ndarray]:
        """The numbers of the current rows, by part."""
        if not parts:
            return {}
        tables = self._tables(["path", "uri", "status", "labeled_at"], parts)
        columns = zip(*map(_rule_columns, tables), strict=True)
        by_uri, by_path, without_uri, final, labeled_at = map(np.concatenate, columns)
        self._newest = max(self._newest, _EPOCH + timedelta(microseconds=int(labeled_at.max())))
        # A row of release 0.1 without a URI stands for whatever recording has its path.
        known_by_path = np.isin(by_path, by_path[without_uri])
        stale = superseded(np.where(known_by_path, by_path, by_uri), final, labeled_at)
        ends = np.cumsum([part.num_rows for part in parts])[:-1]
        names = (part.name for part in parts)
        return {n: np.flatnonzero(~s) for n, s in zip(names, np.split(stale, ends), strict=True)}


def _rule_columns(rows: pa.Table) -> tuple[np.ndarray, ...]:
    """What the rules look at: the recording by URI and by path, final or not, and the time.

    Eight bytes hash a URI: among 10 million recordings, two share one with probability 3e-6.
    """
    path = rows["path"].to_numpy(zero_copy_only=False)
    uri = pc.coalesce(rows["uri"], rows["path"]).to_numpy(zero_copy_only=False)
    return (
        pd.util.hash_array(uri),
        pd.util.hash_array(path),
        rows["uri"].is_null().to_numpy(),
        is_final(rows["status"]).to_numpy(),
        rows["labeled_at"].cast(pa.int64()).to_numpy(),
    )


def _as_type(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_dictionary(kind):  # encoded again, so that no value stays whose rows are gone
        column = column.cast(kind.value_type).combine_chunks().dictionary_encode()
    return column.cast(kind)


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
