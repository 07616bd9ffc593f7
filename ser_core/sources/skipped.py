"""Files passed over because of their names, counted by extension."""

from collections import Counter
from collections.abc import Mapping

_MAX_EXTENSIONS = 20  # names like `call.0001` have one each
_COMPRESSED = frozenset({"bz2", "gz", "xz", "zst"})
NO_EXTENSION, OTHERS = "without an extension", "others"


def extension_of(path: str) -> str:
    """The extension of a name in lower case, with its dot; two where the file is compressed.

    >>> extension_of("/a.b/X.TXT"), extension_of("shard.tar.gz"), extension_of("/a.b/README")
    ('.txt', '.tar.gz', '')
    """
    stem, dot, last = path.rpartition("/")[2].lower().rpartition(".")
    if not dot:
        return ""
    inner = extension_of(stem) if last in _COMPRESSED else ""
    return f"{inner}.{last}"


class SkippedNames:
    """Counts names by extension; it keeps few of them.

    Attributes:
        counts: how many, by extension.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def add(self, path: str) -> None:
        """Counts a name."""
        extension = extension_of(path) or NO_EXTENSION
        known = extension in self.counts or len(self.counts) < _MAX_EXTENSIONS
        self.counts[extension if known else OTHERS] += 1


def describe(skipped: Mapping[str, int], most: int = 3) -> str:
    """The most frequent extensions in a few words.

    >>> describe({".txt": 1200, ".json": 3, OTHERS: 2, ".tar": 1, ".md": 1})
    '1,200 .txt, 3 .json, 1 .tar, 3 others'
    """
    counts = Counter(skipped)
    others = counts.pop(OTHERS, 0)
    frequent = counts.most_common(most)
    others += sum(counts.values()) - sum(count for _, count in frequent)
    words = [f"{count:,} {extension}" for extension, count in frequent]
    return ", ".join([*words, f"{others:,} {OTHERS}"] if others else words)
