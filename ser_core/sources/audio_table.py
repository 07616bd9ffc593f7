"""A Parquet file with a column of recordings: its rows, without their bytes or only these."""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import types

from ser_core.errors import RecordingError, Status, one_line
from ser_core.sources.column_names import own_name
from ser_core.sources.interface import PAGE_ROWS
from ser_core.sources.packed_file import PackedFile, no_longer_there

_NAMES = frozenset({"audio", "bytes", "wav", "flac", "mp3", "ogg", "opus", "m4a"})
_BATCH_BYTES = 4 << 20  # of recordings at a time, if all are of the same size
# Of a column, which would otherwise be read whole. A page of it is, whatever its size.
_BUFFER_BYTES = 1 << 20


class AudioTable:
    """A Parquet file with recordings.

    Attributes:
        columns: all others, as the output names them; without those that hold bytes.
        num_groups: of rows.
        mean_bytes: of a row, uncompressed; the file does not tell those of each.
    """

    def __init__(self, file: PackedFile) -> None:
        """Reads the footer.

        Raises:
            RecordingError: it is no Parquet file, or has no column of recordings.
            Exception: what the storage raises, of whatever type.
        """
        self._file = file
        try:
            self._parquet = pq.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False)
            schema = self._parquet.schema_arrow
            # Of the columns' metadata, a damaged one would abort the process.
            self.num_groups: int = self._parquet.num_row_groups
            groups = [self._parquet.metadata.row_group(n) for n in range(self.num_groups)]
            sizes = [(group.num_rows, group.total_byte_size) for group in groups]
        except Exception as error:
            raise self._damage("the file is no Parquet file", error) from None
        audio = audio_column(schema)
        if audio is None or len(set(schema.names)) < len(schema.names):
            what = "no column of recordings" if audio is None else "a column twice"
            raise RecordingError(Status.DECODE_ERROR, f"the file has {what}")
        self._audio = audio
        self._is_struct = types.is_struct(schema.field(audio).type)
        self._own = [f for f in schema if f.name != audio and not _holds_bytes(f.type)]
        self.columns = pa.schema([(own_name(f.name, "parquet"), f.type) for f in self._own])
        self._starts = [0, *accumulate(max(0, rows) for rows, _ in sizes)]
        total = sum(max(0, size) for _, size in sizes)
        self.mean_bytes = total // max(1, self._starts[-1])

    def rows(self, groups: range) -> Iterator[tuple[int, list[str | None], pa.Table]]:
        """Rows of some groups, page by page.

        Args:
            groups: by their numbers.

        Yields:
            The number of the first row, the paths in the column of recordings, and the other
            columns.

        Raises:
            RecordingError: the file is damaged.
            Exception: what the storage raises, of whatever type.
        """
        wanted = [field.name for field in self._own]
        wanted += [self._leaf("path")] if self._is_struct else []
        row = self._starts[min(groups.start, self.num_groups)]
        try:
            for batch in self._parquet.iter_batches(
                PAGE_ROWS, row_groups=list(groups), columns=wanted, use_threads=False
            ):
                yield row, self._names(batch), self._renamed(batch)
                row += batch.num_rows
        except Exception as error:
            raise self._damage(f"the file is damaged behind row {row:,}", error) from None

    def _names(self, batch: pa.RecordBatch) -> list[str | None]:
        if not self._is_struct:
            return [None] * batch.num_rows
        paths = pc.struct_field(batch[self._audio], "path").cast(pa.string())
        return [path or None for path in paths.to_pylist()]

    def _renamed(self, batch: pa.RecordBatch) -> pa.Table:
        columns = [batch[field.name] for field in self._own]
        return pa.Table.from_arrays(columns, schema=self.columns)

    def contents(self, rows: Sequence[int]) -> Iterator[bytes | RecordingError | None]:
        """The bytes of rows in ascending order; a damaged row costs those behind it in its group.

        Yields:
            Bytes, None where there are none, or why they cannot be read.

        Raises:
            Exception: what the storage raises, of whatever type.
        """
        for group, some in groupby(rows, lambda row: bisect_right(self._starts, row) - 1):
            waiting = deque(some)
            if not 0 <= group < self.num_groups:
                yield from [no_longer_there()] * len(waiting)
                continue
            error: RecordingError | None = None
            # A batch that fails is read again row by row, up to the one that is damaged.
            for batch_rows in (max(1, _BATCH_BYTES // max(1, self.mean_bytes)), 1):
                if not waiting:
                    break
                try:
                    yield from self._group_contents(group, waiting, batch_rows)
                except Exception as raised:
                    error = self._damage("the row group is damaged", raised)
            yield from [error] * len(waiting)

    def _group_contents(
        self, group: int, waiting: deque[int], batch_rows: int
    ) -> Iterator[bytes | None]:
        """Takes rows from those that wait as it yields their bytes."""
        row = self._starts[group]
        batches = self._parquet.iter_batches(
            batch_rows, row_groups=[group], columns=[self._leaf("bytes")], use_threads=False
        )
        while waiting:
            batch = next(batches)
            column = batch[self._audio]
            content = pc.struct_field(column, "bytes") if self._is_struct else column
            while waiting and waiting[0] < row + batch.num_rows:
                yield content[waiting[0] - row].as_py()
                waiting.popleft()
            row += batch.num_rows

    def _leaf(self, name: str) -> str:
        return f"{self._audio}.{name}" if self._is_struct else self._audio

    def _damage(self, what: str, error: Exception) -> RecordingError:
        """What is wrong with the file, if that is why the parser failed, with whatever exception.

        Raises:
            Exception: the storage failed.
        """
        if self._file.failure:
            raise self._file.failure
        return RecordingError(Status.DECODE_ERROR, f"{what} ({one_line(error)})")


def audio_column(schema: pa.Schema) -> str | None:
    """The column with the bytes of recordings, if there is one and only one."""
    structs = [field.name for field in schema if _is_audio_struct(field.type)]
    named = [f.name for f in schema if _is_binary(f.type) and f.name.lower() in _NAMES]
    if "audio" in (*structs, *named):  # beside pictures, which are stored alike
        return "audio"
    candidates = structs or named
    return candidates[0] if len(candidates) == 1 else None


def _is_audio_struct(kind: pa.DataType) -> bool:
    """Whether it is ``struct<bytes: binary, path: string>``."""
    fields = {field.name: field.type for field in kind} if types.is_struct(kind) else {}
    return fields.keys() == {"bytes", "path"} and _is_binary(fields["bytes"])


def _is_binary(kind: pa.DataType) -> bool:
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _holds_bytes(kind: pa.DataType) -> bool:
    """Whether values may be pictures or other recordings, which no table of labels should hold."""
    if types.is_struct(kind):
        return any(_holds_bytes(field.type) for field in kind)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _holds_bytes(kind.value_type)
    if types.is_map(kind):
        return _holds_bytes(kind.item_type)
    return _is_binary(kind)
