"""The plan is the listing without what is done; its blocks cover the plan exactly."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_core.labeling.plan import Plan, beginning, cut_into_blocks, plan_page
from ser_core.labeling.row_index import RowIndex
from ser_core.schema import REFERENCE, SIZE, plan_schema
from ser_core.sources.identity_hashes import hashes
from ser_core.sources.interface import Page
from ser_core.sources.recording import Recording

MIB = 1 << 20
NONE = pa.schema([])
SCHEMA = plan_schema(NONE)


def index(*recordings, file_ids=None, final=True):
    """An index in which these recordings are done."""
    file_ids = file_ids or [recording.file_id for recording in recordings]
    known = np.full(len(recordings), True)
    identities = hashes([recording.identity for recording in recordings])
    return RowIndex.from_rows(identities, hashes(file_ids), known, known & final)


# ---- the plan ------------------------------------------------------------------------------------


def test_recordings_that_are_done_are_not_planned():
    recordings = [Recording(f"/c/{n}.wav", n, "v") for n in range(6)]
    done = index(*(recordings[n] for n in (0, 4, 2)))
    plan = Plan()
    for page in (Page(recordings[:4]), Page(recordings[4:])):
        found, table = plan_page(page, NONE, done)
        plan.add(found)
        uris = [f"/c/{n}.wav" for n in ((1, 3) if len(page.recordings) == 4 else (5,))]
        assert table["uri"].to_pylist() == uris
        assert list(table["_index"].to_numpy().view(np.uint64)) == list(hashes(uris))
    assert (plan.listed, plan.done, plan.to_do, plan.again) == (6, 3, 3, 0)
    (first, second) = plan.identity_hashes
    assert list(first) == list(hashes([f"/c/{n}.wav" for n in range(4)]))
    assert list(second) == list(hashes(["/c/4.wav", "/c/5.wav"]))
    assert [len(each) for each in plan.to_do_hashes] == [2, 1]


@pytest.mark.parametrize("final", [True, False])
def test_changed_recordings_are_planned_again_and_keep_final_rows(final):
    before, now = Recording("/c/1.wav", 1, "v"), Recording("/c/1.wav", 2, "w")
    new = Recording("/c/2.wav", 1, "v")
    plan, table = plan_page(Page([now, new]), NONE, index(before, final=final))
    assert (plan.to_do, plan.again) == (2, 1)
    assert table["_has_final"].to_pylist() == [final, False]


def test_manifest_columns_stay_with_their_recordings():
    recordings = [Recording(f"/c/{n}.wav", 1, "v", name=f"{n}.wav") for n in range(4)]
    columns = pa.table({"speaker": ["a", "b", "c", "d"]})
    _, table = plan_page(Page(recordings, columns), columns.schema, index(recordings[1]))
    assert table["path"].to_pylist() == ["0.wav", "2.wav", "3.wav"]
    assert table["speaker"].to_pylist() == ["a", "c", "d"]


def test_recordings_labelled_by_release_0_1_are_done_and_reported():
    unchanged = Recording("/c/1.wav", 1, "v", name="1.wav")
    changed = Recording("/c/2.wav", 1, "v2", name="2.wav")
    before = Recording("/c/2.wav", 1, "v1", name="2.wav")
    bad = Recording("/c/3.wav", 1, "v", name="3.wav")
    file_ids = [r.file_id_of_0_1 for r in (unchanged, before, bad)]
    by_path = [Recording(r.path) for r in (unchanged, before)]  # one was known by its URI
    done = index(*by_path, bad, file_ids=file_ids)
    plan, table = plan_page(Page([unchanged, changed, bad]), NONE, done)
    assert plan.done == 2
    assert table["uri"].to_pylist() == ["/c/2.wav"]
    (known,) = plan.known_to_0_1
    assert known.to_pylist() == [
        {"file_id_of_0_1": r.file_id_of_0_1, "uri": r.uri, "file_id": r.file_id}
        for r in (unchanged, bad)
    ]


@pytest.mark.parametrize(("limit", "listed", "to_do"), [(0, 1, 0), (1, 2, 1), (2, 5, 2), (3, 6, 3)])
def test_a_limit_cuts_a_page_behind_what_is_to_be_labelled(limit, listed, to_do):
    recordings = [Recording(f"/c/{n}.wav", 1, "v") for n in range(6)]
    done = index(*(recordings[n] for n in (0, 3, 4)))
    columns = pa.table({"n": range(6)})
    page = beginning(Page(recordings, columns), done, limit)
    plan, _ = plan_page(page, columns.schema, done)
    if limit == 1:
        listed = 2
    assert (plan.listed, plan.to_do, len(page.columns)) == (listed, to_do, listed)


def test_a_recording_is_done_if_all_of_its_rows_are():
    one, other = Recording("/1"), Recording("/2")
    identity = hashes([r.identity for r in (one, other, one)])
    file_id = hashes([r.file_id for r in (one, other, one)])
    known = RowIndex.from_rows(identity, file_id, np.array([True, True, False]), np.ones(3, bool))
    assert known.done([one, other])[0].tolist() == [False, True]
    assert len(known.identity_hash) == 2


# ---- blocks --------------------------------------------------------------------------------------


def plan_of(sizes):
    columns = {
        "_index": range(len(sizes)),
        "_has_final": [False] * len(sizes),
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
    blocks = [block for table in tables for block in cut_into_blocks(table, rows, whole)]
    assert joined(blocks).equals(joined(tables))
    assert all(0 < len(block) <= rows for block in blocks)


@settings(deadline=None, derandomize=True)
@given(sizes=SIZES)
def test_blocks_of_whole_recordings_have_limited_bytes(sizes):
    for block in cut_into_blocks(plan_of(sizes), 1000, whole=True):
        known = [4 * MIB if size is None else size for size in block[SIZE.name].to_pylist()]
        assert sum(known[1:]) <= 16 * MIB


@pytest.mark.parametrize(("whole", "blocks"), [(False, 4), (True, 10)])
def test_small_files_share_blocks_and_large_ones_are_alone(whole, blocks):
    short, hours = [10_000] * 1000, [100 * MIB] * 6
    assert len(cut_into_blocks(plan_of(short + hours), 256, whole)) == blocks


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
    blocks = cut_into_blocks(pa.concat_tables([single, table, single]), 64, whole)
    assert max(map(len, blocks)) == (300 if together and whole else 305 if together else 64)
    anywhere = cut_into_blocks(table, 1, whole, anywhere=True)
    assert [len(block) for block in anywhere] == [1] * 300
