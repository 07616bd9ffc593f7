"""The output folder: which recordings are done, new parts, one current row per path."""

import hashlib
import io
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ser_core.errors import FINAL, OutputError, Status
from ser_core.storage.folder import Folder

_READERS = 8  # parts read at once, and in memory at once
_ROWS_PER_PART = 50_000  # about 5 MB
_IDENTITY = ["file_id", "model_digest", "status"]


class FileIds:
    """A set of many `file_id`s in the memory of their 32 bytes each."""

    def __init__(self, arrays: list[pa.ChunkedArray]) -> None:
        self._sorted = np.sort(np.concatenate([np.empty(0, "S32"), *map(_as_bytes, arrays)]))

    def __len__(self) -> int:
        """How many they are, one that was written twice twice."""
        return len(self._sorted)

    def have(self, file_ids: pa.ChunkedArray) -> np.ndarray:
        """Which of these are in it, as booleans."""
        wanted = _as_bytes(file_ids)
        if not len(self._sorted):
            return np.zeros(len(wanted), bool)
        at = np.searchsorted(self._sorted, wanted).clip(max=len(self._sorted) - 1)
        found: np.ndarray = self._sorted[at] == wanted
        return found


def _as_bytes(file_ids: pa.ChunkedArray) -> np.ndarray:
    as_bytes: np.ndarray = file_ids.to_numpy().astype("S32")
    return as_bytes


class Done(NamedTuple):
    """The recordings that need no labelling again."""

    ok: FileIds
    failed: FileIds


class Output:
    """A folder of Parquet parts, and the only record of what is done."""

    def __init__(self, uri: str, schema: pa.Schema) -> None:
        self.folder = Folder(uri)
        self.schema = _as_stored(schema)

    def done(self, model_digest: str) -> Done:
        """What has a lasting row made by this model.

        Raises:
            OutputError: the folder cannot be used, or holds something else than such parts.
        """
        problem = self.folder.why_unusable()
        if problem:
            raise OutputError(f"--output {self.folder.uri}: {problem}")
        self.folder.remove_leftovers()
        found: dict[bool, list[pa.ChunkedArray]] = {True: [], False: []}
        for _, table in self._read_parts(_IDENTITY):
            status = table["status"].cast(pa.string())
            ours = pc.equal(table["model_digest"].cast(pa.string()), model_digest)
            ok = pc.equal(status, Status.OK)
            lasting = pc.is_in(status, pa.array(sorted(FINAL), pa.string()))
            found[True].append(table.filter(pc.and_(ours, ok))["file_id"])
            failed = pc.and_(lasting, pc.invert(ok))
            found[False].append(table.filter(pc.and_(ours, failed))["file_id"])
        return Done(FileIds(found[True]), FileIds(found[False]))

    def write_part(self, rows: pa.Table) -> str:
        """Writes rows as one part, named after what it holds: writing it again replaces it."""
        name = _part_name(rows)
        buffer = io.BytesIO()
        pq.write_table(rows, buffer, compression="zstd")
        self.folder.write(name, buffer.getvalue())
        return name

    def settle(self) -> int:
        """Leaves the newest row of every path, and returns how many others it removed.

        A part with superseded rows is written anew without them before it is removed, so that
        being killed in between leaves a row twice, never none; the next run settles that.
        """
        stale = self._superseded()
        removed = 0
        for name, rows in stale.items():
            table = self._read_part(name, None)
            keep = np.ones(len(table), bool)
            keep[rows] = False
            removed += len(rows)
            kept = table.filter(pa.array(keep))
            if not (kept.num_rows and self.write_part(kept) == name):
                self.folder.remove(name)
        return removed

    def write_report(self, run_id: str, report: dict[str, Any]) -> None:
        """Writes ``_runs/<run_id>.json``, the sign that a run is complete."""
        text = json.dumps(report, indent=2, ensure_ascii=False)
        self.folder.write(f"_runs/{run_id}.json", text.encode())

    def _superseded(self) -> dict[str, np.ndarray]:
        """The rows, by part, that are not the newest of their path."""
        names: list[str] = []
        hashes, times = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
        for name, table in self._read_parts(["path", "labeled_at"]):
            names.append(name)
            # Eight bytes a path: among 10 million, two share a hash with probability 3e-6.
            hashes.append(pd.util.hash_array(table["path"].to_numpy(zero_copy_only=False)))
            times.append(table["labeled_at"].cast(pa.int64()).to_numpy())
        hash_, ends = np.concatenate(hashes), np.cumsum([len(of_part) for of_part in hashes])
        if len(np.unique(hash_)) == len(hash_):
            return {}
        order = np.lexsort((np.concatenate(times), hash_))  # among equals, in the order of parts
        same = hash_[order][:-1] == hash_[order][1:]  # a newer row of the same path follows
        stale = np.sort(order[:-1][same])
        by_part = np.split(stale, np.searchsorted(stale, ends[1:-1]))
        return {
            name: rows - start
            for name, rows, start in zip(names, by_part, ends[:-1], strict=True)
            if len(rows)
        }

    def _read_parts(self, columns: list[str]) -> Iterator[tuple[str, pa.Table]]:
        names = [name for name in self.folder.names() if name.endswith(".parquet")]
        with ThreadPoolExecutor(_READERS) as pool:
            for start in range(0, len(names), _READERS):
                few = names[start : start + _READERS]
                tables = pool.map(lambda name: self._read_part(name, columns), few)
                yield from zip(few, tables, strict=True)

    def _read_part(self, name: str, columns: list[str] | None) -> pa.Table:
        where = f"--output {self.folder.uri}: {name}"
        try:
            file = pq.ParquetFile(io.BytesIO(self.folder.read(name)))
        except pa.ArrowException as error:
            words = f"is no Parquet file ({error}); take it away or choose another folder"
            raise OutputError(f"{where} {words}") from None
        if not file.schema_arrow.equals(self.schema):
            differing = set(file.schema_arrow) ^ set(self.schema)
            columns_ = ", ".join(sorted({field.name for field in differing})) or "their order"
            words = f"has other columns than this run writes ({columns_}); choose another folder"
            raise OutputError(f"{where} {words}")
        return file.read(columns)


