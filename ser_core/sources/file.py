"""Recordings by themselves as ``--input``, and which names are those of recordings."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ser_core.sources.interface import PAGE_ROWS, InputOptions, Page
from ser_core.sources.named_files import NamedFiles
from ser_core.sources.patterns import matches_name
from ser_core.sources.recording import Recording
from ser_core.storage.listing import is_file

DESCRIPTION = "a recording with the extension of an audio file"

_FEWEST_IN_PART = 1000  # files
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


def is_recording(path: str, include: Sequence[str] = ()) -> bool:
    """Whether a name in a folder or a packed file is taken for a recording.

    Args:
        path: of the file or member; folders before the name may be there.
        include: patterns, as of ``--include``: of names, or of folders and names.

    Raises:
        UsageError: one is no valid pattern.

    >>> is_recording("/calls/1.raw", ["*.raw"]), is_recording("/calls/1.raw", ["tape/*.raw"])
    (True, False)
    """
    return is_audio(path) or any(matches_name(glob, path, "--include") for glob in include)


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
        """The files in their order; one that is missing is listed without a size."""
        with NamedFiles() as files:
            for at in range(0, len(self.uris), PAGE_ROWS):
                entries = files.entries(self.uris[at : at + PAGE_ROWS])
                yield Page([Recording(*entry) for entry in entries])

    def split(self, parts: int) -> Sequence["FileSource"]:
        """Some of the files each."""
        size = max(_FEWEST_IN_PART, -(-len(self.uris) // parts))
        return [FileSource(self.uris[at : at + size]) for at in range(0, len(self.uris), size)]

    def covers(self, recordings: Sequence[Recording]) -> np.ndarray:
        """Those that are its files."""
        uris = frozenset(self.uris)
        return np.array([recording.identity in uris for recording in recordings], bool)
