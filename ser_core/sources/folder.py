"""Folders, prefixes and patterns of recordings as ``--input``, searched recursively."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa

from ser_core.errors import CorpusError
from ser_core.sources.file import is_recording
from ser_core.sources.inputs import input_errors
from ser_core.sources.interface import PAGE_ROWS, InputOptions, Page
from ser_core.sources.patterns import Glob, parse_glob
from ser_core.sources.recording import Recording
from ser_core.sources.skipped import SkippedNames, describe
from ser_core.storage.filesystem import is_local, local_path
from ser_core.storage.listing import is_file, list_files

DESCRIPTION = "a folder or prefix, or a pattern of files"
LAST_RESORT = True  # a folder may also be of a form of its own


def recognizes(uri: str) -> bool:
    """Whether a URI is no file, and so a folder or prefix, even one that does not exist."""
    return not is_file(uri)


def open_source(uris: Sequence[str], options: InputOptions) -> "FolderSource":
    """The recordings below folders, and those that patterns match.

    Raises:
        UsageError: a pattern is not valid.
    """
    is_recording("", options.include)  # refuses patterns that are not valid
    globs = [parse_glob(uri) for uri in uris]
    for glob in globs:
        if glob is not None:
            glob.compiled("--input")
    return FolderSource(tuple(zip(uris, globs, strict=True)), options.include)


@dataclass(frozen=True)
class FolderSource:
    """The recordings at or below folders or prefixes, and those that patterns match.

    In a folder, names tell what is a recording: those with an audio extension and those that are
    included. The same holds for a pattern that says nothing of the name, as ``calls/2026-*/**``.
    Of another, as ``calls/*.raw``, every match is one, and a row says if it cannot be decoded. No
    pattern matches folders; names that begin with ``.`` or ``_`` have to be spelled out.

    Attributes:
        inputs: URIs, each with its pattern, if it is one.
        include: patterns of names that are recordings, too.
    """

    inputs: tuple[tuple[str, Glob | None], ...]
    include: tuple[str, ...] = ()
    columns: pa.Schema = pa.schema([])  # noqa: RUF009 (immutable)

    def pages(self) -> Iterator[Page]:
        """Lists one input after the other while it is read; memory does not grow with them.

        The last page of an input has no recordings; it names what could not be looked into, and
        counts what was passed over because of its name.

        Raises:
            CorpusError: an input is missing, or has no recordings.
            RunError: it has none, and places that could not be looked into; or its storage cannot
                be reached.
        """
        for uri, glob in self.inputs:
            with input_errors("--input", uri):
                yield from _pages(uri, glob, self.include)


def _pages(uri: str, glob: Glob | None, include: tuple[str, ...]) -> Iterator[Page]:
    names, unseen = _Names(uri, glob, include), list[str]()
    root, hidden = (uri, False) if glob is None else (glob.root, glob.names_hidden)
    entries = list_files(root, names, hidden, unseen)
    empty = True
    while page := [Recording(*entry) for entry in islice(entries, PAGE_ROWS)]:
        empty = False
        yield Page(page)
    if empty and unseen:
        raise OSError(f"there are no recordings, and {unseen[0]} cannot be looked into")
    if empty:
        raise CorpusError(f"--input {uri}: {_none(root, glob, names.skipped)}")
    if unseen or names.skipped.counts:
        yield Page([], unseen=tuple(sorted(unseen)), skipped=dict(names.skipped.counts))


class _Names:
    """Which names are those of recordings; it counts the others."""

    def __init__(self, uri: str, glob: Glob | None, include: tuple[str, ...]) -> None:
        self._matches = None if glob is None else glob.compiled("--input").match
        self._every_match = glob is not None and not glob.any_name
        self._include = include
        self._is_local = is_local(uri)
        self.skipped = SkippedNames()

    def __call__(self, path: str) -> bool:
        if self._matches and not self._matches(path):
            return False
        if self._every_match or is_recording(path, self._include):
            return True
        # A local listing asks for folders, too.
        if not self._is_local or os.path.isfile(local_path(path)):
            self.skipped.add(path)
        return False


def _none(root: str, glob: Glob | None, skipped: SkippedNames) -> str:
    """What to say where there are no recordings."""
    if skipped.counts:
        ending = next((name for name, _ in skipped.counts.most_common() if name[0] == "."), ".tar")
        return (
            f"there are no recordings, but {describe(skipped.counts)}; archives and tables are"
            f" named as in '{root.rstrip('/')}/**/*{ending}', recordings by --include '*{ending}'"
        )
    if glob is None:
        return "there are no recordings"
    return "no file matches; a pattern of all that is below folders ends in /**"
