"""The Parquet files of an output, read by column; it knows no rule of the label store."""

import hashlib
import io
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow.fs import FSSpecHandler, PyFileSystem

from ser_core.errors import OutputError, one_line
from ser_core.schema import EMBEDDING
from ser_core.storage.filesystem import retry_transient
from ser_core.storage.folder import Folder, storage_errors
from ser_core.storage.listing import is_hidden

ROWS_PER_PART = 50_000  # about 5 MB
_EMBEDDING_BYTES_PER_PART = 16 << 20  # they hardly compress, and the driver holds several parts
_CONCURRENT_FOOTERS = 16
_LISTINGS = 5  # in which a part may vanish, while another run merges parts
# Each page has a checksum, without which a damaged byte may be read as another value.
_FORMAT = ds.ParquetFileFormat(
    default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True)
)


class _NotReadError(Exception):
    """Carries what a file system raised, which pyarrow's own errors share their types with."""


@contextmanager
def _reading() -> Iterator[None]:
    """Marks what is raised within it."""
    try:
        yield
    except Exception as error:
        raise _NotReadError(error) from error


class _Content:
    """An open file, as far as pyarrow needs it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        with _reading():
            return self._file.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class _FilesOf(FSSpecHandler):  # type: ignore[misc]
    """The files of a folder by name, without fsspec's read-ahead: a column costs its bytes."""

    def __init__(self, folder: Folder) -> None:
        super().__init__(folder.fs)
        self._folder = folder

    def open_input_file(self, name: str) -> pa.PythonFile:
        path = self._folder.path(name)  # which pyarrow could not take if it is not UTF-8
        with _reading():
            file = self.fs.open(path, mode="rb", cache_type="none")
        return pa.PythonFile(_Content(file), mode="r")


@dataclass(frozen=True)
class Part:
    """One Parquet file of an output.

    Attributes:
        name: in its folder.
        fragment: for pyarrow.dataset; only its footer is read until `read`.
        where: for messages.
    """

    name: str
    fragment: Any
    where: str

    @cached_property
    def schema(self) -> pa.Schema:
        """Its own columns.

        Raises:
            OutputError: it is not a Parquet file.
            Exception: what the file system raises, of whatever type.
        """
        return self._parse(lambda: self.fragment.physical_schema, "is not a Parquet file")

    @property
    def num_rows(self) -> int:
        """How many rows it has; the footer has been read with the schema."""
        return int(self.fragment.metadata.num_rows)

    def read(self, schema: pa.Schema, columns: list[str] | None = None) -> pa.Table:
        """Columns by name; those that the part lacks are null.

        Args:
            schema: has all of the columns.
            columns: which ones, in this order; all by default.

        Raises:
            OutputError: its content is damaged.
            RunError: its storage failed.
        """
        columns = columns or schema.names
        with storage_errors(f"{self.where} could not be read"):
            return self._parse(
                lambda: self.fragment.to_table(schema=schema, columns=columns), "is damaged"
            )

    def read_known(self, schema: pa.Schema, columns: list[str]) -> pa.Table:
        """As `read`; rows of release 0.1 whose URI is not known are known by their path."""
        rows = self.read(schema, columns)
        if "uri" not in columns or not rows["uri"].null_count:
            return rows
        known = pc.coalesce(rows["uri"], self.read(schema, ["path"])["path"])
        return rows.set_column(columns.index("uri"), "uri", known)

    def _parse(self, parse: Callable[[], Any], problem: str) -> Any:
        """What pyarrow makes of the content; retries where storage failed, and only there."""

        def attempt() -> Any:
            try:
                return parse()
            except _NotReadError as error:
                raise error.args[0] from error.args[0].__cause__
            except MemoryError:
                raise
            except (OSError, pa.ArrowException) as error:
                reason = f"{problem} ({one_line(error)}); remove it or choose another folder"
                raise OutputError(f"{self.where} {reason}") from None

        return retry_transient(attempt)()


def find_parts(folder: Folder, flag: str = "--output") -> list[Part]:
    """The Parquet files directly in a folder, their footers read.

    Args:
        folder: of labels.
        flag: that named it, for messages.

    Raises:
        OutputError: one of them is not a Parquet file.
        RunError: the folder cannot be read.
    """
    with storage_errors(f"{flag} {folder.uri}: the parts could not be read"):
        for _ in range(_LISTINGS):
            try:
                return _find_parts(folder, flag)
            except FileNotFoundError:  # another run has just merged it
                continue
        return _find_parts(folder, flag)


