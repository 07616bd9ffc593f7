"""Tables packed as rows, and the binary values of a column, in the memory where they lie."""

import pyarrow as pa

from ser_core.labeling.packing import packed, unpacked, views


def test_tables_come_out_as_they_went_in():
    tables = [pa.table({"n": [1, 2]}), pa.table({"n": pa.array([], pa.int64())})]
    rows = pa.concat_tables([packed(table) for table in tables])
    assert len(rows) == 2
    assert [table.to_pydict() for table in unpacked(rows)] == [{"n": [1, 2]}, {"n": []}]


def test_views_are_the_values_without_copies():
    chunks = [[b"dropped", b"one", None, b""], [None], [b"two"]]
    column = pa.chunked_array(chunks, pa.large_binary()).slice(1)
    values = list(views(column))
    assert [value.to_pybytes() for value in values] == [b"one", b"", b"two"]
    contents = column.chunks[0].buffers()[2]
    assert values[0].address == contents.address + len(b"dropped")


def test_an_unpacked_table_lies_in_the_memory_of_its_row():
    rows = packed(pa.table({"n": pa.array([bytes(1000)], pa.large_binary())}))
    (table,) = unpacked(rows)
    row, inner = (t.column(0).chunks[0].buffers()[2] for t in (rows, table))
    assert row.address < inner.address < row.address + row.size
