"""Tar shards as ``--input``, as WebDataset writes them; members are read where they lie.

A shard is listed header by header, and its members are read in one pass. Its version is that of all
its members: tar has no checksum of their content, and many programs give them no time. So a shard
that is replaced is labelled again, and as long as it stays, so do the `file_id`s.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from os.path import isdir

import pyarrow as pa

from ser_core.errors import CorpusError, RecordingError, Status
from ser_core.sources import sidecars
from ser_core.sources.file import is_recording
from ser_core.sources.inputs import has_extension, input_errors
from ser_core.sources.interface import PAGE_ROWS, InputOptions, Page
from ser_core.sources.packed_file import PackedFile, PackedSource, no_longer_there, read_each
from ser_core.sources.recording import Recording
from ser_core.sources.shard import Member, Shard
from ser_core.sources.sidecars import Values
from ser_core.sources.skipped import SkippedNames
from ser_core.storage.filesystem import is_local, local_path
from ser_core.storage.listing import is_hidden, stat_file
from ser_core.storage.reading import Stopwatch

EXTENSIONS = ("tar", "tar.gz", "tgz", "tar.zst")
DESCRIPTION = f"a shard ({', '.join(EXTENSIONS)})"
_SAMPLES = 100  # whose sidecars name the columns
_REPEATED = re.compile(r"#\d+$")  # in the name of a member; see `Member`
_MAX_PER_KEY = 256  # members: more is no sample, but a corpus whose names begin alike


def recognizes(uri: str) -> bool:
    """Whether a URI has the extension of a shard, and is no local folder."""
    return has_extension(uri, EXTENSIONS) and not (is_local(uri) and isdir(local_path(uri)))


def open_source(uris: Sequence[str], options: InputOptions) -> "TarSource":
    """Opens the first shard that can be opened, to learn the columns.

    Raises:
        CorpusError: none can.
        RunError: the storage cannot be reached.
    """
    is_recording("", options.include)  # refuses patterns that are not valid
    source = TarSource(tuple(uris), pa.schema([]), options.include)
    error: CorpusError | None = None
    for uri in uris:
        try:
            with input_errors("--input", uri), closing(PackedFile(uri)) as file:
                shard = Shard(file)
                samples = list(islice(_samples(shard, options.include), _SAMPLES))
                if shard.damage and not any(sample.paths for sample in samples):
                    raise CorpusError(f"--input {uri}: {shard.damage}")
                values = chain.from_iterable(map(_Sample.values, samples))
                return replace(source, columns=sidecars.schema_of(values))
        except CorpusError as raised:
            error = error or raised
    raise error or CorpusError("--input: nothing is named")


@dataclass(frozen=True)
class TarSource(PackedSource):
    """The recordings in shards, by their extension.

    Attributes:
        uris: of the shards.
        columns: what the sidecars say.
        include: patterns of members' names that are recordings, too.
    """

    include: tuple[str, ...] = ()

    def takes(self, member: str) -> bool:
        """Whether a member has the name of a recording; the number of a repeated one is no part."""
        path = _REPEATED.sub("", member)
        return not _is_hidden(path) and is_recording(path, self.include)

    def _pages(self, uri: str, file: PackedFile) -> Iterator[Page]:
        page, skipped = _PageBuilder(uri, stat_file(uri).version, self.columns), SkippedNames()
        shard = Shard(file)
        for sample in _samples(shard, self.include):
            for name in page.add(sample):
                skipped.add(name)
            if len(page.recordings) >= PAGE_ROWS:
                yield page.build()
        yield page.build()._replace(skipped=dict(skipped.counts))
        if shard.damage:
            raise shard.damage


def read_members(
    uri: str, recordings: Sequence[Recording], stopwatch: Stopwatch
) -> Iterator[bytes | RecordingError]:
    """Reads members of one shard in one pass; see `PackedForm.read_members`."""
    yield from read_each(uri, recordings, stopwatch, _contents)


def _contents(
    file: PackedFile, recordings: Sequence[Recording]
) -> Iterator[bytes | RecordingError]:
    shard = Shard(file)
    read = _read_in_order if shard.is_compressed else _read_at_offsets
    yield from read(shard, recordings)


def _read_at_offsets(
    shard: Shard, recordings: Sequence[Recording]
) -> Iterator[bytes | RecordingError]:
    for recording in recordings:
        try:
            yield shard.read_at(recording.offset, _size(recording))
        except RecordingError as error:
            yield error


def _read_in_order(
    shard: Shard, recordings: Sequence[Recording]
) -> Iterator[bytes | RecordingError]:
    """Passes over the members of a compressed shard, up to the last one that is wanted."""
    members = shard.members()
    for recording in recordings:
        try:
            _size(recording)
            member = next((each for each in members if each.name == recording.member), None)
            if member is None:
                raise shard.damage or no_longer_there()
            yield shard.read(member)
        except RecordingError as error:
            yield error


def _size(recording: Recording) -> int:
    """The size of a member that was there when it was listed.

    Raises:
        RecordingError: it was not.
    """
    if recording.size is None:
        raise RecordingError(
            Status.NOT_FOUND, "the shard has no such member, as far as it could be read"
        )
    return recording.size


# ---- listing -------------------------------------------------------------------------------------


@dataclass
class _Sample:
    """Members that follow each other and whose names are the same up to the first dot.

    A sidecar belongs to the recordings whose names begin with its own, less the extension:
    ``1.json`` to ``1.left.wav`` and ``1.right.wav``.
    """

    key: str = ""
    recordings: list[Member] = field(default_factory=list)
    sidecars: dict[str, bytes | int] = field(default_factory=dict)  # by path
    others: list[str] = field(default_factory=list)
    paths: set[str] = field(default_factory=set)
    last_stem: str = ""

    def takes(self, member: Member) -> bool:
        """Whether a member belongs to the sample rather than to the next one."""
        if _key(member.path) != self.key or member.path in self.paths:
            return False
        return len(self.paths) < _MAX_PER_KEY or _stem(member.path) == self.last_stem

    def values(self) -> list[Values]:
        """What the sidecars say of each recording; of two that belong to it, the closer one."""
        paths = sorted(self.sidecars, key=lambda path: len(_stem(path)))
        return [
            sidecars.values_of(
                {
                    path.rpartition(".")[2].lower(): self.sidecars[path]
                    for path in paths
                    if recording.path.startswith(f"{_stem(path)}.")
                }
            )
            for recording in self.recordings
        ]

    def skipped(self) -> list[str]:
        """The members that are no recordings, nor say anything of one."""
        names = [each.path for each in self.recordings]
        unused = (
            path
            for path in self.sidecars
            if not any(name.startswith(f"{_stem(path)}.") for name in names)
        )
        return [*self.others, *unused]


def _samples(shard: Shard, include: Sequence[str]) -> Iterator[_Sample]:
    sample = _Sample()
    for member in shard.members():
        if _is_hidden(member.path):
            continue
        if not sample.takes(member):
            yield sample
            sample = _Sample(_key(member.path))
        sample.paths.add(member.path)
        sample.last_stem = _stem(member.path)
        if is_recording(member.path, include):
            sample.recordings.append(member)
        elif member.is_regular and has_extension(member.path, sidecars.EXTENSIONS):
            with suppress(RecordingError):  # the shard is cut here, which `members` will find
                large = member.size > sidecars.MAX_BYTES
                sample.sidecars[member.path] = member.size if large else shard.read(member)
        else:
            sample.others.append(member.path)
    yield sample


class _PageBuilder:
    """Collects samples of a shard into pages."""

    def __init__(self, uri: str, version: str, columns: pa.Schema) -> None:
        self._uri, self._version, self._columns = uri, version, columns
        self.recordings: list[Recording] = []
        self._values: list[Values] = []

    def add(self, sample: _Sample) -> list[str]:
        """Adds the recordings of a sample; returns the names that were passed over."""
        self.recordings += [
            Recording(self._uri, each.size, self._version, each.name, offset=each.offset)
            for each in sample.recordings
        ]
        self._values += sample.values()
        return sample.skipped()

    def build(self) -> Page:
        """The page, and begins another."""
        page = Page(self.recordings, sidecars.columns_of(self._values, self._columns))
        self.recordings, self._values = [], []
        return page


def _is_hidden(path: str) -> bool:
    return any(is_hidden(part) for part in path.split("/") if part not in (".", ".."))


def _key(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{name.partition('.')[0]}"


def _stem(path: str) -> str:
    """A path without its extension."""
    return path.rpartition(".")[0] or path
