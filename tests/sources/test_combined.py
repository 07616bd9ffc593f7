"""Columns and recordings of several sources together."""

import tracemalloc

import pyarrow as pa
import pytest

from ser_core.errors import CorpusError
from ser_core.sources.combined import CombinedSource, Opened, _Listed, columns_of
from ser_core.sources.interface import Page
from ser_core.sources.recording import Recording


class Listing:
    """A source that lists these tables; a row's recording is its column `path`."""

    def __init__(self, *tables, columns=None):
        self.tables = tables
        self.columns = columns or tables[0].drop_columns("path").schema

    def pages(self):
        for table in self.tables:
            recordings = [Recording(path) for path in table["path"].to_pylist()]
            kept = table.drop_columns("path")
            yield Page(recordings, kept if self.columns.names else None)


def combined(*sources, may_repeat=True):
    opened = [Opened([f"/{number}"], source) for number, source in enumerate(sources)]
    return CombinedSource(opened, columns_of(opened), may_repeat)


def rows(source):
    """All rows of a source, with what they were listed as."""
    for page in source.pages():
        assert len(page.columns) == len(page.recordings)
        assert page.columns.schema == source.columns
        for recording, row in zip(page.recordings, page.columns.to_pylist(), strict=True):
            yield {"path": recording.path, **row}


def table(path, **columns):
    return pa.table({"path": path, **columns})


def test_a_row_has_nulls_where_its_input_lacks_a_column():
    first = Listing(table(["a", "b"], take=[1, 2], note=pa.nulls(2)))
    second = Listing(table(["c"]))
    third = Listing(table(["d"], note=["x"], speaker=["y"]))
    source = combined(first, second, third)
    types = {"take": pa.int64(), "note": pa.string(), "speaker": pa.string()}
    assert source.columns == pa.schema(types.items())
    none = {"take": None, "note": None, "speaker": None}
    assert list(rows(source)) == [
        {**none, "path": "a", "take": 1},
        {**none, "path": "b", "take": 2},
        {**none, "path": "c"},
        {**none, "path": "d", "note": "x", "speaker": "y"},
    ]


def test_a_recording_is_listed_once_with_the_columns_of_its_first_input():
    first = Listing(table(["a", "b"], take=[1, 2]), table(["c", "d"], take=[3, 4]))
    second = Listing(table(["d", "e", "a", "e"], take=[5, 6, 7, 8]), table(["e", "b"], take=[9, 9]))
    found = [(row["path"], row["take"]) for row in rows(combined(first, second))]
    assert found == [("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 6)]
    pages = list(combined(first, second).pages())
    assert [len(page.recordings) for page in pages] == [2, 2, 1]  # an empty page is left out
    assert len(list(combined(first, second, may_repeat=False).pages())) == 4


def test_a_column_of_two_types_is_refused_with_both_inputs():
    message = "^--input /1: the column `take` is string, and int64 in /0; "
    with pytest.raises(CorpusError, match=message):
        combined(Listing(table(["a"], take=[1])), Listing(table(["b"], take=["1"])))


def test_what_an_input_could_not_see_and_passed_over_is_kept():
    class Last:
        columns = pa.schema([])

        def pages(self):
            yield Page([], unseen=("/nas",), skipped={".txt": 3})
            yield Page([])

    source = combined(Last(), Listing(table(["a"], take=[1])))
    pages = list(source.pages())
    assert [(page.unseen, page.skipped) for page in pages] == [(("/nas",), {".txt": 3}), ((), {})]


def test_few_arrays_of_hashes_are_searched():
    listed = _Listed()
    for page in range(1000):
        assert listed.add([Recording(f"/{page}/{number}.wav") for number in range(10)]).all()
    assert len(listed._sorted) <= 10


def test_hashes_take_eight_bytes_a_recording():
    class Many:
        columns = pa.schema([])

        def pages(self):
            for start in [*range(0, 200_000, 2000), 0]:
                yield Page(
                    [Recording(f"/data/{number}.wav") for number in range(start, start + 2000)]
                )

    source = combined(Many(), Many())
    tracemalloc.start()
    assert sum(len(page.recordings) for page in source.pages()) == 200_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6e6  # bytes: 1.6 MB of hashes, twice while they are merged, and a page
