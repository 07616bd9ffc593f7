"""A listing that was already made, as a source."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from ser_core.sources.interface import Page


@dataclass(frozen=True)
class ListedSource:
    """Pages of a listing that are held.

    Attributes:
        columns: the manifests' own columns.
        held: the pages.
    """

    columns: pa.Schema
    held: Sequence[Page]

    def pages(self) -> Iterator[Page]:
        """The pages, as they were listed."""
        return iter(self.held)
