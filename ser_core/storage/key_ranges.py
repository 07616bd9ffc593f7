"""A prefix of an object store → ranges of its keys that can be listed side by side."""

from collections import deque
from itertools import pairwise
from typing import Any

from ser_core.storage.filesystem import is_local, resolve, retry_transient
from ser_core.storage.listing import KeyRange, has_pages

_LAST = "\U0010ffff"  # sorts behind whatever a key has at its place
_MAX_FILES = 1000  # directly in a prefix, above which it is not divided: they may be millions


def key_ranges(prefix: str, parts: int) -> list[KeyRange | None]:
    """Ranges of keys that together are all below a prefix; each holds one or more sub-prefixes.

    It looks at one page for each sub-prefix: a page that begins behind one shows the next one.

    Args:
        prefix: absolute URI.
        parts: about how many ranges there may be.

    Returns:
        One range of None, which is all, where names cannot be listed from a key on.

    Raises:
        Exception: what the store raises, of whatever type.
    """
    if is_local(prefix):
        return [None]
    fs, root = resolve(prefix)
    if not has_pages(fs) or not fs.LISTS_FROM_A_KEY:
        return [None]
    ends: set[str] = set()
    waiting = deque([root.rstrip("/")])
    while waiting and len(ends) < parts:
        below = _sub_prefixes(fs, waiting.popleft(), parts - len(ends))
        waiting += below
        ends |= {path.partition("/")[2] + f"/{_LAST}" for path in below}
    keys = sorted(ends)[:-1]  # what comes behind the last one is its own range
    return [KeyRange(*pair) for pair in pairwise(["", *keys, ""])]


def _sub_prefixes(fs: Any, root: str, most: int) -> list[str]:
    """The first so many prefixes below a path, one level down; none if it is mostly of files."""
    listing, found, files = fs.pages(root), list[str](), 0
    while len(found) < most and files <= _MAX_FILES:
        page = retry_transient(listing.next_page)()
        if page is None:
            return found
        for info in page:
            if found and info["name"].startswith(f"{found[-1]}/"):
                continue
            name, slash, _ = info["name"].removeprefix(f"{root}/").partition("/")
            files += not slash
            found += [f"{root}/{name}"] if slash else []
        if found and listing.after.startswith(f"{found[-1].partition('/')[2]}/"):
            listing = fs.pages(root, f"{found[-1].partition('/')[2]}/{_LAST}")
    return found if files <= _MAX_FILES else []
