"""A tar file → its members, header by header; nothing is extracted.

tarfile parses the headers. Unlike tarfile, this tells a file that was cut or damaged from one that
has ended, and reads on behind an end marker, where archives were concatenated.
"""

import tarfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa

from ser_core.errors import RecordingError, Status, one_line
from ser_core.sources.packed_file import PackedFile, no_longer_there
from ser_core.storage.filesystem import printable

_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}  # by their first bytes
# Of one header with its extensions: tarfile reads them at once, and needs seconds for hostile ones.
_HEADER_BYTES = 64 << 10
_MAX_MEMBER_BYTES = 2 << 30
_PADDING_BYTES = 10 << 20  # of zeros behind the last member; tar writes 10 kB
_SKIPPED_BYTES = 1 << 20  # at a time
_ZEROS = bytes(tarfile.BLOCKSIZE)
_ENCODING, _ERRORS = "utf-8", "surrogateescape"


class Member(NamedTuple):
    """A member of a shard that is no folder.

    Attributes:
        path: its name as the shard has it, printable.
        name: the same where no member before has it; then with ``#2``, ``#3``, …
        size: bytes.
        offset: where it begins in the file; None if the file is compressed, and for a member that
            is not regular.
        is_regular: rather than a link, a device, or a file with holes.
    """

    path: str
    name: str
    size: int
    offset: int | None
    is_regular: bool


class Shard:
    """A tar file that is read once, forwards; a plain one also at any offset.

    Attributes:
        is_compressed: whether members can be reached only in their order.
        damage: why `members` ended before the shard did.
    """

    def __init__(self, file: PackedFile) -> None:
        """Looks at the first bytes for a compression.

        Raises:
            Exception: what the storage raises, of whatever type.
        """
        self._file = file
        magic = self._file.read(4)
        kind = next((kind for start, kind in _COMPRESSIONS.items() if magic.startswith(start)), "")
        self._size = self._file.seek(0, 2)
        self._file.seek(0)
        self._stream: Any = self._file
        if kind:
            self._stream = pa.CompressedInputStream(pa.PythonFile(self._file, "r"), kind)
        self.is_compressed = bool(kind)
        self.damage: RecordingError | None = None
        self._position = 0

    def members(self) -> Iterator[Member]:
        """The members in their order, until the shard ends or `damage` says why it cannot be read.

        Raises:
            Exception: what the storage raises, of whatever type.
        """
        names: dict[str, int] = {}
        try:
            for info in self._headers():
                if not info.isdir():
                    yield self._member(info, names)
        except RecordingError as error:
            self.damage = error

    def _member(self, info: tarfile.TarInfo, names: dict[str, int]) -> Member:
        path = printable(info.name)
        is_regular = info.isreg() and not info.issparse()
        offset = info.offset_data if is_regular and not self.is_compressed else None
        return Member(path, _unique(path, names), info.size, offset, is_regular)

    def read(self, member: Member) -> bytes:
        """The content of the member that `members` has just given.

        Raises:
            RecordingError: it is not regular, too large, cut or damaged.
            Exception: what the storage raises, of whatever type.
        """
        if not member.is_regular:
            raise _not_regular()
        return self._read(member.size)

    def read_at(self, offset: int | None, size: int) -> bytes:
        """The content of any member of a plain tar file.

        Args:
            offset: as `Member` has it.
            size: as `Member` has it.

        Raises:
            RecordingError: it is not regular, too large, cut, or no longer there.
            Exception: what the storage raises, of whatever type.
        """
        if offset is None:
            raise _not_regular()
        self._seek(max(0, offset - tarfile.BLOCKSIZE))
        try:
            header = tarfile.TarInfo.frombuf(self._take(tarfile.BLOCKSIZE), _ENCODING, _ERRORS)
        except tarfile.HeaderError:
            raise no_longer_there() from None
        if not header.isreg() or header.size != size:
            raise no_longer_there()
        return self._read(size)

    def _headers(self) -> Iterator[tarfile.TarInfo]:
        tar = _Tar(fileobj=self._header_file(b""), encoding=_ENCODING, errors=_ERRORS)
        padding = 0  # bytes of zeros
        while padding < _PADDING_BYTES:
            start = self._position
            block = self._take(tarfile.BLOCKSIZE)
            if block == _ZEROS:  # the end, unless archives were concatenated
                padding += len(block)
                continue
            if len(block) < tarfile.BLOCKSIZE:
                if padding:
                    return
                raise _cut(start)
            tar.fileobj = self._header_file(block)
            try:
                info = tarfile.TarInfo.fromtarfile(tar)
            except Exception as error:  # of any type: tarfile trusts what a header says
                if self._file.failure:
                    raise self._file.failure from None
                if padding:  # what stands behind the end is no archive
                    return
                raise _damaged(start, error) from None
            if info.size < 0 or tar.offset <= start:
                raise _damaged(start, "a negative size")
            padding = 0
            yield info
            self._seek(tar.offset)

    def _header_file(self, block: bytes) -> Any:
        return _HeaderFile(self, block)

    def _read(self, size: int) -> bytes:
        if size > _MAX_MEMBER_BYTES:
            reason = f"{size:,} bytes; at most {_MAX_MEMBER_BYTES:,} are read of a shard's member"
            raise RecordingError(Status.TOO_LARGE, reason)
        data = self._take(size)
        if len(data) < size:
            raise _cut(self._position)
        return data

    def _take(self, size: int) -> bytes:
        """The next bytes; fewer only at the end."""
        parts = []
        while size and (data := self._decompressed(size)):
            parts.append(data)
            size -= len(data)
            self._position += len(data)
        return b"".join(parts) if len(parts) != 1 else parts[0]

    def _decompressed(self, size: int) -> bytes:
        try:
            data: bytes = self._stream.read(size)
        except Exception as error:
            if self._file.failure:
                raise self._file.failure from None
            if self._file.at_end:
                raise _cut(self._position) from None
            where = f"the compressed data is damaged behind byte {self._position:,}"
            raise RecordingError(Status.DECODE_ERROR, f"{where} ({one_line(error)})") from None
        return data

    def _seek(self, position: int) -> None:
        """Goes to a position, which in a compressed file lies ahead."""
        if not self.is_compressed:
            if position > self._size:
                raise _cut(self._size)
            self._position = self._file.seek(position)
            return
        while self._position < position:
            if not self._take(min(_SKIPPED_BYTES, position - self._position)):
                raise _cut(self._position)


