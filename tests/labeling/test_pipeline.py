"""How a plan is cut into blocks; what becomes of them is tested in integration/test_label.py."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ser_core.labeling.pipeline import cut
from ser_core.schema import SIZE, plan_schema

MIB = 1 << 20
SCHEMA = plan_schema(pa.schema([]))


def plan(sizes):
    columns = {
        "_index": range(len(sizes)),
        "path": [f"{index}.wav" for index in range(len(sizes))],
        "file_id": ["0" * 32] * len(sizes),
        SIZE.name: sizes,
    }
    return pa.table(columns, schema=SCHEMA)


def together(tables):
    return pa.concat_tables([SCHEMA.empty_table(), *tables])


SIZES = st.lists(st.none() | st.integers(0, 40 * MIB), max_size=60)


@given(tables=st.lists(SIZES, max_size=3), rows=st.integers(1, 9), whole=st.booleans())
def test_blocks_are_the_plan_in_few_rows(tables, rows, whole):
    tables = [plan(sizes) for sizes in tables]
    blocks = cut(tables, rows, whole)
    assert together(blocks).equals(together(tables))
    assert all(0 < len(block) <= rows for block in blocks)


@given(sizes=SIZES)
def test_whole_recordings_are_few_bytes_beside_the_first(sizes):
    for block in cut([plan(sizes)], 1000, whole=True):
        known = [4 * MIB if size is None else size for size in block[SIZE.name].to_pylist()]
        assert sum(known[1:]) <= 16 * MIB


@pytest.mark.parametrize(("whole", "blocks"), [(False, 4), (True, 10)])
def test_small_files_fill_their_blocks_and_large_ones_stand_alone(whole, blocks):
    short, hours = [10_000] * 1000, [100 * MIB] * 6
    assert len(cut([plan(short + hours)], 256, whole)) == blocks
