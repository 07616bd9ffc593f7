"""Text files, read in lines and pages that are bounded in memory, decompressed on the way."""

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TextIO, TypeVar

import pyarrow as pa

from ser_core.sources.interface import PAGE_ROWS
from ser_core.storage.reading import open_table

COMPRESSIONS = {"gz": "gzip", "zst": "zstd"}  # by extension
LONGEST = 16 << 20  # characters of one line, or of one object
_PAGE_CHARACTERS = 8 << 20  # as Python objects up to ten times as many bytes

_Item = TypeVar("_Item")


@contextmanager
def open_text(uri: str) -> Iterator[TextIO]:
    """Opens UTF-8 text, decompressed as its extension says; line ends are left as they are.

    Raises:
        pa.ArrowInvalid, UnicodeDecodeError: while reading, it is not what its name says.
        Exception: what the file system raises, of whatever type.
    """
    compression = COMPRESSIONS.get(uri.rpartition(".")[2].lower())
    with open_table(uri) as handle:
        stream = handle if compression is None else pa.CompressedInputStream(handle, compression)
        with io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text:
            try:
                yield text
            except OSError as error:
                if not is_of_content(error):
                    raise
                raise pa.ArrowInvalid(str(error)) from None


def is_of_content(error: Exception) -> bool:
    """Whether a file's content is the cause: an OSError of pyarrow's has no number then."""
    return not isinstance(error, OSError) or (type(error) is OSError and error.errno is None)


def lines_of(file: TextIO) -> Iterator[str]:
    """Lines, none of which takes much memory.

    Raises:
        pa.ArrowInvalid: a line is too long to be one of a table.
    """
    for line in iter(partial(file.readline, LONGEST), ""):
        if len(line) == LONGEST:
            raise pa.ArrowInvalid(f"a line has more than {LONGEST >> 20} million characters")
        yield line


def pages_of(items: Iterable[tuple[int, _Item]]) -> Iterator[list[_Item]]:
    """At most `PAGE_ROWS` items at a time, fewer where they are long.

    Args:
        items: each with the number of characters that it was made of.
    """
    page: list[_Item] = []
    characters = 0
    for size, item in items:
        page.append(item)
        characters += size
        if len(page) == PAGE_ROWS or characters > _PAGE_CHARACTERS:
            yield page
            page, characters = [], 0
    if page:
        yield page