def _find_parts(folder: Folder, flag: str) -> list[Part]:
    files = PyFileSystem(_FilesOf(folder))
    names = [n for n in folder.names() if n.endswith(".parquet") and not is_hidden(n)]
    parts = [
        Part(name, _FORMAT.make_fragment(name, files), f"{flag} {folder.uri}: {name}")
        for name in names
    ]
    with ThreadPoolExecutor(_CONCURRENT_FOOTERS) as pool:
        list(pool.map(lambda part: part.schema, parts))
    return parts


def rows_per_part(schema: pa.Schema) -> int:
    """How many rows a part has, about: fewer with embeddings.

    >>> embedding = pa.field("embedding", pa.list_(pa.float16(), 768))
    >>> rows_per_part(pa.schema([])), rows_per_part(pa.schema([embedding]))
    (50000, 10922)
    """
    if EMBEDDING not in schema.names:
        return ROWS_PER_PART
    num_bytes: int = schema.field(EMBEDDING).type.list_size * np.dtype(np.float16).itemsize
    return min(ROWS_PER_PART, max(1, _EMBEDDING_BYTES_PER_PART // num_bytes))


def bundles(parts: list[Part], sizes: dict[str, int], most: int) -> Iterator[list[Part]]:
    """Parts whose current rows, of which there are so many, fit into one part of that many."""
    bundle: list[Part] = []
    num_rows = 0
    for part in parts:
        if bundle and num_rows + sizes[part.name] > most:
            yield bundle
            bundle, num_rows = [], 0
        bundle.append(part)
        num_rows += sizes[part.name]
    if bundle:
        yield bundle


def write_part(folder: Folder, rows: pa.Table) -> str:
    """Writes rows as one part, named by their digest, and returns the name."""
    name = _name(rows)
    folder.write(name, as_parquet(rows))
    return name


def as_parquet(rows: pa.Table) -> bytes:
    """Rows as a Parquet file, which pandas, DuckDB and `datasets` read."""
    # The numbers of embeddings hardly repeat: with a dictionary, they take half as much again.
    # Byte streams would save a tenth more, but DuckDB does not read them for float16.
    dictionaries = [name for name in rows.column_names if name != EMBEDDING]
    buffer = io.BytesIO()
    pq.write_table(
        rows,
        buffer,
        compression="zstd",
        write_page_checksum=True,
        use_dictionary=dictionaries if EMBEDDING in rows.column_names else True,
    )
    return buffer.getvalue()


def conform(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Rows in the columns of a schema, taken by name; those that they lack become null."""
    columns = [
        _as_type(rows[field.name], field.type)
        if field.name in rows.column_names
        else pa.nulls(len(rows), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema).unify_dictionaries().combine_chunks()


def _as_type(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_dictionary(kind):  # encoded again, so that no value stays whose rows are gone
        column = column.cast(kind.value_type).combine_chunks().dictionary_encode()
    return column.cast(kind)


def differ(one: pa.DataType, other: pa.DataType) -> bool:
    """Whether two types differ; a column without values, which has the type null, fits any."""
    return one != other and not (pa.types.is_null(one) or pa.types.is_null(other))


def as_stored(schema: pa.Schema) -> pa.Schema:
    """The schema as it comes back from Parquet, which has fewer types than Arrow."""
    buffer = io.BytesIO()
    pq.write_table(schema.empty_table(), buffer)
    return pq.read_schema(buffer).remove_metadata()


def is_part(name: str) -> bool:
    """Whether jobs.label may have written a file of this name.

    >>> is_part("part-0123456789ab.parquet"), is_part("summary.parquet")
    (True, False)
    """
    return re.fullmatch(r"part-[0-9a-f]+\.parquet", name) is not None


def _name(rows: pa.Table) -> str:
    """The same rows have the same name in any order; rows made later have another one."""
    times = rows["labeled_at"].cast(pa.int64()).to_pylist()
    keys = zip(rows["file_id"].to_pylist(), times, rows["path"].to_pylist(), strict=True)
    digest = hashlib.blake2b(digest_size=12)
    for file_id, time, path in sorted(keys):
        digest.update(f"{file_id}\0{time}\0{path}\n".encode())
    return f"part-{digest.hexdigest()}.parquet"
