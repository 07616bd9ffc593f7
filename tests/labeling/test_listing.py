"""The listing of a long corpus: what its tasks tell the tally, and how its blocks grow."""

from types import SimpleNamespace

import pyarrow as pa
import pytest

from ser_core.labeling import listing, resources
from ser_core.labeling.listing import ListingSettings, Tally, list_sources
from ser_core.labeling.plan import Plan
from ser_core.labeling.row_index import RowIndex
from ser_core.sources.interface import Page
from ser_core.sources.recording import Recording

NONE = pa.schema([])


class Remote:
    """An actor in this process."""

    def __init__(self, actor):
        self.actor = actor

    def __getattr__(self, name):
        return SimpleNamespace(remote=getattr(self.actor, name))


@pytest.mark.parametrize(("growing_for", "sizes"), [(None, [2] * 15), (1, [2] * 5 + [5, 5, 6, 4])])
def test_blocks_grow_with_what_is_listed(monkeypatch, growing_for, sizes):
    monkeypatch.setattr(listing.ray, "get", lambda value: value)
    monkeypatch.setattr(resources, "_BLOCKS_PER_WORKER", 4)
    monkeypatch.setattr(resources, "_MOST_GROWN", 6)
    uris = [f"/corpus/{number:02}.wav" for number in range(30)]
    pages = [Page([Recording(uri) for uri in uris[at : at + 10]]) for at in (0, 10, 20)]
    source, tally = SimpleNamespace(pages=lambda: iter(pages)), Tally()
    settings = ListingSettings([source], RowIndex(), Remote(tally), NONE, 2, growing_for)
    blocks = list(list_sources(pa.table({"number": [0]}), settings))
    assert [len(block) for block in blocks] == sizes
    assert pa.concat_tables(blocks)["uri"].to_pylist() == uris
    assert tally.numbers()[:2] == (Plan(listed=30, segments=tally.plan().segments), 1)
