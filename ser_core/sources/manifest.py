"""Tables of paths as ``--input``; their other columns are kept. It opens no recording."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from ser_core.errors import CorpusError, one_line
from ser_core.sources import identity_hashes
from ser_core.sources.inputs import input_errors
from ser_core.sources.interface import InputOptions, Page
from ser_core.sources.manifest_columns import (
    PATH_COLUMNS,
    Layout,
    layout_of,
    paths_of,
    stretches_of,
    text_column,
)
from ser_core.sources.named_files import NamedFiles, recordings_in
from ser_core.sources.nemo_manifest import names_shards
from ser_core.sources.outside import refuse_links_outside, refuse_paths_outside
from ser_core.sources.parquet_audio import holds_audio
from ser_core.sources.recording import Recording
from ser_core.sources.tables import (
    FORMATS,
    TABLE_EXTENSIONS,
    TableFile,
    conform,
    parquet_schema,
    table_format,
    union_schema,
)
from ser_core.sources.text_files import is_of_content
from ser_core.storage.filesystem import absolute, join
from ser_core.storage.listing import Entry

EXTENSIONS = TABLE_EXTENSIONS
DESCRIPTION = f"a manifest ({', '.join(FORMATS)}; also with .gz or .zst)"


def is_manifest(uri: str) -> bool:
    """Whether a name has the extension of a manifest.

    >>> is_manifest("s3://bucket/calls.jsonl.gz"), is_manifest("/data/calls")
    (True, False)
    """
    return table_format(uri) is not None


def recognizes(uri: str) -> bool:
    """Whether a URI has the extension of a manifest, unless it is a packed corpus by its content.

    Raises:
        Exception: the storage cannot tell; of whatever type the file system raises.
    """
    if table_format(uri) != "parquet":
        return is_manifest(uri) and not names_shards(uri)
    schema = parquet_schema(uri)
    return schema is None or not holds_audio(schema)


def open_source(uris: Sequence[str], options: InputOptions) -> "ManifestSource":
    """Opens manifests and reads every path in them once; see `open_tables`."""
    return open_tables([TableFile(uri) for uri in uris], options)


class RecordingTable(Protocol):
    """A table with a row for each recording."""

    @property
    def uri(self) -> str:
        """Its file, absolute; relative paths are relative to its folder."""

    def schema(self) -> pa.Schema:
        """Its columns; no name is there twice."""

    def read(self, schema: pa.Schema) -> Iterator[pa.Table]:
        """Some of its columns, page by page; those that have no type by themselves as these."""


def open_tables(tables: Sequence[RecordingTable], options: InputOptions) -> "ManifestSource":
    """Opens tables of recordings and reads every path in them once.

    Args:
        tables: at least one.
        options: how they are read.

    Raises:
        CorpusError: one cannot be read, has no column of paths, a row without a path, a path that
            leads outside or is not text, or a stretch that is none; or a recording is there twice.
    """
    opened = [_open(table, options.path_column) for table in tables]
    columns = union_schema(manifest.kept for manifest in opened)
    manifests = tuple(manifest.with_types(columns) for manifest in opened)
    hashes = [_checked(manifest, options.allow_outside) for manifest in manifests]
    _refuse_repeated(manifests, np.concatenate(hashes))
    return ManifestSource(manifests, columns, options.allow_outside)


def _open(table: RecordingTable, path_column: str | None) -> "_Manifest":
    with input_errors("--input", table.uri), content_errors(f"--input {table.uri}"):
        schema = table.schema()
    if not schema.names:
        raise CorpusError(f"--input {table.uri}: the manifest has no rows")
    return _Manifest(table, layout_of(f"--input {table.uri}", schema, path_column), schema)


class _Rows(NamedTuple):
    """What some rows of a table refer to."""

    names: list[str]  # paths as the table gives them
    uris: list[str]
    starts: list[float | None]
    durations: list[float | None]


@dataclass(frozen=True)
class _Manifest:
    """A table and how it is read."""

    table: RecordingTable
    layout: Layout
    schema: pa.Schema

    @property
    def kept(self) -> pa.Schema:
        return self.layout.kept(self.schema)

    def with_types(self, columns: pa.Schema) -> "_Manifest":
        """The same, its columns that are kept read as the types that they have in all tables."""
        kept = self.kept.names
        fields = [columns.field(own.name) if own.name in kept else own for own in self.schema]
        return replace(self, schema=pa.schema(fields))

    def rows(self, kept: bool) -> Iterator[tuple[_Rows, pa.Table]]:
        """What its rows refer to, page by page, with the columns that are kept, if asked for."""
        columns = [self.schema.field(name) for name in self.layout if name is not None]
        schema = pa.schema([*columns, *(self.kept if kept else [])])
        first, uri = 1, self.table.uri
        where = f"--input {uri}"
        with input_errors("--input", uri), content_errors(where):
            for table in self.table.read(schema):
                names = paths_of(table, self.layout, where, first)
                stretches = stretches_of(table, self.layout, where, first)
                yield _Rows(names, recording_uris(uri, names), *stretches), table
                first += len(table)


@dataclass(frozen=True)
class ManifestSource:
    """The recordings that manifests name, relative to their folders or absolute.

    Attributes:
        manifests: as they were opened.
        columns: those of all manifests that do not say where a recording lies.
        allow_outside: whether links may lead out of a manifest's folder.
    """

    manifests: tuple[_Manifest, ...]
    columns: pa.Schema
    allow_outside: bool = False

    def pages(self) -> Iterator[Page]:
        """The rows in their order, with the size and version of each file."""
        with NamedFiles() as files:
            for manifest in self.manifests:
                for rows, table in manifest.rows(kept=True):
                    if not self.allow_outside:
                        refuse_links_outside(manifest.table.uri, *_distinct(rows))
                    recordings = _recordings(rows, files.entries(rows.uris))
                    kept = table.select(manifest.kept.names)
                    yield Page(recordings, conform(kept, self.columns))

    def split(self, parts: int) -> "Sequence[ManifestSource]":
        """One manifest each."""
        del parts
        return [replace(self, manifests=(manifest,)) for manifest in self.manifests]

    def covers(self, recordings: Sequence[Recording]) -> np.ndarray:
        """Those in its rows, which are read once more for this."""
        return identity_hashes.is_in(
            identity_hashes.hashes([recording.identity for recording in recordings]), self._hashes
        )

    @cached_property
    def _hashes(self) -> np.ndarray:
        found: list[np.ndarray] = []
        for manifest in self.manifests:
            for rows, _ in manifest.rows(kept=False):
                found.append(identity_hashes.hashes(_identities(rows)))
        return np.sort(np.concatenate(found))


def _recordings(rows: _Rows, entries: list[Entry]) -> list[Recording]:
    names, _, starts, durations = rows
    return recordings_in(entries, names, starts, durations)


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
    """A manifest's rows in tables; its column of paths, if there is one, is text named ``path``.

    Raises:
        Exception: as `TableFile.schema` does.
    """
    table = TableFile(uri)
    schema = table.schema()
    path = next((name for name in PATH_COLUMNS if name in schema.names), None)
    for rows in table.read(schema):
        if path is None:
            yield rows
            continue
        place = schema.get_field_index(path)
        yield rows.set_column(place, "path", text_column(rows, path))


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
    except (OSError, UnicodeError, pa.ArrowException) as error:
        if not is_of_content(error):
            raise
        kind = "it is not text in UTF-8: " if isinstance(error, UnicodeError) else ""
        raise CorpusError(
            f"{where}: the manifest cannot be read ({kind}{one_line(error)})"
        ) from None


# ---- checks --------------------------------------------------------------------------------------


def _checked(manifest: _Manifest, allow_outside: bool) -> np.ndarray:
    """A hash for each recording, after a look at every row."""
    hashes: list[np.ndarray] = []
    for rows, _ in manifest.rows(kept=False):
        refuse_paths_outside(manifest.table.uri, *_distinct(rows), allow_outside)
        hashes.append(identity_hashes.hashes(_identities(rows)))
    if not hashes:
        raise CorpusError(f"--input {manifest.table.uri}: the manifest has no rows")
    return np.concatenate(hashes)


def _distinct(rows: _Rows) -> tuple[list[str], list[str]]:
    """Paths and URIs, once each: many stretches of one recording follow each other."""
    pairs = dict.fromkeys(zip(rows.names, rows.uris, strict=True))
    return [name for name, _ in pairs], [uri for _, uri in pairs]


def _identities(rows: _Rows) -> list[str]:
    return [
        uri if start is None else Recording(uri, start=start, duration=duration).identity
        for uri, start, duration in zip(rows.uris, rows.starts, rows.durations, strict=True)
    ]


def _refuse_repeated(manifests: Sequence[_Manifest], hashes: np.ndarray) -> None:
    """Eight bytes a recording; the rows are read again only where two hashes are equal."""
    hashes.sort()
    suspects = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
    if not len(suspects):
        return
    seen: dict[str, tuple[str, str]] = {}
    for manifest in manifests:
        uri = manifest.table.uri
        for rows, _ in manifest.rows(kept=False):
            identities = _identities(rows)
            for row in np.flatnonzero(np.isin(identity_hashes.hashes(identities), suspects)):
                identity = identities[row]
                name = rows.names[row] + identity.removeprefix(rows.uris[row])
                if identity in seen:
                    raise _twice(uri, name, *seen[identity])
                seen[identity] = uri, name


def _twice(uri: str, name: str, other_uri: str, other_name: str) -> CorpusError:
    names = " and ".join(dict.fromkeys([other_name, name]))
    if uri == other_uri:
        return CorpusError(f"--input {uri}: the manifest has a recording twice: {names}")
    return CorpusError(f"--input {uri}: a recording is in {other_uri}, too: {names}")
