"""Columns and recordings of several sources together."""

import pickle

import numpy as np
import pyarrow as pa
import pytest

from ser_core.errors import CorpusError
from ser_core.sources.combined import CombinedSource, Opened, columns_of
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

    def covers(self, recordings):
        paths = {path for table in self.tables for path in table["path"].to_pylist()}
        return np.array([recording.path in paths for recording in recordings], bool)

    def split(self, _):
        return [Listing(table, columns=self.columns) for table in self.tables]


def combined(*sources):
    opened = [Opened([f"/{number}"], source) for number, source in enumerate(sources)]
    return CombinedSource(opened, columns_of(opened))


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
    second = Listing(table(["d", "e", "a"], take=[5, 6, 7]), table(["b"], take=[9]))
    source = combined(first, second)
    found = [(row["path"], row["take"]) for row in rows(source)]
    assert found == [("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 6)]
    assert [len(page.recordings) for page in source.pages()] == [2, 2, 1]  # none is empty
    parts = [pickle.loads(pickle.dumps(part)) for part in source.split(9)]
    assert [[row["path"] for row in rows(part)] for part in parts] == [
        ["a", "b"],
        ["c", "d"],
        ["e"],
        [],
    ]
    covered = source.covers([Recording("e"), Recording("f")])
    assert covered.tolist() == [True, False]


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

        def covers(self, recordings):
            return np.zeros(len(recordings), bool)

    source = combined(Last(), Listing(table(["a"], take=[1])))
    pages = list(source.pages())
    assert [(page.unseen, page.skipped) for page in pages] == [(("/nas",), {".txt": 3}), ((), {})]
