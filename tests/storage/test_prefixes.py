"""Keys that a real server of the tests rewrites: empty names between slashes."""

from types import SimpleNamespace

from ser_core.storage import prefixes
from ser_core.storage.prefixes import divide

KEYS = ["c//1.wav", "c/a/1.wav", "c/a//2.wav", "c/d/1.wav"]


class Store:
    LISTS_FROM_A_KEY = True

    @staticmethod
    def pages(path):
        below = f"{path.partition('/')[2]}/"
        keys = sorted(key for key in KEYS if key.startswith(below))
        listing = SimpleNamespace(after="", chunks=None)

        def next_page():
            page = [key for key in keys if key > listing.after]
            listing.after = page[-1] if page else listing.after
            return [{"name": f"b/{key}"} for key in page] or None

        listing.next_page = next_page
        return listing

    @staticmethod
    def unstrip_protocol(path):
        return f"s3://{path}"


def test_an_empty_name_stays_in_the_part_above_it(monkeypatch):
    monkeypatch.setattr(prefixes, "resolve", lambda _: (Store(), "b/c"))
    parts = divide("s3://b/c", 20, hidden=True)
    assert parts == [("s3://b/c", ("a", "d")), ("s3://b/c/a", ()), ("s3://b/c/d", ())]
