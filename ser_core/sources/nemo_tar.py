"""NeMo's tarred manifests as ``--input``: JSON lines that name members of the shards beside them.

A row has a `shard_id`; its recording is the member `audio_filepath` of ``audio_<shard_id>.tar`` in
the folder of the manifest. `offset` and `duration` name a stretch of the member.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby

import numpy as np
import pyarrow as pa

from ser_core.errors import CorpusError
from ser_core.sources.identity_hashes import hashes, is_in
from ser_core.sources.inputs import input_errors
from ser_core.sources.interface import InputOptions, Page
from ser_core.sources.manifest import content_errors
from ser_core.sources.manifest_columns import layout_of, paths_of, stretches_of
from ser_core.sources.nemo_manifest import PATH, SHARD, names_shards
from ser_core.sources.packed_file import PackedFile, in_groups
from ser_core.sources.recording import Recording
from ser_core.sources.shard import Member, Shard
from ser_core.sources.tables import TableFile, conform, union_schema
from ser_core.storage.filesystem import join
from ser_core.storage.listing import stat_file

DESCRIPTION = "a tarred manifest of NeMo's"


def recognizes(uri: str) -> bool:
    """Whether a URI is a manifest whose first row has a shard.

    Raises:
        Exception: the storage cannot tell; of whatever type the file system raises.
    """
    return names_shards(uri)


def open_source(uris: Sequence[str], _options: InputOptions) -> "NemoSource":
    """Opens manifests and reads every row once.

    Raises:
        CorpusError: one cannot be read, a row has no path or no shard, rows of a shard do not
            follow each other, or a recording is there twice.
    """
    manifests = tuple(_open(uri) for uri in uris)
    columns = union_schema(manifest.kept for manifest in manifests)
    return NemoSource(_with_repeated(manifests), columns)


def _open(uri: str) -> "_Manifest":
    with input_errors("--input", uri), content_errors(f"--input {uri}"):
        return _Manifest(uri, TableFile(uri).schema())


def _with_repeated(manifests: "tuple[_Manifest, ...]") -> "tuple[_Manifest, ...]":
    """The manifests, each with what an earlier one names, too, after a look at every row."""
    found = [manifest.check() for manifest in manifests]
    together = np.concatenate(found)
    repeated = np.ones(len(together), bool)
    repeated[np.unique(together, return_index=True)[1]] = False  # where each comes first
    ends = np.cumsum([len(own) for own in found])[:-1]
    return tuple(
        replace(manifest, repeated=np.sort(own[again]))
        for manifest, own, again in zip(manifests, found, np.split(repeated, ends), strict=True)
    )


@dataclass(frozen=True)
class NemoSource:
    """The recordings in the shards of manifests.

    Attributes:
        manifests: as they were opened.
        columns: those of all manifests that do not say where a recording lies.
    """

    manifests: "tuple[_Manifest, ...]"
    columns: pa.Schema

    def pages(self) -> Iterator[Page]:
        """The rows of each shard in the order of its members; memory grows with one shard.

        A row whose shard or member is not there is listed without a size.
        """
        for manifest in self.manifests:
            shard, members, version = "", dict[str, tuple[int, Member]](), ""
            for rows, table in manifest.rows(self.columns):
                page: list[tuple[int, int, Recording]] = []  # by position in the shard
                for uri, some in groupby(enumerate(rows), lambda each: each[1].uri):
                    if uri != shard:
                        shard, members = uri, _members(uri)
                        version = stat_file(uri).version if members else ""
                    page += sorted(
                        (_located(row, members, version) for row in some), key=lambda each: each[:2]
                    )
                columns = table.take(pa.array([row for _, row, _ in page], pa.int64()))
                yield Page([recording for *_, recording in page], columns)

    def split(self, parts: int) -> "Sequence[NemoSource]":
        """Some of the manifests each."""
        groups = in_groups(self.manifests, parts)
        return [replace(self, manifests=manifests) for manifests in groups]

    def covers(self, recordings: Sequence[Recording]) -> np.ndarray:
        """Those in its rows, which are read once more for this."""
        return is_in(hashes([recording.identity for recording in recordings]), self._hashes)

    @cached_property
    def _hashes(self) -> np.ndarray:
        found: list[np.ndarray] = []
        for manifest in self.manifests:
            for recordings, _ in manifest.rows(None):
                found.append(hashes([recording.identity for recording in recordings]))
        return np.sort(np.concatenate(found))


def _located(
    row: tuple[int, Recording], members: dict[str, tuple[int, Member]], version: str
) -> tuple[int, int, Recording]:
    """The position in its shard of a row's recording, the row, and the recording itself."""
    number, named = row
    if named.member not in members:
        return len(members), number, named
    position, member = members[named.member]
    found = Recording(
        named.uri,
        member.size,
        version,
        named.member,
        start=named.start,
        duration=named.duration,
        offset=member.offset,
    )
    return position, number, found