class PartWriter:
    """Collects rows and writes them as parts: so many rows, or what came in so many seconds.

    Attributes:
        write_seconds: spent so far on writing.
    """

    def __init__(self, output: Output, seconds: float) -> None:
        self._output = output
        self._seconds = seconds
        self._tables: list[pa.Table] = []
        self._since = time.monotonic()
        self.write_seconds = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()  # also when the run stops: what is labelled stays labelled

    def add(self, rows: pa.Table) -> None:
        """Takes rows with the output's columns; they are on disk after the next flush."""
        self._tables.append(rows.cast(self._output.schema))
        full = sum(table.num_rows for table in self._tables) >= _ROWS_PER_PART
        if full or time.monotonic() - self._since >= self._seconds:
            self.flush()

    def flush(self) -> None:
        """Writes what was collected."""
        tables, self._tables = self._tables, []  # what cannot be written is not tried twice
        started = time.monotonic()
        if tables:
            rows = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
            self._output.write_part(rows)
        self._since = time.monotonic()
        self.write_seconds += self._since - started


def _as_stored(schema: pa.Schema) -> pa.Schema:
    """The schema as it comes back from Parquet, which knows fewer types than Arrow."""
    buffer = io.BytesIO()
    pq.write_table(schema.empty_table(), buffer)
    return pq.read_schema(buffer).remove_metadata()


def _part_name(rows: pa.Table) -> str:
    digest = hashlib.blake2b(digest_size=12)
    ids = zip(rows["file_id"].to_pylist(), rows["model_digest"].to_pylist(), strict=True)
    for pair in sorted(ids):
        digest.update("".join(pair).encode())
    return f"part-{digest.hexdigest()}.parquet"
