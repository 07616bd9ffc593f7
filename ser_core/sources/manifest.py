"""A corpus → tables of its recordings, streamed; it opens manifests, never recordings."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from ser_core.audio.decode import is_audio
from ser_core.errors import CorpusError, SerError
from ser_core.schema import SIZE, collisions, listing_schema
from ser_core.storage.filesystem import absolute, is_local, join, resolve
from ser_core.storage.listing import Entry, is_file, list_files, stat_file

_ROWS = 10_000  # of one listed table: about 1 MB
_STATS_AT_ONCE = 32  # requests under way while a manifest's files are looked at
_MANIFESTS = ("parquet", "csv", "jsonl", "ndjson")


@dataclass(frozen=True)
class Corpus:
    """Recordings to label: a folder, one file, or a manifest.

    Attributes:
        uri: as an absolute URI.
        base: what a manifest's relative paths are relative to.
        columns: the manifest's own columns, which ride along; empty without a manifest.
    """

    uri: str
    base: str
    columns: pa.Schema

    def tables(self) -> Iterator[pa.Table]:
        """The recordings in tables of ``listing_schema(self.columns)``, in no order.

        Raises:
            CorpusError: the listing fails, or the manifest's rows don't fit its first ones.
        """
        try:
            if is_manifest(self.uri):
                yield from _manifest_tables(self)
            else:
                entries = list_files(self.uri, is_audio) if not is_file(self.uri) else [None]
                yield from _entry_tables(stat_file(self.uri) if e is None else e for e in entries)
        except FileNotFoundError:
            raise CorpusError(f"--input {self.uri}: there is no such file or folder") from None
        except SerError:
            raise
        except Exception as error:  # remote file systems share no base for what they raise
            if is_local(self.uri) and not isinstance(error, OSError | pa.ArrowInvalid):
                raise
            raise CorpusError(f"--input {self.uri}: cannot be read ({error})") from None


def is_manifest(uri: str) -> bool:
    """Whether a name ends like a manifest's.

    >>> is_manifest("s3://bucket/calls.parquet"), is_manifest("/data/calls")
    (True, False)
    """
    return uri.rsplit(".", 1)[-1].lower() in _MANIFESTS


def open_corpus(uri: str, labels: Sequence[str]) -> Corpus:
    """Looks at an input and checks what can be checked without listing it.

    Args:
        uri: ``--input`` as given.
        labels: the checkpoint's classes, whose columns a manifest must not have.

    Raises:
        CorpusError: a manifest without ``path``, with a path twice or with one of our columns; a
            single file that is no recording.
    """
    where = absolute(uri)
    if is_manifest(uri):
        return Corpus(where, where.rsplit("/", 1)[0], _checked_columns(uri, where, labels))
    if not is_audio(uri) and is_file(where):
        words = f"neither a recording nor a manifest ({', '.join(_MANIFESTS)}) by its name"
        raise CorpusError(f"--input {uri}: {words}")
    return Corpus(where, where, pa.schema([]))


def file_id(path: str, size: int | None, version: str) -> str:
    """The identity of a file's content: changes when its size or version does.

    >>> file_id("/a.wav", 10, "1") == file_id("/a.wav", 10, "2")
    False
    """
    seen = f"{path}\0{size}\0{version}".encode()
    return hashlib.blake2b(seen, digest_size=16).hexdigest()


def _entry_tables(entries: Iterable[Entry]) -> Iterator[pa.Table]:
    remaining = iter(entries)
    while page := list(islice(remaining, _ROWS)):
        yield _listing(page, None)


def _listing(entries: Sequence[Entry], manifest: pa.Table | None) -> pa.Table:
    schema = listing_schema(manifest.drop_columns("path").schema if manifest else pa.schema([]))
    columns: dict[str, Any] = {
        "path": [entry.path for entry in entries],
        "file_id": [file_id(*entry) for entry in entries],
        SIZE.name: [entry.size for entry in entries],
    }
    if manifest:
        columns |= {name: manifest[name] for name in manifest.column_names if name != "path"}
    return pa.table(columns, schema=schema)


# ---- manifests -----------------------------------------------------------------------------------


def _manifest_tables(corpus: Corpus) -> Iterator[pa.Table]:
    with ThreadPoolExecutor(_STATS_AT_ONCE) as pool:
        for table in read_manifest(corpus.uri):
            paths = table["path"].to_pylist()
            seen = pool.map(stat_file, (join(corpus.base, path) for path in paths))
            entries = [entry._replace(path=path) for entry, path in zip(seen, paths, strict=True)]
            yield _listing(entries, table)


def _checked_columns(given: str, uri: str, labels: Sequence[str]) -> pa.Schema:
    """The manifest's columns but ``path``, after a look at every path in it."""
    hashes: list[np.ndarray] = []
    schema: pa.Schema | None = None
    try:
        for table in read_manifest(uri):
            if schema is None:
                schema = _checked_schema(given, table.schema, labels)
            if table["path"].null_count:
                raise CorpusError(f"--input {given}: a row has no path")
            hashes.append(pd.util.hash_array(table["path"].to_numpy(zero_copy_only=False)))
    except FileNotFoundError:
        raise CorpusError(f"--input {given}: there is no such file") from None
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        words = str(error).splitlines()[0]
        raise CorpusError(f"--input {given}: not a manifest that can be read ({words})") from None
    if schema is None:
        raise CorpusError(f"--input {given}: the manifest has no rows")
    _refuse_repeated_paths(given, uri, np.concatenate(hashes))
    return schema


def _checked_schema(given: str, schema: pa.Schema, labels: Sequence[str]) -> pa.Schema:
    if schema.names.count("path") != 1:
        count = "no" if "path" not in schema.names else "more than one"
        found = ", ".join(schema.names)
        raise CorpusError(f"--input {given}: the manifest has {count} column `path` ({found})")
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise CorpusError(f"--input {given}: the manifest has a column twice: {', '.join(twice)}")
    others = schema.remove(schema.get_field_index("path")).remove_metadata()
    taken = collisions(labels, others)
    if taken:
        words = (
            f"the output has columns of its own called {', '.join(taken)}; rename the manifest's"
        )
        raise CorpusError(f"--input {given}: {words}")
    return others


def _refuse_repeated_paths(given: str, uri: str, hashes: np.ndarray) -> None:
    """Eight bytes a path; the paths themselves are read again only where two hashes are equal."""
    values, counts = np.unique(hashes, return_counts=True)
    suspects = values[counts > 1]
    if not len(suspects):
        return
    seen: set[str] = set()
    for table in read_manifest(uri):
        paths = table["path"].to_numpy(zero_copy_only=False)
        for path in paths[np.isin(pd.util.hash_array(paths), suspects)]:
            if path in seen:
                raise CorpusError(f"--input {given}: the manifest has a path twice: {path}")
            seen.add(path)


def read_manifest(uri: str) -> Iterator[pa.Table]:
    """A manifest's rows in tables; ``path`` is a string column if it is there at all."""
    kind = uri.rsplit(".", 1)[-1].lower()
    fs, name = resolve(uri)
    with fs.open(name, "rb") as handle:
        if kind == "parquet":
            batches = pq.ParquetFile(handle).iter_batches(batch_size=_ROWS)
        elif kind == "csv":
            # All columns stay text: no guess turns a speaker called 007 into 7.
            batches = pyarrow.csv.open_csv(handle, convert_options=_as_text(fs, name))
        else:
            batches = pyarrow.json.read_json(handle).to_batches(max_chunksize=_ROWS)
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
