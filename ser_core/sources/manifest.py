"""A table of paths as ``--input``; its other columns are kept. It opens no recording."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from ser_core.errors import CorpusError
from ser_core.sources.interface import PAGE_ROWS, Page
from ser_core.sources.recording import Recording
from ser_core.storage.filesystem import absolute, join, resolve
from ser_core.storage.listing import stat_file

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


def open_source(uri: str) -> "ManifestSource":
    """Opens a manifest and reads every path in it once.

    Raises:
        CorpusError: it cannot be read, has no column ``path``, a row without a path, a recording
            twice, or a column twice.
    """
    return ManifestSource(uri, _checked_columns(uri))


@dataclass(frozen=True)
class ManifestSource:
    """The recordings that a manifest names, relative to its folder or absolute.

    Attributes:
        uri: of the manifest, absolute.
        columns: its columns other than ``path``.
    """

    uri: str
    columns: pa.Schema

    def pages(self) -> Iterator[Page]:
        """The manifest's rows in its order, with the size and version of each file."""
        with ThreadPoolExecutor(_CONCURRENT_STATS) as pool:
            for table in read_manifest(self.uri):
                names = table["path"].to_pylist()
                entries = pool.map(stat_file, recording_uris(self.uri, names))
                recordings = [
                    Recording(
                        entry.path,
                        entry.size,
                        entry.version,
                        name=None if name == entry.path else name,
                    )
                    for entry, name in zip(entries, names, strict=True)
                ]
                yield Page(recordings, table.drop_columns("path"))


def recording_uris(manifest: str, paths: list[str]) -> list[str]:
    """The absolute URIs of a manifest's paths.

    >>> recording_uris("/data/calls.csv", ["a.wav", "../b.wav", "s3://bucket/c.wav"])
    ['/data/a.wav', '/b.wav', 's3://bucket/c.wav']
    """
    base = absolute(manifest).rsplit("/", 1)[0]
    uris = (join(base, path) for path in paths)
    # Most local paths need no second look.
    return [absolute(uri) if "/." in uri or "//" in uri else uri for uri in uris]


def read_manifest(uri: str) -> Iterator[pa.Table]:
    """A manifest's rows in tables; ``path`` is a string column if there is one."""
    kind = uri.rsplit(".", 1)[-1].lower()
    fs, name = resolve(uri)
    with fs.open(name, "rb") as handle:
        if kind == "parquet":
            batches = pq.ParquetFile(handle).iter_batches(batch_size=PAGE_ROWS)
        elif kind == "csv":
            # All columns stay text: no guess turns a speaker called 007 into 7.
            batches = pyarrow.csv.open_csv(handle, convert_options=_as_text(fs, name))
        else:
            batches = pyarrow.json.read_json(handle).to_batches(max_chunksize=PAGE_ROWS)
        for batch in batches:
            table = pa.Table.from_batches([batch])
            if table.num_rows:
                yield _with_text_path(table)


def _as_text(fs: Any, name: str) -> pyarrow.csv.ConvertOptions:
    with fs.open(name, "rb") as handle:
        names = pyarrow.csv.open_csv(handle).schema.names
    return pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))


def _with_text_path(table: pa.Table) -> pa.Table:
    if table.column_names.count("path") != 1:
        return table
    index = table.column_names.index("path")
    return table.set_column(index, "path", table["path"].cast(pa.string()))


# ---- checks --------------------------------------------------------------------------------------


def _checked_columns(uri: str) -> pa.Schema:
    """The manifest's columns other than ``path``, after a look at every path in it."""
    hashes: list[np.ndarray] = []
    schema: pa.Schema | None = None
    try:
        for table in read_manifest(uri):
            if schema is None:
                schema = _checked_schema(uri, table.schema)
            if table["path"].null_count:
                raise CorpusError(f"--input {uri}: a row has no path")
            hashes.append(_uri_hashes(uri, table))
    except FileNotFoundError:
        raise CorpusError(f"--input {uri}: there is no such file") from None
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise CorpusError(f"--input {uri}: the manifest cannot be read ({reason})") from None
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


def _uri_hashes(uri: str, table: pa.Table) -> np.ndarray:
    uris = np.asarray(recording_uris(uri, table["path"].to_pylist()), object)
    hashes: np.ndarray = pd.util.hash_array(uris)
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
        suspect = np.isin(_uri_hashes(uri, table), suspects)
        for row in np.flatnonzero(suspect):
            location = recording_uris(uri, [paths[row]])[0]
            if location in seen:
                names = " and ".join(dict.fromkeys([seen[location], paths[row]]))
                raise CorpusError(f"--input {uri}: the manifest has a recording twice: {names}")
            seen[location] = paths[row]
