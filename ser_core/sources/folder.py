"""Folders, prefixes and patterns of recordings as ``--input``, searched recursively."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from ser_core.errors import CorpusError
from ser_core.sources.file import is_recording
from ser_core.sources.inputs import input_errors
from ser_core.sources.interface import PAGE_ROWS, InputOptions, Page
from ser_core.sources.patterns import Glob, parse_glob
from ser_core.sources.recording import Recording
from ser_core.sources.skipped import SkippedNames, describe
from ser_core.storage.filesystem import is_local, local_path, resolve
from ser_core.storage.listing import Entry, Part, is_file, is_hidden, list_files, list_part
from ser_core.storage.prefixes import divide

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
        for number, (uri, glob) in enumerate(self.inputs):
            with input_errors("--input", uri):
                yield from self._pages(number, uri, glob)

    def split(self, parts: int) -> "Sequence[FolderPart]":
        """Each input, or parts of it."""
        found: list[FolderPart] = []
        for number, (uri, glob) in enumerate(self.inputs):
            root, hidden = (uri, False) if glob is None else (glob.root, glob.names_hidden)
            with input_errors("--input", uri):
                next(self._pages(number, uri, glob))  # raises if there are no recordings
                divided = divide(root, parts, hidden)
            # What is not divided is listed as a whole, which a local folder is.
            found += [FolderPart(self, number, p if len(divided) > 1 else None) for p in divided]
        return found

    def covers(self, recordings: Sequence[Recording]) -> np.ndarray:
        """Those that its inputs match, by their names alone."""
        return self._covered(recordings, len(self.inputs))

    def list_part(self, number: int, part: Part | None, unseen: list[str]) -> "_Listed":
        """The recordings of one input, or of a part of it, page by page."""
        uri, glob = self.inputs[number]
        names = _Names(uri, glob, self.include)
        root, hidden = (uri, False) if glob is None else (glob.root, glob.names_hidden)
        entries = (
            list_files(root, names, hidden, unseen)
            if part is None
            else list_part(part, names, hidden)
        )
        return _Listed(names, self._without_earlier(number, entries))

    def _without_earlier(self, number: int, entries: Iterator[Entry]) -> Iterator[list[Recording]]:
        while page := [Recording(*entry) for entry in islice(entries, PAGE_ROWS)]:
            covered = self._covered(page, number)
            yield [each for each, there in zip(page, covered, strict=True) if not there]

    def _covered(self, recordings: Sequence[Recording], count: int) -> np.ndarray:
        """Which recordings the first so many inputs match."""
        covered = np.zeros(len(recordings), bool)
        for uri, glob in self.inputs[:count]:
            match = _Names(uri, glob, self.include).match
            named = (each.identity == each.uri and match(each.uri) for each in recordings)
            covered |= np.fromiter(named, bool, len(recordings))
        return covered

    def _pages(self, number: int, uri: str, glob: Glob | None) -> Iterator[Page]:
        unseen, empty = list[str](), True
        names, pages = self.list_part(number, None, unseen)
        for page in pages:
            empty = False
            yield Page(page)
        if empty and unseen:
            raise OSError(f"there are no recordings, and {unseen[0]} cannot be looked into")
        if empty:
            root = uri if glob is None else glob.root
            raise CorpusError(f"--input {uri}: {_none(root, glob, names.skipped)}")
        yield from _left_out(names, unseen)


class _Listed(NamedTuple):
    """A listing of recordings, and the names that it passes over."""

    names: "_Names"
    pages: Iterator[list[Recording]]


@dataclass(frozen=True)
class FolderPart:
    """An input of a source, or a part of it.

    Attributes:
        source: whose input it is.
        number: of the input.
        part: of its prefix; None is the whole.
    """

    source: FolderSource
    number: int
    part: Part | None

    @property
    def columns(self) -> pa.Schema:
        """None."""
        return self.source.columns

    def pages(self) -> Iterator[Page]:
        """As those of the source, but without recordings where it has none.

        Raises:
            CorpusError, RunError: it cannot be listed.
        """
        unseen = list[str]()
        with input_errors("--input", self.source.inputs[self.number][0]):
            names, pages = self.source.list_part(self.number, self.part, unseen)
            yield from map(Page, pages)
            yield from _left_out(names, unseen)


def _left_out(names: "_Names", unseen: list[str]) -> Iterator[Page]:
    if unseen or names.skipped.counts:
        yield Page([], unseen=tuple(sorted(unseen)), skipped=dict(names.skipped.counts))


class _Names:
    """Which names are those of recordings; it counts the others."""

    def __init__(self, uri: str, glob: Glob | None, include: tuple[str, ...]) -> None:
        self._root, self._glob = uri if glob is None else glob.root, glob
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

    def match(self, path: str) -> bool:
        """Whether a listing of the root would have a file, by its name alone."""
        below = next((path[len(root) :] for root in self._roots if path.startswith(root)), None)
        if below is None or (self._matches and not self._matches(path)):
            return False
        hidden = self._glob is not None and self._glob.names_hidden
        visible = hidden or not any(map(is_hidden, below.split("/")))
        named = visible and (self._every_match or is_recording(path, self._include))
        # Behind a link, a listing may have it under another path, or not at all.
        return named and not (self._is_local and _leads_elsewhere(os.path.dirname(path)))

    @cached_property
    def _roots(self) -> set[str]:
        """The root as it was given and as a listing writes it, with a slash at the end."""
        written = self._root
        if not self._is_local:
            fs, path = resolve(self._root)
            written = fs.unstrip_protocol(path)
        return {f"{root.rstrip('/')}/" for root in (self._root, written)}


@lru_cache(maxsize=10_000)
def _leads_elsewhere(folder: str) -> bool:
    """Whether a link is part of a local path."""
    path = os.path.normpath(local_path(folder))
    return os.path.realpath(path) != path


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
