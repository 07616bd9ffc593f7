"""One recording by itself as ``--input``."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from ser_core.sources.interface import InputOptions, Page
from ser_core.sources.recording import Recording
from ser_core.storage.listing import is_file, stat_file

DESCRIPTION = "a recording with the extension of an audio file"

# What counts as audio by name; decoding goes by content.
_EXTENSIONS = frozenset(
    "aac ac3 aif aifc aiff amr ape au caf flac m4a m4b mka mkv mov mp2 mp3 mp4 mpga oga ogg opus "
    "snd sph spx w64 wav wave weba webm wma wv".split()
)


def is_audio(path: str) -> bool:
    """Whether a name has the extension of an audio file.

    >>> is_audio("a/B.WAV"), is_audio("notes.txt"), is_audio("wav")
    (True, False, False)
    """
    return "." in path and path.rsplit(".", 1)[-1].lower() in _EXTENSIONS


def recognizes(uri: str) -> bool:
    """Whether a URI is a file with the extension of an audio file."""
    return is_audio(uri) and is_file(uri)


def open_source(uris: Sequence[str], _options: InputOptions) -> "FileSource":
    """The files as a corpus."""
    return FileSource(tuple(uris))


@dataclass(frozen=True)
class FileSource:
    """A corpus of single files."""

    uris: tuple[str, ...]
    columns: pa.Schema = pa.schema([])  # noqa: RUF009 (immutable)

    def pages(self) -> Iterator[Page]:
        """One page."""
        yield Page([Recording(*stat_file(uri)) for uri in self.uris])
