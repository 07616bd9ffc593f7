"""What every form of ``--input`` offers; it knows none of the forms.

A form is a module of this package with the functions of `Form`. It needs no entry anywhere.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import BinaryIO, NamedTuple, Protocol

import pyarrow as pa

from ser_core.sources.recording import Recording
from ser_core.storage.reading import Stopwatch

PAGE_ROWS = 10_000  # recordings in a page: about 2 MB


class Page(NamedTuple):
    """Some recordings of a source.

    Attributes:
        recordings: in the order of the listing.
        columns: a manifest's own columns, a row per recording; None without a manifest.
        unseen: places below the input that could not be looked into and may hold recordings.
    """

    recordings: list[Recording]
    columns: pa.Table | None = None
    unseen: tuple[str, ...] = ()


class Source(Protocol):
    """An input that was opened."""

    @property
    def columns(self) -> pa.Schema:
        """The manifest's own columns, which the output keeps; empty without a manifest."""

    def pages(self) -> Iterator[Page]:
        """Lists the recordings page by page, in no particular order.

        Raises:
            CorpusError: it cannot be listed.
            Exception: what the file system raises, of whatever type.
        """


class Form(Protocol):
    """A module of this package that is a form of ``--input``.

    Attributes:
        DESCRIPTION: what it takes, for messages: "a zip archive".
    """

    DESCRIPTION: str

    def recognizes(self, uri: str) -> bool:
        """Whether an absolute URI is of this form; for an existing input, one form returns True."""

    def open_source(self, uri: str, allow_outside: bool) -> Source:
        """Opens an input and checks what can be checked without listing it.

        Args:
            uri: absolute.
            allow_outside: whether what it names may lie outside its folder.

        Raises:
            CorpusError: it cannot be used.
            Exception: what the file system raises, of whatever type.
        """


class PackedForm(Form, Protocol):
    """A form whose files hold several recordings."""

    def open_member(
        self, recording: Recording, stopwatch: Stopwatch
    ) -> AbstractContextManager[BinaryIO]:
        """Opens one member for decoding.

        Raises:
            RecordingError: it cannot be read.
        """
