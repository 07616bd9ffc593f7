"""What every form of ``--input`` offers; it knows none of the forms.

A form is a module of this package with the functions of `Form`. It needs no entry anywhere.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from ser_core.errors import RecordingError
from ser_core.sources.recording import Recording
from ser_core.storage.reading import Stopwatch

PAGE_ROWS = 10_000  # recordings in a page: about 2 MB


class InputOptions(NamedTuple):
    """How inputs are read.

    Attributes:
        allow_outside: whether what an input names may lie outside its folder and on other storage.
        path_column: a manifest's column of paths; None looks for the usual names.
        include: patterns of names that are recordings beside those with an audio extension; see
            ``file.is_recording``.
    """

    allow_outside: bool = False
    path_column: str | None = None
    include: tuple[str, ...] = ()


class Page(NamedTuple):
    """Some recordings of a source.

    Attributes:
        recordings: in the order of the listing.
        columns: a manifest's own columns, a row per recording; None without a manifest.
        unseen: places below the input that could not be looked into and may hold recordings.
        skipped: how many files were passed over because of their names, by extension; the last
            page of an input may have them all, and no recordings.
    """

    recordings: list[Recording]
    columns: pa.Table | None = None
    unseen: tuple[str, ...] = ()
    skipped: Mapping[str, int] = {}


class Listing(Protocol):
    """What lists recordings; another process may do so."""

    @property
    def columns(self) -> pa.Schema:
        """The manifests' own columns, which the output keeps; empty without a manifest."""

    def pages(self) -> Iterator[Page]:
        """Lists the recordings page by page, in no particular order.

        Raises:
            CorpusError: it cannot be listed.
            Exception: what the file system raises, of whatever type.
        """


class Source(Listing, Protocol):
    """Inputs of one form that were opened."""

    def split(self, parts: int) -> Sequence[Listing]:
        """Listings that have the same recordings together; a part may have none.

        Args:
            parts: about how many.

        Raises:
            Exception: what the file system raises, of whatever type.
        """

    def covers(self, recordings: Sequence[Recording]) -> np.ndarray:
        """Which of some recordings this source lists, too: shape ``(len(recordings),)``.

        It may ask no storage but for the inputs themselves.
        """


class Form(Protocol):
    """A module of this package that is a form of ``--input``.

    A form may also have ``EXTENSIONS``, in lower case and without their dots, of files that are no
    recordings by themselves: a pattern of such files, as ``shards/*.tar``, stands for all of them.
    ``LAST_RESORT = True`` has it asked after the others, where it takes what they leave.

    Attributes:
        DESCRIPTION: what it takes, for messages: "a zip archive".
    """

    DESCRIPTION: str

    def recognizes(self, uri: str) -> bool:
        """Whether an absolute URI is of this form; for an existing input, one form returns True."""

    def open_source(self, uris: Sequence[str], options: InputOptions) -> Source:
        """Opens inputs of this form and checks what can be checked without listing them.

        Args:
            uris: absolute, each once; at least one.
            options: how they are read.

        Raises:
            CorpusError: one of them cannot be used; the message names it.
            Exception: what the file system raises, of whatever type; with several URIs, raised
                within ``inputs.input_errors``, so that the message names the one.
        """


class PackedForm(Form, Protocol):
    """A form whose files hold several recordings.

    Attributes:
        EXTENSIONS: of these files, by which a worker finds the form.
    """

    EXTENSIONS: tuple[str, ...]

    def read_members(
        self, uri: str, recordings: Sequence[Recording], stopwatch: Stopwatch
    ) -> Iterator[bytes | RecordingError]:
        """Reads members of one file in one pass.

        Args:
            uri: the file.
            recordings: some of its members, in the order of `Source.pages`.
            stopwatch: receives the time that storage took.

        Yields:
            The bytes of each, in their order, or why they cannot be read.
        """
