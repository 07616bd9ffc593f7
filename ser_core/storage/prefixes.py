"""A prefix of an object store → parts of it that can be listed side by side."""

from collections import deque
from typing import Any

from ser_core.storage.filesystem import is_local, resolve, retry_transient
from ser_core.storage.listing import LAST_CHARACTER, Part, has_pages, is_hidden

_MAX_FILES = 1000  # directly in a prefix, above which it is not divided: they may be millions


def divide(prefix: str, parts: int, hidden: bool) -> list[Part]:
    """Parts of a prefix: sub-prefixes at any depth, and what is left of those above them.

    It asks for one page for each sub-prefix: a page that begins behind one shows the next one. A
    sub-prefix that it does not see, in whatever order a store lists, stays in the part above it.

    Args:
        prefix: absolute URI.
        parts: about how many there may be.
        hidden: whether to list sub-prefixes whose names begin with ``.`` or ``_``.

    Raises:
        Exception: what the store raises, of whatever type.
    """
    if is_local(prefix):
        return [Part(prefix)]
    fs, root = resolve(prefix)
    if not has_pages(fs) or not fs.LISTS_FROM_A_KEY:
        return [Part(prefix)]
    found, waiting = list[Part](), deque([root.rstrip("/")])
    while waiting:
        path = waiting.popleft()
        below = _names_below(fs, path, parts - len(found) - len(waiting) - 1)
        found.append(Part(fs.unstrip_protocol(path), tuple(below)))
        waiting += [f"{path}/{name}" for name in below if hidden or not is_hidden(name)]
    return found


def _names_below(fs: Any, root: str, most: int) -> list[str]:
    """The first so many sub-prefixes of a path; none if it is mostly of files."""
    listing, found, files = fs.pages(root), list[str](), 0
    while len(found) < most and files <= _MAX_FILES:
        page = retry_transient(listing.next_page)()
        if page is None:
            return found
        for info in page:
            name, slash, _ = info["name"].removeprefix(f"{root}/").partition("/")
            files += not slash
            if slash and name and name not in found:  # a key may have two slashes in a row
                found.append(name)
        if found:
            key = f"{root}/{found[-1]}".partition("/")[2]
            if listing.after.startswith(f"{key}/"):
                listing.after, listing.chunks = f"{key}/{LAST_CHARACTER}", None
    return found[: max(0, most)] if files <= _MAX_FILES else []
