"""The reference to one recording: where it lies and what identifies it; it holds no audio."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ser_core.schema import MEMBER, SIZE


@dataclass(frozen=True, slots=True)
class Recording:
    """A file, or a member of a packed one; every stage takes this, and no stage takes a string.

    Attributes:
        uri: absolute URI (or absolute local path) of the file.
        size: bytes; None if the file could not be seen.
        version: etag or modification time; empty if the file could not be seen.
        member: name within a packed file, as in a tar shard; None for a file by itself.
        name: the path as a manifest gave it; None where that is the URI.
    """

    uri: str
    size: int | None = None
    version: str = ""
    member: str | None = None
    name: str | None = None

    @property
    def identity(self) -> str:
        """What makes two references the same recording: the absolute URI, with the member.

        >>> Recording("s3://bucket/shard.tar", member="a.wav").identity
        's3://bucket/shard.tar::a.wav'
        """
        return self.uri if self.member is None else f"{self.uri}::{self.member}"

    @property
    def path(self) -> str:
        """What the user sees: the path as the manifest gave it, or the identity."""
        return self.identity if self.name is None else self.name

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
    }


def recordings_of(table: pa.Table) -> list[Recording]:
    """The references in a table with ``reference_columns``; they lack the version."""
    columns = (table[name].to_pylist() for name in ("uri", SIZE.name, MEMBER.name, "path"))
    rows = zip(*columns, strict=True)
    return [Recording(uri, size, member=member, name=name) for uri, size, member, name in rows]


def _digest(identity: str, size: int | None, version: str) -> str:
    content = f"{identity}\0{size}\0{version}".encode()
    return hashlib.blake2b(content, digest_size=16).hexdigest()
