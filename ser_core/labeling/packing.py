"""Tables on their way through Ray Data: each is one row of a dataset, and so a block by itself.

Ray Data merges rows into blocks of a size in bytes that holds for all stages. Recordings yet to be
listed take 200 bytes and decoded ones 200 kB, so no size suits both; a row is never cut, and with
the smallest size none is merged: what a stage yields is passed on at once.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pyarrow as pa

BYTES_PER_BLOCK = 1  # for `DataContext.target_max_block_size`
_TABLE = "table"


def packed(table: pa.Table) -> pa.Table:
    """A table as one row."""
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    content = stream.getvalue()
    offsets = pa.array([0, content.size], pa.int64()).buffers()[1]
    return pa.table({_TABLE: pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, content])})


def unpacked(rows: pa.Table) -> Iterator[pa.Table]:
    """The tables that are rows of a block, in its memory."""
    for content in views(rows[_TABLE]):
        yield pa.ipc.open_stream(content).read_all()


def views(column: pa.ChunkedArray) -> Iterator[pa.Buffer]:
    """The values of a large binary column that are not null; pyarrow's scalars are copies."""
    for chunk in column.chunks:
        _, offsets, contents = chunk.buffers()
        bounds = np.frombuffer(offsets, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
        for row in np.flatnonzero(chunk.is_valid().to_numpy(zero_copy_only=False)):
            yield contents.slice(bounds[row], bounds[row + 1] - bounds[row])


def map_packed(
    function: Callable[[pa.Table], Iterable[pa.Table]], rows: pa.Table
) -> Iterator[pa.Table]:
    """What a function makes of each table, packed again."""
    for table in unpacked(rows):
        for result in function(table):
            yield packed(result)
