"""A table of paths as ``--input``; its other columns are kept. It opens no recording."""

import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from ser_core.errors import CorpusError, one_line
from ser_core.sources.interface import PAGE_ROWS, InputOptions, Page
from ser_core.sources.outside import refuse_links_outside, refuse_paths_outside
from ser_core.sources.recording import Recording
from ser_core.storage.filesystem import absolute, join
from ser_core.storage.listing import Entry, stat_file
from ser_core.storage.reading import open_table

EXTENSIONS = ("parquet", "csv", "jsonl", "ndjson")
DESCRIPTION = f"a manifest ({', '.join(EXTENSIONS)})"
_CONCURRENT_STATS = 32  # requests in flight for the sizes and versions of a manifest's files


def is_manifest(uri: str) -> bool:
    """Whether a name has the extension of a manifest.

    >>> is_manifest("s3://bucket/calls.parquet"), is_manifest("/data/calls")
    (True, False)
    """
    return uri.rsplit(".", 1)[-1].lower() in EXTENSIONS


def recognizes(uri: str) -> bool:
    """Whether a URI has the extension of a manifest."""
    return is_manifest(uri)


def open_source(uris: Sequence[str], options: InputOptions) -> "ManifestSource":
    """Opens a manifest and reads every path in it once.

    Args:
        uris: absolute.
        options: how they are read.

    Raises:
        CorpusError: it cannot be read, has no column ``path``, a row without a path, a recording
            twice, a column twice, or a path that leads outside or is not text.
    """
    (uri,), outside = uris, options.allow_outside
    return ManifestSource(uri, _checked_columns(uri, outside), outside)


@dataclass(frozen=True)
class ManifestSource:
    """The recordings that a manifest names, relative to its folder or absolute.

    Attributes:
        uri: of the manifest, absolute.
        columns: its columns other than ``path``.
        allow_outside: whether links may lead out of its folder.
    """

    uri: str
    columns: pa.Schema
    allow_outside: bool = False

    def pages(self) -> Iterator[Page]:
        """The manifest's rows in its order, with the size and version of each file."""
        stat = _Stat()
        with ThreadPoolExecutor(_CONCURRENT_STATS) as pool:
            for table in read_manifest(self.uri):
                names = table["path"].to_pylist()
                uris = recording_uris(self.uri, names)
                if not self.allow_outside:
                    refuse_links_outside(self.uri, names, uris)
                recordings = [
                    Recording(
                        entry.path,
                        entry.size,
                        entry.version,
                        name=None if name == entry.path else name,
                    )
                    for entry, name in zip(pool.map(stat, uris), names, strict=True)
                ]
                yield Page(recordings, table.drop_columns("path"))


@dataclass
class _Stat:
    """Sizes and versions; it ends the listing rather than wait for each file of a store in turn.

    A store is out of reach if a request failed until its deadline while no other had an answer.
    """

    _answered: dict[str, float] = field(default_factory=dict)  # by store, monotonic

    def __call__(self, uri: str) -> Entry:
        store, started = "/".join(uri.split("/", 3)[:3]), time.monotonic()
        try:
            entry = stat_file(uri)
        except Exception:
            if self._answered.get(store, -math.inf) < started:
                raise
            return Entry(uri, None, "")
        self._answered[store] = time.monotonic()
        return entry


def recording_uris(manifest: str, paths: list[str]) -> list[str]:
    """The absolute URIs of a manifest's paths.

    >>> recording_uris("/data/calls.csv", ["a.wav/", "../b.wav", "s3://bucket/c.wav"])
    ['/data/a.wav', '/b.wav', 's3://bucket/c.wav']
    """
    base = absolute(manifest).rsplit("/", 1)[0]
    uris = (join(base, path) for path in paths)
    # Most local paths need no second look.
    return [
        absolute(uri) if "/." in uri or "//" in uri or uri.endswith("/") else uri for uri in uris
    ]


def read_manifest(uri: str) -> Iterator[pa.Table]:
    """A manifest's rows in tables; ``path`` is a string column if there is one.

    Raises:
        Exception: what the file system raises, of whatever type; pa.ArrowException or
            UnicodeDecodeError where the content is no table.
    """
    kind = uri.rsplit(".", 1)[-1].lower()
    with open_table(uri) as handle:
        if kind == "parquet":
            batches = pq.ParquetFile(handle).iter_batches(batch_size=PAGE_ROWS)
        elif kind == "csv":
            # All columns stay text: no guess turns a speaker called 007 into 7.
            batches = pyarrow.csv.open_csv(handle, convert_options=_as_text(uri))
        else:
            batches = _read_json(handle).to_batches(max_chunksize=PAGE_ROWS)
        for batch in batches:
            table = pa.Table.from_batches([batch])
            if table.num_rows:
                yield _with_text_path(table)


