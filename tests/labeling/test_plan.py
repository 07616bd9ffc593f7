"""The plan is the listing without what is done; its blocks cover the plan exactly."""

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_core.labeling.file_ids import FileIds
from ser_core.labeling.plan import cut_into_blocks, make_plan
from ser_core.schema import REFERENCE, SIZE, plan_schema
from ser_core.sources.identity_hashes import hashes
from ser_core.sources.interface import Page
from ser_core.sources.recording import Recording

MIB = 1 << 20
NONE = pa.schema([])
SCHEMA = plan_schema(NONE)


def ids(*file_ids):
    return FileIds([pa.chunked_array([pa.array(file_ids, pa.string())])])


def planned(plan):
    return pa.concat_tables([table.drop_columns(SIZE.name) for table in plan.tables]).to_pandas()


# ---- the plan ------------------------------------------------------------------------------------


def test_recordings_that_are_done_are_not_planned():
    recordings = [Recording(f"/c/{n}.wav", n, "v") for n in range(6)]
    pages = [Page(recordings[:4]), Page(recordings[4:])]
    plan = make_plan(pages, NONE, ids(*(recordings[n].file_id for n in (0, 4, 2))))
    assert (plan.listed, plan.done, plan.to_do) == (6, 3, 3)
    table = planned(plan)
    assert list(table["uri"]) == ["/c/1.wav", "/c/3.wav", "/c/5.wav"]
    assert list(table["_index"]) == [0, 1, 2]
    (first, second) = plan.identity_hashes
    assert list(first) == list(hashes([f"/c/{n}.wav" for n in range(4)]))
    assert list(second) == list(hashes(["/c/4.wav", "/c/5.wav"]))


def test_manifest_columns_stay_with_their_recordings():
    recordings = [Recording(f"/c/{n}.wav", 1, "v", name=f"{n}.wav") for n in range(4)]
    columns = pa.table({"speaker": ["a", "b", "c", "d"]})
    plan = make_plan([Page(recordings, columns)], columns.schema, ids(recordings[1].file_id))
    table = planned(plan)
    assert list(zip(table["path"], table["speaker"], strict=True)) == [
        ("0.wav", "a"),
        ("2.wav", "c"),
        ("3.wav", "d"),
    ]


def test_recordings_labelled_by_release_0_1_are_done_and_reported():
    unchanged = Recording("/c/1.wav", 1, "v", name="1.wav")
    changed = Recording("/c/2.wav", 1, "v2", name="2.wav")
    before = Recording("/c/2.wav", 1, "v1", name="2.wav")
    bad = Recording("/c/3.wav", 1, "v", name="3.wav")
    done = ids(*(r.file_id_of_0_1 for r in (unchanged, before, bad)))
    plan = make_plan([Page([unchanged, changed, bad])], NONE, done)
    assert plan.done == 2
    assert list(planned(plan)["uri"]) == ["/c/2.wav"]
    (known,) = plan.known_to_0_1
    assert known.to_pylist() == [
        {"file_id_of_0_1": r.file_id_of_0_1, "uri": r.uri, "file_id": r.file_id}
        for r in (unchanged, bad)
    ]


def test_left_out_recordings_are_those_not_seen():
    recordings = [Recording(f"/c/{n}.wav", 1, "v") for n in range(5)]
    plan = make_plan([Page(recordings[:3]), Page(recordings[3:])], NONE, ids())
    seen = pd.Series([True, False, True, True, False]).to_numpy()
    left = pa.concat_tables(plan.left_out(seen))
    assert left["uri"].to_pylist() == ["/c/1.wav", "/c/4.wav"]


# ---- blocks --------------------------------------------------------------------------------------


def plan_of(sizes):
    columns = {
        "_index": range(len(sizes)),
        "path": [None] * len(sizes),
        "uri": [f"/{index}.wav" for index in range(len(sizes))],
        "file_id": ["0" * 32] * len(sizes),
        **{field.name: [None] * len(sizes) for field in REFERENCE},
        SIZE.name: sizes,
    }
    return pa.table(columns, schema=SCHEMA)


def joined(tables):
    return pa.concat_tables([SCHEMA.empty_table(), *tables])


SIZES = st.lists(st.none() | st.integers(0, 40 * MIB), max_size=60)


@settings(deadline=None, derandomize=True)
@given(tables=st.lists(SIZES, max_size=3), rows=st.integers(1, 9), whole=st.booleans())
def test_blocks_cover_the_plan_and_have_limited_rows(tables, rows, whole):
    tables = [plan_of(sizes) for sizes in tables]
    blocks = cut_into_blocks(tables, rows, whole)
    assert joined(blocks).equals(joined(tables))
    assert all(0 < len(block) <= rows for block in blocks)


@settings(deadline=None, derandomize=True)
@given(sizes=SIZES)
def test_blocks_of_whole_recordings_have_limited_bytes(sizes):
    for block in cut_into_blocks([plan_of(sizes)], 1000, whole=True):
        known = [4 * MIB if size is None else size for size in block[SIZE.name].to_pylist()]
        assert sum(known[1:]) <= 16 * MIB


@pytest.mark.parametrize(("whole", "blocks"), [(False, 4), (True, 10)])
def test_small_files_share_blocks_and_large_ones_are_alone(whole, blocks):
    short, hours = [10_000] * 1000, [100 * MIB] * 6
    assert len(cut_into_blocks([plan_of(short + hours)], 256, whole)) == blocks


def in_one_file(table, **columns):
    """A plan whose recordings lie in one file."""
    columns = {"uri": ["/x.tar"] * len(table), **columns}
    for name, values in columns.items():
        index = table.schema.get_field_index(name)
        table = table.set_column(
            index, SCHEMA.field(name), pa.array(values, SCHEMA.field(name).type)
        )
    return table


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(
    ("columns", "together"),
    [
        ({"_start": range(300)}, True),  # stretches
        ({"_member": list(map(str, range(300)))}, True),  # of a compressed shard
        ({"_member": list(map(str, range(300))), "_offset": range(300)}, False),
    ],
)
def test_what_is_read_in_one_pass_is_one_block(columns, together, whole):
    table = in_one_file(plan_of([20 * MIB if together else 1000] * 300), **columns)
    single = plan_of([1000] * 5)
    blocks = cut_into_blocks([pa.concat_tables([single, table, single])], 64, whole)
    assert max(map(len, blocks)) == (300 if together and whole else 305 if together else 64)
    anywhere = cut_into_blocks([table], 1, whole, anywhere=True)
    assert [len(block) for block in anywhere] == [1] * 300
