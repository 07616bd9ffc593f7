"""Patterns of names, as in ``calls/**/*.flac`` and ``{000..999}.tar``; it lists nothing."""

import functools
import itertools
import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from fsspec.utils import glob_translate

from ser_core.errors import UsageError
from ser_core.storage.filesystem import is_local, local_path, resolve
from ser_core.storage.listing import is_hidden

_GLOB = re.compile(r"[*?[]")
_GLOB_OF_URL = re.compile(r"[*[]")  # a question mark begins a query there
_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)(?:\.\.(\d+))?|([^{}]*,[^{}]*))\}")


class Glob(NamedTuple):
    """A pattern of files.

    Attributes:
        root: the folder below which it can match, absolute.
        names: the pattern of paths below that folder.
    """

    root: str
    names: str

    @property
    def names_hidden(self) -> bool:
        """Whether it spells out names that begin with ``.`` or ``_``; otherwise it matches none."""
        return any(map(is_hidden, self.names.split("/")))

    @property
    def any_name(self) -> bool:
        """Whether it says nothing of the files' names, as ``calls/**`` does."""
        return not self.names.rpartition("/")[2].strip("*?")

    def compiled(self, flag: str) -> re.Pattern[str]:
        """What matches the paths that ``list_files`` returns for the root.

        Raises:
            UsageError: it is no valid pattern.
        """
        root = self.root
        if not is_local(root):
            fs, path = resolve(root)
            root = fs.unstrip_protocol(path)
        roots = "|".join(sorted({re.escape(folder.rstrip("/")) for folder in (root, self.root)}))
        where = f"{flag} {self.root.rstrip('/')}/{self.names}"
        return re.compile(f"(?:{roots})/+{_translated(self.names, where)}")


def parse_glob(uri: str) -> Glob | None:
    """The pattern in an absolute URI, or None if it has none.

    What exists on a local disk under a name with ``[`` is meant literally.

    >>> parse_glob("s3://bucket/2026-11-*/**/*.flac")
    Glob(root='s3://bucket', names='2026-11-*/**/*.flac')
    >>> parse_glob("https://host/calls?day=1")
    """
    magic = _GLOB_OF_URL if uri.startswith(("http://", "https://")) else _GLOB
    if not magic.search(uri):
        return None
    parts = uri.split("/")
    literal = _existing(parts) if is_local(uri) else 3  # protocol, nothing, bucket or server
    for index in range(literal, len(parts)):
        if magic.search(parts[index]):
            return Glob("/".join(parts[:index]) or "/", "/".join(parts[index:]))
    return None


def _existing(parts: list[str]) -> int:
    """How many of the leading parts of a local path exist."""
    paths = itertools.accumulate(parts, lambda folder, name: f"{folder}/{name}")
    exist = (os.path.lexists(local_path(path or "/")) for path in paths)
    return sum(itertools.takewhile(bool, exist))


def expand_braces(text: str) -> Iterator[str]:
    """Every text that a text with ranges and alternatives in braces stands for, as in a shell.

    >>> list(expand_braces("{08..10}.tar")), list(expand_braces("{a,b}/{x}"))
    (['08.tar', '09.tar', '10.tar'], ['a/{x}', 'b/{x}'])
    """
    braces = _BRACES.search(text)
    if not braces:
        yield text
        return
    for choice in _choices(braces):
        yield from expand_braces(f"{text[: braces.start()]}{choice}{text[braces.end() :]}")


def _choices(braces: re.Match[str]) -> Iterator[str]:
    first, last, step, alternatives = braces.groups()
    if alternatives is not None:
        yield from alternatives.split(",")
        return
    padded = any(len(number) > 1 and number.startswith("0") for number in (first, last))
    width = max(len(first), len(last)) if padded else 0
    start, end = int(first), int(last)
    direction = 1 if start <= end else -1
    for number in range(start, end + direction, direction * max(1, int(step or 1))):
        yield f"{number:0{width}}"


def matches_name(pattern: str, path: str, flag: str) -> bool:
    """Whether a pattern matches the end of a path: the name, or as many folders as it gives.

    Raises:
        UsageError: it is no valid pattern.

    >>> matches_name("*.raw", "/calls/1.raw", ""), matches_name("a/*.raw", "/b/1.raw", "")
    (True, False)
    """
    return _compiled_end(pattern, flag).match(path) is not None


@functools.lru_cache
def _compiled_end(pattern: str, flag: str) -> re.Pattern[str]:
    return re.compile(_translated(f"**/{pattern.lstrip('/')}", f"{flag} {pattern}"))


def _translated(pattern: str, where: str) -> str:
    try:
        translated: str = glob_translate(pattern)
    except ValueError:
        reason = "** stands for folders and is no part of a name; write it as in **/*.wav"
        raise UsageError(f"{where}: {reason}") from None
    return translated
