"""The label store: ``OUTPUT/part-*.parquet``, the only state of a job; it knows no Ray, no audio.

- Which row of a recording is current, and which recordings are done, is decided in `rules.py`.
- Rows that are not current stay until `compact` removes them, at the end of a run that has made
  all its checks.
- Times only go forward: what a run writes is newer than everything in the folder, whatever the
  clock says.
- Columns are read by name; an older part that lacks one has nulls there.
- One run at a time: a run claims the folder for as long as it writes.
"""

import itertools
import json
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ser_core.errors import OutputError, without_credentials
from ser_core.labeling import release_0_1
from ser_core.labeling.parts import (
    Part,
    as_stored,
    bundles,
    conform,
    differ,
    find_parts,
    rows_per_part,
    write_part,
)
from ser_core.labeling.row_index import RowIndex
from ser_core.labeling.rules import RULE_COLUMNS, AllRows, is_done
from ser_core.labeling.totals import TOTAL_COLUMNS, totals
from ser_core.schema import EMBEDDING_SIZE, classes_of, output_schema
from ser_core.settings import Precision
from ser_core.sources.identity_hashes import hashes, is_in
from ser_core.storage.claim import Claim
from ser_core.storage.folder import Folder, refusals

RUNS = "__runs"  # two underscores: `datasets` would take files in `_runs` for data
_CONCURRENT_PARTS = 8  # parts read at once, and in memory at once
_EPOCH = datetime.fromtimestamp(0, UTC)
CurrentRows = dict[str, np.ndarray]  # whether each row of a part is current, by its name
_REQUIRED = {"path", "file_id", "status", "model_digest", "labeled_at"}


