"""A folder or prefix as ``--input``, searched recursively."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa

from ser_core.sources.file import is_audio
from ser_core.sources.interface import PAGE_ROWS, InputOptions, Page
from ser_core.sources.recording import Recording
from ser_core.storage.listing import is_file, list_files

DESCRIPTION = "a folder or prefix"


def recognizes(uri: str) -> bool:
    """Whether a URI is no file, and so a folder or prefix, even one that does not exist."""
    return not is_file(uri)


def open_source(uris: Sequence[str], _options: InputOptions) -> "FolderSource":
    """The recordings below folders."""
    return FolderSource(uris[0])


@dataclass(frozen=True)
class FolderSource:
    """The recordings at or below a folder or prefix, by their extension."""

    uri: str
    columns: pa.Schema = pa.schema([])  # noqa: RUF009 (immutable)

    def pages(self) -> Iterator[Page]:
        """Lists the folder while it is read; memory does not grow with it.

        The last page has no recordings and names what could not be looked into, if anything.

        Raises:
            FileNotFoundError: there is no such folder.
            OSError: there are no recordings, and places that could not be looked into.
        """
        unseen: list[str] = []
        entries = list_files(self.uri, is_audio, unseen=unseen)
        empty = True
        while page := [Recording(*entry) for entry in islice(entries, PAGE_ROWS)]:
            empty = False
            yield Page(page)
        if unseen and empty:
            raise OSError(f"there are no recordings, and {unseen[0]} cannot be looked into")
        if unseen:
            yield Page([], unseen=tuple(sorted(unseen)))