@contextmanager
def content_errors(where: str) -> Iterator[None]:
    """Raises what reading a manifest raises because of its content; what storage raises passes.

    Args:
        where: flag and URI, for the message.

    Raises:
        CorpusError: it is no table.
    """
    try:
        yield
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        if isinstance(error, OSError) and not _is_pyarrows(error):
            raise
        raise CorpusError(f"{where}: the manifest cannot be read ({one_line(error)})") from None


def _is_pyarrows(error: OSError) -> bool:
    """Whether pyarrow raised it because of a file's content; those of a system have a number."""
    return type(error) is OSError and error.errno is None


def _as_text(uri: str) -> pyarrow.csv.ConvertOptions:
    with open_table(uri) as handle:
        names = pyarrow.csv.open_csv(handle).schema.names
    return pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))


def _read_json(handle: BinaryIO) -> pa.Table:
    """JSON lines; ``path`` is text, even where it looks like a date or a number."""
    text = pyarrow.json.ParseOptions(explicit_schema=pa.schema([("path", pa.string())]))
    table = pyarrow.json.read_json(handle, parse_options=text)
    # The schema adds the column where it is missing.
    return table.drop_columns("path") if table["path"].null_count == len(table) else table


def _with_text_path(table: pa.Table) -> pa.Table:
    if table.column_names.count("path") != 1:
        return table
    index = table.column_names.index("path")
    if not _is_text(table["path"].type):
        raise pa.ArrowTypeError(f"the column `path` is not text but {table['path'].type}")
    return table.set_column(index, "path", table["path"].cast(pa.string()))


def _is_text(kind: pa.DataType) -> bool:
    """Whether values are text; some programs write it as bytes, or as a column of nulls."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return kind in (pa.string(), pa.large_string(), pa.binary(), pa.large_binary(), pa.null())


# ---- checks --------------------------------------------------------------------------------------


def _checked_columns(uri: str, allow_outside: bool) -> pa.Schema:
    """The manifest's columns other than ``path``, after a look at every path in it."""
    hashes: list[np.ndarray] = []
    schema: pa.Schema | None = None
    with content_errors(f"--input {uri}"):
        for table in read_manifest(uri):
            if schema is None:
                schema = _checked_schema(uri, table.schema)
            names = table["path"].to_pylist()
            if not all(names):
                raise CorpusError(f"--input {uri}: a row has no path")
            if odd := [name for name in names if "\0" in name]:
                raise CorpusError(f"--input {uri}: the path {odd[0]!r} contains a NUL character")
            uris = recording_uris(uri, names)
            refuse_paths_outside(uri, names, uris, allow_outside)
            hashes.append(_hashes(uris))
    if schema is None:
        raise CorpusError(f"--input {uri}: the manifest has no rows")
    _refuse_repeated_recordings(uri, np.concatenate(hashes))
    return schema


def _checked_schema(uri: str, schema: pa.Schema) -> pa.Schema:
    if schema.names.count("path") != 1:
        count = "no" if "path" not in schema.names else "more than one"
        found = ", ".join(schema.names)
        raise CorpusError(f"--input {uri}: the manifest has {count} column `path` ({found})")
    repeated = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if repeated:
        raise CorpusError(f"--input {uri}: the manifest has a column twice: {', '.join(repeated)}")
    return schema.remove(schema.get_field_index("path")).remove_metadata()


def _hashes(uris: list[str]) -> np.ndarray:
    hashes: np.ndarray = pd.util.hash_array(np.asarray(uris, object))
    return hashes


def _refuse_repeated_recordings(uri: str, hashes: np.ndarray) -> None:
    """Eight bytes a path; the paths are read again only where two hashes are equal."""
    values, counts = np.unique(hashes, return_counts=True)
    suspects = values[counts > 1]
    if not len(suspects):
        return
    seen: dict[str, str] = {}
    for table in read_manifest(uri):
        paths = table["path"].to_pylist()
        uris = recording_uris(uri, paths)
        for row in np.flatnonzero(np.isin(_hashes(uris), suspects)):
            location = uris[row]
            if location in seen:
                names = " and ".join(dict.fromkeys([seen[location], paths[row]]))
                raise CorpusError(f"--input {uri}: the manifest has a recording twice: {names}")
            seen[location] = paths[row]
