"""Parquet files with the bytes of recordings, as Hugging Face ``datasets`` writes them.

A row is a recording; its member is the number of the row. Listing reads all columns but the bytes,
decoding only the bytes. The version of a file is that of all its recordings.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from ser_core.errors import CorpusError, RecordingError, Status
from ser_core.sources.audio_table import AudioTable, audio_column
from ser_core.sources.inputs import has_extension, input_errors
from ser_core.sources.interface import InputOptions, Listing, Page
from ser_core.sources.packed_file import PackedFile, PackedSource, list_one, read_each
from ser_core.sources.recording import Recording
from ser_core.sources.tables import conform
from ser_core.storage.listing import stat_file
from ser_core.storage.reading import Stopwatch

EXTENSIONS = ("parquet",)
DESCRIPTION = "a Parquet file with recordings in a column"
_CONCURRENT_FOOTERS = 32  # requests in flight for the schemas of files


def holds_audio(schema: pa.Schema) -> bool:
    """Whether a table has a column with the bytes of recordings.

    >>> holds_audio(pa.schema({"audio": pa.struct({"bytes": pa.binary(), "path": pa.string()})}))
    True
    >>> holds_audio(pa.schema({"path": pa.string(), "photo": pa.binary()}))
    False
    """
    return audio_column(schema) is not None


def recognizes(uri: str) -> bool:
    """Whether a URI is a Parquet file that holds recordings.

    Raises:
        Exception: the storage cannot tell; of whatever type the file system raises.
    """
    if not has_extension(uri, EXTENSIONS):
        return False
    try:
        with closing(PackedFile(uri)) as file:
            AudioTable(file)
    except (RecordingError, FileNotFoundError, IsADirectoryError):
        return False
    return True


def open_source(uris: Sequence[str], _options: InputOptions) -> "ParquetSource":
    """Opens files and reads their schemas.

    Raises:
        CorpusError: none can be used; the message names the first.
        RunError: the storage cannot be reached.
    """
    with ThreadPoolExecutor(_CONCURRENT_FOOTERS) as pool:
        schemas = list(pool.map(_columns_or_error, uris))
    columns: pa.Schema | None = None
    for schema in schemas:
        if isinstance(schema, pa.Schema):
            columns = schema if columns is None else _unified(columns, schema) or columns
    if columns is None:
        raise next(error for error in schemas if isinstance(error, CorpusError))
    return ParquetSource(tuple(uris), columns)


def _columns_or_error(uri: str) -> pa.Schema | CorpusError:
    try:
        with input_errors("--input", uri), closing(PackedFile(uri)) as file:
            return AudioTable(file).columns
    except CorpusError as error:
        return error
    except RecordingError as error:
        return CorpusError(f"--input {uri}: {error}")


def _unified(columns: pa.Schema, others: pa.Schema) -> pa.Schema | None:
    """The columns of two files together; None if one has a type that fits no type of the other."""
    try:
        return pa.unify_schemas([columns, others], promote_options="permissive")
    except pa.ArrowException:
        return None


@dataclass(frozen=True)
class ParquetSource(PackedSource):
    """The recordings in Parquet files.

    Attributes:
        uris: of the files.
        columns: of all files together, less the recordings; a file may lack some.
    """

    def split(self, parts: int) -> Sequence[Listing]:
        """Some of the files each; where there are fewer, some row groups of a file."""
        groups = parts // len(self.uris)
        if groups < 2:
            return super().split(parts)
        with ThreadPoolExecutor(_CONCURRENT_FOOTERS) as pool:
            counts = pool.map(self._num_groups, self.uris)
        return [
            RowGroups(self, uri, at, at + size if at + size < count else None)
            for uri, count in zip(self.uris, counts, strict=True)
            for size in [max(1, -(-count // groups))]
            for at in range(0, max(1, count), size)
        ]

    def _pages(self, uri: str, file: PackedFile) -> Iterator[Page]:
        yield from self.list_groups(uri, 0, None, file)

    def _num_groups(self, uri: str) -> int:
        """How many row groups a file has; 0 if it cannot be used, which its only part says then."""
        try:
            with input_errors("--input", uri), closing(PackedFile(uri)) as file:
                return self._opened(file).num_groups
        except (CorpusError, RecordingError):
            return 0

    def _opened(self, file: PackedFile) -> AudioTable:
        """A file whose columns fit those of the others.

        Raises:
            RecordingError: it cannot be used.
        """
        table = AudioTable(file)
        if _unified(self.columns, table.columns) != self.columns:
            others = (field for field in table.columns if field.name in self.columns.names)
            other = next(f for f in others if not _unified(self.columns, pa.schema([f])))
            kind = self.columns.field(other.name).type
            reason = f"the column `{other.name}` is {other.type}, and {kind} in other files"
            raise RecordingError(Status.DECODE_ERROR, reason)
        return table

    def list_groups(
        self, uri: str, start: int, end: int | None, file: PackedFile
    ) -> Iterator[Page]:
        """Lists row groups of a file, from ``start`` to before ``end`` or to the last one.

        Raises:
            RecordingError: it cannot be used.
        """
        table, version = self._opened(file), stat_file(uri).version
        groups = range(table.num_groups)[start:end]  # fewer in a file that was replaced
        for first, names, columns in table.rows(groups):
            recordings = [
                Recording(uri, table.mean_bytes, version, f"{row}", name)
                for row, name in enumerate(names, first)
            ]
            yield Page(recordings, conform(columns, self.columns))


@dataclass(frozen=True)
class RowGroups:
    """Some row groups of a file.

    Attributes:
        source: of the file.
        uri: of the file.
        start: the first of them.
        end: the first behind them; None if these are the last.
    """

    source: ParquetSource
    uri: str
    start: int
    end: int | None

    @property
    def columns(self) -> pa.Schema:
        """Those of all files."""
        return self.source.columns

    def pages(self) -> Iterator[Page]:
        """As those of the file."""
        return list_one(self.uri, partial(self.source.list_groups, self.uri, self.start, self.end))


def read_members(
    uri: str, recordings: Sequence[Recording], stopwatch: Stopwatch
) -> Iterator[bytes | RecordingError]:
    """Reads recordings of one file in one pass; see `PackedForm.read_members`."""
    yield from read_each(uri, recordings, stopwatch, _contents)


def _contents(
    file: PackedFile, recordings: Sequence[Recording]
) -> Iterator[bytes | RecordingError]:
    rows = [int(recording.member or 0) for recording in recordings]
    for recording, content in zip(recordings, AudioTable(file).contents(rows), strict=True):
        if content is not None:
            yield content
        elif recording.name:
            reason = "the file has only a path in place of its bytes, which is not followed"
            yield RecordingError(Status.DECODE_ERROR, reason)
        else:
            yield RecordingError(Status.EMPTY, "the row has no recording")