class LabelStore:
    """A folder of labels.

    Attributes:
        folder: where its parts are.
        schema: this run's columns, and those of the manifests of earlier runs.
    """

    def __init__(
        self,
        uri: str,
        labels: Sequence[str],
        manifest: pa.Schema,
        embedding_size: int | None = None,
    ) -> None:
        """Looks at what is there and writes nothing.

        Args:
            uri: ``--output``.
            labels: the checkpoint's classes.
            manifest: the manifest's own columns.
            embedding_size: of the rows' embeddings; None if the run makes none.

        Raises:
            OutputError: the folder cannot be used, or holds something other than such labels.
            RunError: its storage cannot be reached.
        """
        self.folder = Folder(uri)
        if problem := self.folder.why_unusable():
            raise OutputError(f"--output {self.folder.uri}: {problem}")
        self._labels = tuple(labels)
        self._embedding_size = embedding_size
        self._columns = as_stored(output_schema(labels, pa.schema([]), embedding_size))
        self._manifest = as_stored(manifest)
        self._newest: datetime | None = None
        self._known_parts: list[Part] | None = None
        self._known_rows: AllRows | None = None
        self._claim: Claim | None = None
        self.schema = self._columns
        with refusals():
            self._parts()

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy in another process reads the folder again."""
        return LabelStore, (self.folder.uri, self._labels, self._manifest, self._embedding_size)

    @contextmanager
    def claimed(self) -> Iterator[Claim]:
        """Claims the folder for one run, and makes sure that it can be written.

        Raises:
            OutputError: another run is writing there, or writing is refused.
            RunError: it cannot be written now: the disk is full, the storage out of reach.
        """
        with Claim(self.folder, f"{RUNS}/claim.json") as claim:
            for subfolder in ("", RUNS):
                self.folder.remove_temporary_files(subfolder)
            self.folder.probe()
            self._forget()  # another run may just have ended
            self._newest, self._claim = None, claim
            try:
                self.upgrade()
                yield claim
            finally:
                self._claim = None

    def now(self) -> datetime:
        """The time of new rows: later than that of every row that a run found in the folder."""
        if self._newest is None:
            newest = (pc.max(rows["labeled_at"]) for rows in self._tables(["labeled_at"]))
            self._newest = max((time.as_py() for time in newest if time.is_valid), default=_EPOCH)
        return max(datetime.now(UTC), self._newest + timedelta(microseconds=1))

    def rows(self) -> AllRows:
        """What the rules say about the rows that are there now."""
        if self._known_rows is None:
            self._known_rows = AllRows.from_tables(self._tables(list(RULE_COLUMNS)))
        return self._known_rows

    def index(
        self,
        model_digest: str,
        precision: Precision,
        retry: Collection[str] = (),
        since: datetime | None = None,
        dropped: Sequence[np.ndarray] = (),
    ) -> RowIndex:
        """Which recordings have rows, and which of these need no labelling.

        Args:
            model_digest: of the model that a run uses.
            precision: that it asks for.
            retry: statuses that it tries again.
            since: the time of the run's first rows; what it has labelled is done.
            dropped: hashes of further recordings that count as done.
        """
        rows, hashed, done = self.rows(), [np.empty(0, np.uint64)], [np.empty(0, bool)]
        columns = ["file_id", "model_digest", "status", "precision", "labeled_at"]
        embeddings = self._embedding_size is not None
        for table in self._tables([*columns, *([EMBEDDING_SIZE] if embeddings else [])]):
            hashed.append(hashes(table["file_id"]))
            mask = is_done(table, model_digest, precision, retry, embeddings)
            if since is not None:
                mask = pc.or_(mask, pc.greater_equal(table["labeled_at"], since))
            done.append(mask.to_numpy())
        current = rows.current
        file_id_hash, is_final = np.concatenate(hashed)[current], rows.final[current]
        identity_hash, is_current_done = rows.identity_hash[current], np.concatenate(done)[current]
        skipped = np.sort(np.concatenate([np.empty(0, np.uint64), *dropped]))
        return RowIndex.from_rows(identity_hash, file_id_hash, is_current_done, is_final, skipped)

    def write_part(self, rows: pa.Table) -> str:
        """Writes rows as one part and returns its name; the same rows always have the same name.

        Columns are taken by name, and those that the rows lack become null.

        Raises:
            RunError: the part could not be written.
        """
        self._forget()
        return write_part(self.folder, conform(rows, self.schema))

    def upgrade(self, known_to_0_1: pa.Table | None = None) -> None:
        """Gives rows of release 0.1 the current columns, and columns without values their type.

        Args:
            known_to_0_1: `Plan.known_to_0_1`: the current identity of such rows.
        """
        upgrade = release_0_1.Upgrade(self.folder, known_to_0_1)
        parts = self._parts()
        if known_to_0_1 is None:
            changed = [
                upgrade.lacks_columns(part.schema) or self._untyped(part.schema) for part in parts
            ]
        else:
            changed = [upgrade.knows(rows["file_id"]) for rows in self._tables(["file_id"])]
        for part in itertools.compress(parts, changed):
            written = self.write_part(upgrade.apply(part.read(self.schema)))
            self._remove([part], {written})
        upgrade.move_reports(RUNS)

    def current_rows(self, listed: np.ndarray | None = None) -> CurrentRows:
        """Whether each row is current, by part; if a list is given, only its recordings are.

        Args:
            listed: sorted hashes of recordings.
        """
        rows, parts = self.rows(), self._parts()
        kept = rows.current if listed is None else rows.current & is_in(rows.identity_hash, listed)
        ends = np.cumsum([part.num_rows for part in parts])[:-1]
        pieces = np.split(kept, ends) if parts else []
        return {part.name: piece for part, piece in zip(parts, pieces, strict=True)}

    def compact(self, current: CurrentRows | None = None) -> int:
        """Removes superseded rows and merges small parts; every part gets the same columns.

        A part is written before those whose rows it takes are removed: a kill in between leaves a
        row twice, never none, and rows that are there twice count once.

        Args:
            current: the rows that stay, by default those of `current_rows`.

        Returns:
            How many rows were removed.

        Raises:
            RunError: another run took the folder over, or its storage failed.
        """
        parts = self._parts()
        kept = self.current_rows() if current is None else current
        sizes = {part.name: int(kept[part.name].sum()) for part in parts}
        most = rows_per_part(self.schema)
        small = [part for part in parts if sizes[part.name] < most // 2]
        rewritten = [
            part
            for part in parts
            if sizes[part.name] < part.num_rows
            or part.schema.names != self.schema.names
            or (len(small) > 1 and part in small)
        ]
        written: set[str] = set()
        for bundle in bundles(rewritten, sizes, most):
            tables = [
                p.read(self.schema).filter(pa.array(kept[p.name])) for p in bundle if sizes[p.name]
            ]
            if tables:
                written.add(self.write_part(pa.concat_tables(tables)))
            self._remove(bundle, written)
        return sum(part.num_rows - sizes[part.name] for part in parts)

    def counts(self, current: CurrentRows | None = None) -> dict[str, Any]:
        """What the rows add up to, or only those that are current; see `totals`."""
        tables = self._tables(list(TOTAL_COLUMNS))
        if current is not None:
            parts = self._parts()
            masks = (pa.array(current[part.name]) for part in parts)
            tables = (table.filter(mask) for table, mask in zip(tables, masks, strict=True))
        return totals(tables)

    def write_report(self, run_id: str, report: dict[str, Any]) -> None:
        """Writes ``__runs/<run_id>.json``; see `run_report`."""
        text = without_credentials(json.dumps(report, indent=2, ensure_ascii=False))
        self.folder.write(f"{RUNS}/{run_id}.json", text.encode())

    # ---- parts -----------------------------------------------------------------------------------

    def _parts(self) -> list[Part]:
        """The parts; sets the folder's columns: ours, then earlier manifests', then new ones."""
        if self._known_parts is not None:
            return self._known_parts
        parts = find_parts(self.folder)
        for part in parts:
            self._refuse_other_tables(part)
        fields = {field.name: field for field in self._columns}
        for field in itertools.chain(*(part.schema for part in parts), self._manifest):
            if field.name not in fields or pa.types.is_null(fields[field.name].type):
                fields[field.name] = field
        self.schema, self._known_parts = pa.schema(fields.values()), parts
        return parts

    def _untyped(self, schema: pa.Schema) -> bool:
        """Whether a column has no type, because it had no value, and has one now."""
        untyped = [field.name for field in schema if pa.types.is_null(field.type)]
        return any(not pa.types.is_null(self.schema.field(name).type) for name in untyped)

    def _refuse_other_tables(self, part: Part) -> None:
        theirs, ours = classes_of(part.schema), classes_of(self._columns)
        types = {field.name: field.type for field in part.schema}
        fields = [*self._columns, *self._manifest]
        differing = [f.name for f in fields if differ(types.get(f.name, f.type), f.type)]
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
                yield from pool.map(lambda part: part.read_known(self.schema, columns), few)

    def _remove(self, parts: list[Part], written: set[str]) -> None:
        """Removes parts, except those that have just been written under the same name."""
        for part in parts:
            if self._claim is not None:
                self._claim.check()
            if part.name not in written:
                self.folder.remove(part.name)
        self._forget()

    def _forget(self) -> None:
        self._known_parts = self._known_rows = None
