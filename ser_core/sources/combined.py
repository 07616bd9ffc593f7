"""Several opened inputs as one source: their columns together, each recording once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from ser_core.errors import CorpusError
from ser_core.sources.identity_hashes import hashes, is_in
from ser_core.sources.inputs import input_errors, shown
from ser_core.sources.interface import Page, Source
from ser_core.sources.recording import Recording


class Opened(NamedTuple):
    """Inputs of one form, and their source."""

    uris: list[str]
    source: Source


@dataclass(frozen=True)
class CombinedSource:
    """All inputs of a command.

    Attributes:
        opened: by form.
        columns: of all of them; a row has nulls in those that its input lacks.
        may_repeat: whether two inputs may lead to one recording, which is listed once: it costs
            8 bytes a recording.
    """

    opened: Sequence[Opened]
    columns: pa.Schema
    may_repeat: bool

    def pages(self) -> Iterator[Page]:
        """The pages of one input after the other.

        Raises:
            CorpusError: an input cannot be listed; the message names it.
            RunError: its storage cannot be reached.
        """
        listed = _Listed()
        for uris, source in self.opened:
            with input_errors("--input", shown(uris)):
                for page in source.pages():
                    whole = _with_columns(page, self.columns)
                    if self.may_repeat:
                        whole = _select(whole, listed.add(whole.recordings))
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


class _Listed:
    """Which recordings were listed: eight bytes each, in sorted arrays that double in length.

    Among 10 million recordings, two have the same hash with probability 3e-6.
    """

    def __init__(self) -> None:
        self._sorted: list[np.ndarray] = []

    def add(self, recordings: Sequence[Recording]) -> np.ndarray:
        """Adds recordings, and tells which of them are new."""
        added = hashes([recording.identity for recording in recordings])
        new = np.zeros(len(added), bool)
        new[np.unique(added, return_index=True)[1]] = True
        for known in self._sorted:
            new &= ~is_in(added, known)
        if new.any():
            self._sorted.append(np.sort(added[new]))
        while len(self._sorted) > 1 and len(self._sorted[-1]) >= len(self._sorted[-2]):
            self._sorted.append(np.sort(np.concatenate([self._sorted.pop(), self._sorted.pop()])))
        return new