class _Tar(tarfile.TarFile):
    """Holds what tarfile's parser keeps between headers."""

    def next(self) -> None:
        """Leaves the first header, which the constructor would read, for later."""


class _HeaderFile:
    """A shard, as far as one header may reach; its first block was read already."""

    def __init__(self, shard: Shard, block: bytes) -> None:
        self._shard = shard
        self._block = block
        self._left = _HEADER_BYTES

    def read(self, size: int) -> bytes:
        if self._block:
            block, self._block = self._block, b""
            return block
        self._left -= size
        if size < 0 or self._left < 0:
            raise tarfile.ReadError(f"a header of more than {_HEADER_BYTES:,} bytes")
        return self._shard._take(size)

    def tell(self) -> int:
        return self._shard._position


def _unique(name: str, names: dict[str, int]) -> str:
    """A name that no member before has.

    >>> names: dict[str, int] = {}
    >>> [_unique(name, names) for name in ("a.wav", "a.wav", "a.wav#2", "a.wav")]
    ['a.wav', 'a.wav#2', 'a.wav#2#2', 'a.wav#3']
    """
    unique = name
    while unique in names:
        names[name] += 1
        unique = f"{name}#{names[name]}"
    names[unique] = 1
    return unique


def _not_regular() -> RecordingError:
    reason = "not a regular file: links, devices and sparse files in a shard are not read"
    return RecordingError(Status.DECODE_ERROR, reason)


def _damaged(start: int, error: object) -> RecordingError:
    if isinstance(error, RecordingError):
        return error
    what = f"damaged at byte {start:,}" if start else "no tar file"
    return RecordingError(Status.DECODE_ERROR, f"the shard is {what} ({one_line(error)})")


def _cut(position: int) -> RecordingError:
    return RecordingError(Status.TRUNCATED, f"the shard is cut: it ends at byte {position:,}")
