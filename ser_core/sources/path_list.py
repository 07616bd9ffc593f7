"""Text files with a path per line as ``--input``: of recordings, or of files that hold them."""

import io
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import cast

import pyarrow as pa

from ser_core.sources.inputs import has_extension
from ser_core.sources.interface import InputOptions
from ser_core.sources.manifest import (
    ManifestSource,
    content_errors,
    open_tables,
    recording_uris,
)
from ser_core.sources.outside import refuse_links_outside, refuse_paths_outside
from ser_core.sources.text_files import COMPRESSIONS, lines_of, open_text, pages_of
from ser_core.storage.filesystem import printable

_FORMATS = ("txt", "lst")
EXTENSIONS = (*_FORMATS, *(f"{name}.{c}" for name in _FORMATS for c in COMPRESSIONS))
DESCRIPTION = f"a list of paths ({', '.join(_FORMATS)}; also with .gz or .zst)"
_PATHS = pa.schema([("path", pa.string())])


def recognizes(uri: str) -> bool:
    """Whether a URI has the extension of a text file."""
    return has_extension(uri, EXTENSIONS)


def open_source(uris: Sequence[str], options: InputOptions) -> ManifestSource:
    """Opens lists as manifests whose only column is `path`; see `open_tables`."""
    return open_tables([PathList(uri) for uri in uris], options._replace(path_column="path"))


def files_in(uri: str, extensions: Collection[str], options: InputOptions) -> list[str]:
    """The URIs in a list of files with these extensions, as of shards; of another list, none.

    A list is one of such files if its first path has one of the extensions.

    Raises:
        CorpusError: it is no text, or a path leads outside.
        Exception: what the file system raises, of whatever type.
    """
    with content_errors(f"--input {uri}"):
        pages = (page["path"].to_pylist() for page in PathList(uri).read(_PATHS))
        names: list[str] = next(pages, [""])
        if not has_extension(names[0], extensions):
            return []
        names.extend(chain.from_iterable(pages))
    uris = recording_uris(uri, names)
    refuse_paths_outside(uri, names, uris, options.allow_outside)
    if not options.allow_outside:
        refuse_links_outside(uri, names, uris)
    return uris


@dataclass(frozen=True)
class PathList:
    """A list as a table with the column `path`.

    A line is a path, whatever characters it has; blank lines are left out. Names that are not
    UTF-8 may stand in it as they are on disk.

    Attributes:
        uri: absolute.
    """

    uri: str

    def schema(self) -> pa.Schema:
        """One column of text."""
        return _PATHS

    def read(self, _schema: pa.Schema) -> Iterator[pa.Table]:
        """The paths, page by page.

        Raises:
            pa.ArrowInvalid: it is no text.
            Exception: what the file system raises, of whatever type.
        """
        with open_text(self.uri) as text:
            cast(io.TextIOWrapper, text).reconfigure(errors="surrogateescape")
            lines = (printable(line.rstrip("\r\n")) for line in lines_of(text) if line.strip())
            for page in pages_of((len(line), line) for line in lines):
                yield pa.table({"path": page}, schema=_PATHS)