def _members(uri: str) -> dict[str, tuple[int, Member]]:
    """The members of a shard by name, as far as it can be read; none if it cannot be opened."""
    with (
        suppress(CorpusError),
        input_errors("--input", uri),
        closing(PackedFile(uri)) as file,
    ):
        return {each.name: (n, each) for n, each in enumerate(Shard(file).members())}
    return {}


@dataclass(frozen=True)
class _Manifest:
    """A manifest and its columns.

    Attributes:
        uri: absolute.
        schema: of all columns.
        repeated: sorted hashes of the recordings that an earlier manifest lists.
    """

    uri: str
    schema: pa.Schema
    repeated: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64), compare=False)

    @property
    def where(self) -> str:
        """The manifest, for messages."""
        return f"--input {self.uri}"

    @property
    def kept(self) -> pa.Schema:
        return layout_of(self.where, self.schema, PATH).kept(self.schema)

    def rows(self, columns: pa.Schema | None) -> Iterator[tuple[list[Recording], pa.Table]]:
        """What its rows name, page by page, with these columns, if asked for."""
        layout = layout_of(self.where, self.schema, PATH)
        names = {name for name in (*layout, SHARD) if name is not None}
        names |= set() if columns is None else set(self.kept.names)
        schema = pa.schema([field for field in self.schema if field.name in names])
        first, kept = 1, pa.schema([]) if columns is None else columns
        with input_errors("--input", self.uri), content_errors(self.where):
            for table in TableFile(self.uri).read(schema):
                uris = self._shards(table, first)
                paths = paths_of(table, layout, self.where, first)
                starts, durations = stretches_of(table, layout, self.where, first)
                recordings = [
                    Recording(uri, member=path, start=start, duration=duration)
                    for uri, path, start, duration in zip(
                        uris, paths, starts, durations, strict=True
                    )
                ]
                own = [name for name in table.column_names if name in kept.names]
                yield self._first(recordings, conform(table.select(own), kept))
                first += len(table)

    def _first(
        self, recordings: list[Recording], columns: pa.Table
    ) -> tuple[list[Recording], pa.Table]:
        """Those that no earlier manifest lists."""
        if not len(self.repeated):
            return recordings, columns
        wanted = ~is_in(hashes([each.identity for each in recordings]), self.repeated)
        rows = np.flatnonzero(wanted)
        return [recordings[row] for row in rows], columns.take(pa.array(rows))

    def _shards(self, table: pa.Table, first: int) -> list[str]:
        folder = self.uri.rpartition("/")[0]
        ids = table[SHARD].to_pylist()
        for row, value in enumerate(ids, first):
            if not str(value).isdecimal():  # text where another row has no number
                raise CorpusError(f"--input {self.uri}: row {row}: `{SHARD}` is {value!r}")
        return [join(folder, f"audio_{value}.tar") for value in ids]

    def check(self) -> np.ndarray:
        """Looks at every row; returns a hash of each recording.

        Raises:
            CorpusError: rows of a shard do not follow each other, or a recording is there twice.
        """
        seen, shard, identities = set[str](), "", set[str]()
        found = [np.empty(0, np.uint64)]
        for recordings, _ in self.rows(None):
            found.append(hashes([each.identity for each in recordings]))
            for recording in recordings:
                if recording.uri != shard:
                    shard, identities = recording.uri, set()
                    if shard in seen:
                        reason = f"rows of a shard do not follow each other; sort it by `{SHARD}`"
                        raise CorpusError(f"--input {self.uri}: {reason}")
                    seen.add(shard)
                if recording.identity in identities:
                    reason = f"a recording is there twice: {recording.identity}"
                    raise CorpusError(f"--input {self.uri}: {reason}")
                identities.add(recording.identity)
        return np.concatenate(found)
