"""The reference to one recording: where it lies and what identifies it; it holds no audio."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ser_core.schema import DURATION, MEMBER, OFFSET, SIZE, START


@dataclass(frozen=True, slots=True)
class Recording:
    """A file, a member of a packed one, or a stretch of either; no stage takes a string.

    Attributes:
        uri: absolute URI (or absolute local path) of the file.
        size: bytes; None if the file could not be seen.
        version: etag or modification time; empty if the file could not be seen.
        member: name within a packed file, as in a tar shard; None for a file by itself.
        name: the path as a manifest gave it; None where that is the URI.
        start: of the stretch to label, s; None for all of it.
        duration: of the stretch, s; None if it reaches to the end.
        offset: where the member begins in its file, bytes; None if that is not known.
    """

    uri: str
    size: int | None = None
    version: str = ""
    member: str | None = None
    name: str | None = None
    start: float | None = None
    duration: float | None = None
    offset: int | None = None

    @property
    def file(self) -> str:
        """The file or member that holds it: the same for all stretches of one.

        >>> Recording("s3://bucket/shard.tar", member="a.wav", start=1.0).file
        's3://bucket/shard.tar::a.wav'
        """
        return self.uri if self.member is None else f"{self.uri}::{self.member}"

    @property
    def identity(self) -> str:
        """What makes two references the same recording: the file, the member, the stretch.

        The stretch is written as a media fragment (W3C Media Fragments URI, 4.2.1).

        >>> Recording("/calls/1.wav", start=12.5, duration=4.0).identity
        '/calls/1.wav#t=12.5,16.5'
        """
        if self.start is None:
            return self.file
        end = "" if self.duration is None else f",{_seconds(self.start + self.duration)}"
        return f"{self.file}#t={_seconds(self.start)}{end}"

    @property
    def path(self) -> str:
        """What the user sees: the path as the manifest gave it, or the file with its member."""
        return self.file if self.name is None else self.name

    @property
    def file_id(self) -> str:
        """Digest of identity, size and version: changes when the content does.

        >>> Recording("/a.wav", 10, "1").file_id == Recording("/a.wav", 10, "2").file_id
        False
        """
        return _digest(self.identity, self.size, self.version)

    @property
    def file_id_of_0_1(self) -> str:
        """The `file_id` that release 0.1 gave it, which had no URI for a manifest's paths."""
        return _digest(self.path, self.size, self.version)


def reference_columns(recordings: Sequence[Recording]) -> dict[str, list[Any]]:
    """References as columns of a table (``plan_schema``)."""
    return {
        "path": [recording.name for recording in recordings],
        "uri": [recording.uri for recording in recordings],
        MEMBER.name: [recording.member for recording in recordings],
        SIZE.name: [recording.size for recording in recordings],
        OFFSET.name: [recording.offset for recording in recordings],
        START.name: [recording.start for recording in recordings],
        DURATION.name: [recording.duration for recording in recordings],
    }


def recordings_of(table: pa.Table) -> list[Recording]:
    """The references in a table with ``reference_columns``; they lack the version."""
    names = ("uri", SIZE, MEMBER, "path", START, DURATION, OFFSET)
    columns = (table[getattr(name, "name", name)].to_pylist() for name in names)
    return [
        Recording(uri, size, "", member, name, start, duration, offset)
        for uri, size, member, name, start, duration, offset in zip(*columns, strict=True)
    ]


def _seconds(value: float) -> str:
    """A time to the microsecond, without trailing zeros."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _digest(identity: str, size: int | None, version: str) -> str:
    content = f"{identity}\0{size}\0{version}".encode()
    return hashlib.blake2b(content, digest_size=16).hexdigest()
