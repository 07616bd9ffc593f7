"""Several opened inputs as one source: their columns together, each recording once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from ser_core.errors import CorpusError
from ser_core.sources.inputs import input_errors, shown
from ser_core.sources.interface import Listing, Page, Source
from ser_core.sources.recording import Recording


class Opened(NamedTuple):
    """Inputs of one form, and their source."""

    uris: list[str]
    source: Source


@dataclass(frozen=True)
class CombinedSource:
    """All inputs of a command; a recording that several of them lead to is listed once.

    Attributes:
        opened: by form.
        columns: of all of them; a row has nulls in those that its input lacks.
    """

    opened: Sequence[Opened]
    columns: pa.Schema

    def pages(self) -> Iterator[Page]:
        """The pages of one input after the other.

        Raises:
            CorpusError: an input cannot be listed; the message names it.
            RunError: its storage cannot be reached.
        """
        for number, (_, source) in enumerate(self.opened):
            yield from CombinedPart(self, number, source).pages()

    def split(self, parts: int) -> "Sequence[CombinedPart]":
        """The parts of all inputs.

        Raises:
            CorpusError: an input has no recordings; the message names it.
            RunError: its storage cannot be reached.
        """
        found = []
        for number, (uris, source) in enumerate(self.opened):
            with input_errors("--input", shown(uris)):
                next(iter(source.pages()), None)  # as its parts may be empty
                found += [CombinedPart(self, number, part) for part in source.split(parts)]
        for _, source in self.opened[:-1]:
            source.covers([])  # what this takes is read once, and not by each part
        return found

    def covers(self, recordings: Sequence[Recording]) -> np.ndarray:
        """Those that one of the inputs covers."""
        return self.covered(recordings, len(self.opened))

    def covered(self, recordings: Sequence[Recording], count: int) -> np.ndarray:
        """Which recordings the first so many inputs cover."""
        covered = np.zeros(len(recordings), bool)
        for _, source in self.opened[:count]:
            covered |= source.covers(recordings)
        return covered


@dataclass(frozen=True)
class CombinedPart:
    """The listing of an input or a part of it, less what earlier inputs list.

    Attributes:
        source: of all inputs.
        number: of the input.
        listing: what it lists by itself.
    """

    source: CombinedSource
    number: int
    listing: Listing

    @property
    def columns(self) -> pa.Schema:
        """Those of all inputs."""
        return self.source.columns

    def pages(self) -> Iterator[Page]:
        """Its pages, with the columns of all inputs."""
        with input_errors("--input", shown(self.source.opened[self.number].uris)):
            for page in self.listing.pages():
                whole = _with_columns(page, self.columns)
                whole = _select(whole, ~self.source.covered(whole.recordings, self.number))
                if whole.recordings or whole.unseen or whole.skipped:
                    yield whole


def columns_of(opened: Sequence[Opened]) -> pa.Schema:
    """The columns of several inputs together.

    Raises:
        CorpusError: a column has another type in another input.
    """
    fields: dict[str, tuple[pa.DataType, list[str]]] = {}
    for uris, source in opened:
        for field in source.columns:
            kind, first = fields.setdefault(field.name, (field.type, uris))
            if pa.types.is_null(kind):  # a column without values fits any
                fields[field.name] = (field.type, uris)
            elif kind != field.type and not pa.types.is_null(field.type):
                raise CorpusError(
                    f"--input {shown(uris)}: the column `{field.name}` is {field.type}, and {kind}"
                    f" in {shown(first)}; give it one type, or label them into two outputs"
                )
    return pa.schema([(name, kind) for name, (kind, _) in fields.items()])


def _with_columns(page: Page, schema: pa.Schema) -> Page:
    """A page with these columns, in their order."""
    own = pa.schema([]) if page.columns is None else page.columns.schema
    if own.names == schema.names:
        return page
    rows = len(page.recordings)
    columns = [
        page.columns[field.name].cast(field.type)
        if page.columns is not None and field.name in own.names
        else pa.nulls(rows, field.type)
        for field in schema
    ]
    return page._replace(columns=pa.table(columns, schema=schema))


def _select(page: Page, wanted: np.ndarray) -> Page:
    """The recordings of a page that are wanted, with their columns."""
    if wanted.all():
        return page
    recordings = [page.recordings[row] for row in np.flatnonzero(wanted)]
    columns = None if page.columns is None else page.columns.filter(pa.array(wanted))
    return page._replace(recordings=recordings, columns=columns)
