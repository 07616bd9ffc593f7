"""A Kaldi data directory as ``--input``; no command in it is executed.

A `wav.scp`, with `segments`, `utt2spk` and `text` beside it, if they are there:
https://kaldi-asr.org/doc/data_prep.html
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa

from ser_core.errors import CorpusError
from ser_core.sources.file import is_audio
from ser_core.sources.inputs import input_errors
from ser_core.sources.interface import InputOptions
from ser_core.sources.manifest import ManifestSource, content_errors, is_manifest, open_tables
from ser_core.sources.manifest_columns import seconds
from ser_core.sources.text_files import lines_of, open_text, pages_of
from ser_core.storage.filesystem import absolute, is_local, join
from ser_core.storage.listing import is_file

EXTENSIONS = ("scp",)
DESCRIPTION = "a Kaldi data directory, or its wav.scp"
_PACKED = (".tar", ".gz", ".tgz", ".zst", ".parquet", ".txt", ".zip")
_BESIDE = {"speaker": "utt2spk", "text": "text"}  # columns, and the files that they come from
_Row = dict[str, str]
_Item = TypeVar("_Item")
_IN_ARCHIVE = re.compile(r"\.ark:\d+$")


def recognizes(uri: str) -> bool:
    """Whether a URI is a `wav.scp`, or a folder with one in it."""
    if uri.lower().endswith(".scp"):
        return True
    if not is_local(uri) and (is_audio(uri) or is_manifest(uri) or uri.endswith(_PACKED)):
        return False  # a request saved for each of many files
    try:
        return is_file(join(uri, "wav.scp"))
    except PermissionError:  # what S3 says of a missing object to somebody who may not list it
        return False


def open_source(uris: Sequence[str], options: InputOptions) -> ManifestSource:
    """Opens data directories and reads every line of them once; see `open_tables`."""
    return open_tables([_open(uri) for uri in uris], options._replace(path_column=None))


def _open(uri: str) -> "_Directory":
    scp = uri if uri.lower().endswith(".scp") else join(uri, "wav.scp")
    with input_errors("--input", uri):
        there = [name for name in ("segments", *_BESIDE.values()) if is_file(_beside(scp, name))]
    return _Directory(scp, tuple(there))


@dataclass(frozen=True)
class _Directory:
    """A data directory as a table with a row for each utterance.

    Attributes:
        uri: of its `wav.scp`.
        beside: names of the other files that it has.
    """

    uri: str
    beside: tuple[str, ...]

    def schema(self) -> pa.Schema:
        """Text, as everything in such files."""
        stretch = ("start", "end") if "segments" in self.beside else ()
        joined = [name for name, file in _BESIDE.items() if file in self.beside]
        names = ("path", *stretch, "utterance", *joined)
        return pa.schema([(name, pa.string()) for name in names])

    def read(self, schema: pa.Schema) -> Iterator[pa.Table]:
        """Joins the files line by line: Kaldi's tools require that they are sorted by utterance.

        Of recordings with segments, which are long and so few, the paths are held in memory.

        Raises:
            CorpusError: a line is not what it should be, or a command.
        """
        segmented = "segments" in self.beside
        rows = _segments(self.uri) if segmented else _recordings(self.uri)
        main = _beside(self.uri, "segments") if segmented else self.uri
        for name, file in _BESIDE.items():
            if file in self.beside:
                rows = _join(rows, main, name, _beside(self.uri, file))
        for page in pages_of((sum(map(len, row.values())), row) for row in rows):
            yield pa.Table.from_pylist(page, schema=schema)


def _recordings(uri: str) -> Iterator[_Row]:
    """The lines of a `wav.scp`."""
    for number, (name, path) in _lines(uri):
        reason = ""
        if path.startswith("|") or path.endswith("|"):
            reason = "a command, which is never executed; save its output and name the file"
        elif _IN_ARCHIVE.search(path):
            reason = "a place in an archive of Kaldi's, which is not read; copy it to a file"
        if reason:
            raise _refused(uri, number, f"the recording {name} is {reason}")
        yield {"path": path, "utterance": name}


def _segments(scp: str) -> Iterator[_Row]:
    """The lines of `segments`, with the paths of their recordings."""
    paths: dict[str, str] = {}
    for row in _recordings(scp):
        if row["utterance"] in paths:
            raise CorpusError(f"--input {scp}: the recording {row['utterance']} is there twice")
        paths[row["utterance"]] = row["path"]
    uri = _beside(scp, "segments")
    for number, (name, rest) in _lines(uri):
        fields = rest.split()
        if len(fields) != 3:
            why = "; a channel cannot be chosen" if len(fields) == 4 else ""
            raise _refused(uri, number, f"not an utterance, a recording, a start and an end{why}")
        recording, start, end = fields
        if recording not in paths:
            raise _refused(uri, number, f"the recording {recording} is not in wav.scp")
        end = "" if end in ("-1", "-1.0") else end  # to the end, as extract-segments reads it
        times = [seconds(text, f"--input {uri}: line {number}") for text in (start, end) if text]
        if times != sorted(times):
            raise _refused(uri, number, "it ends before it starts")
        yield {"path": paths[recording], "start": start, "end": end, "utterance": name}


def _join(rows: Iterator[_Row], main: str, column: str, uri: str) -> Iterator[_Row]:
    """Adds what a file says of each utterance; null where it says nothing."""
    others = _in_order(((line[0], line[1]) for _, line in _lines(uri, empty=True)), uri)
    name, value = next(others, (None, None))
    for utterance, row in _in_order(((row["utterance"], row) for row in rows), main):
        while name is not None and name < utterance:
            name, value = next(others, (None, None))
        yield row | {column: value or ""} if name == utterance else row


def _in_order(items: Iterable[tuple[str, _Item]], uri: str) -> Iterator[tuple[str, _Item]]:
    """Items that are sorted by their names.

    Raises:
        CorpusError: they are not.
    """
    last = ""
    for name, item in items:
        if name <= last:
            remedy = "sort the files with LC_ALL=C sort, or utils/fix_data_dir.sh"
            raise CorpusError(f"--input {uri}: {name} comes after {last}; {remedy}")
        last = name
        yield name, item


def _lines(uri: str, empty: bool = False) -> Iterator[tuple[int, tuple[str, str]]]:
    """Numbered lines of a name and what it stands for, which may be empty if that is said."""
    with input_errors("--input", uri), content_errors(f"--input {uri}"), open_text(uri) as text:
        for number, line in enumerate(lines_of(text), start=1):
            name, rest = [*line.split(maxsplit=1), "", ""][:2]
            if name and not rest and not empty:
                raise _refused(uri, number, f"only a name, {name}")
            if name:
                yield number, (name, rest.strip())


def _beside(scp: str, name: str) -> str:
    return join(absolute(scp).rpartition("/")[0], name)


def _refused(uri: str, number: int, reason: str) -> CorpusError:
    return CorpusError(f"--input {uri}: line {number}: {reason}")
