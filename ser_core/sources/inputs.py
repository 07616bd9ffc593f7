"""What the user typed as ``--input`` → URIs, and how messages name it; it knows no form."""

import itertools
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa

from ser_core.errors import CorpusError, RunError, SerError, one_line
from ser_core.sources.patterns import Glob, expand_braces, parse_glob
from ser_core.storage.filesystem import absolute, is_local, is_transient, local_path
from ser_core.storage.folder import unreachable
from ser_core.storage.listing import is_file, list_files

_MAX_FILES = 1_000_000  # spelled out by braces: they are held in memory
_SHOWN = 3  # inputs in a message


def expand(typed: str, extensions: Collection[str]) -> list[str]:
    """The absolute URIs that an input stands for.

    Braces are alternatives and ranges. A pattern of files with one of the extensions becomes the
    files, sorted; one of recordings stays a pattern, since its listing may be long.

    Args:
        typed: as the user gave it.
        extensions: of files that are no recordings by themselves, as ``tar`` and ``csv``.

    Raises:
        CorpusError: it names nothing, or too much.
        Exception: what the file system raises, of whatever type.
    """
    if not typed.strip():
        raise CorpusError("--input: an empty name; the working directory is --input .")
    if is_local(typed) and os.path.lexists(local_path(typed)):
        return [absolute(typed)]  # whatever characters its name has
    spelled = list(itertools.islice(expand_braces(typed), _MAX_FILES + 1))
    if len(spelled) > _MAX_FILES:
        raise CorpusError(f"--input {typed}: names more than {_MAX_FILES:,} files")
    uris: dict[str, None] = {}  # in order, each once
    for uri in map(absolute, spelled):
        glob = parse_glob(uri)
        files = [uri] if glob is None or not has_extension(uri, extensions) else _files(uri, glob)
        uris |= dict.fromkeys(files)
    return list(uris)


def _files(uri: str, glob: Glob) -> list[str]:
    matches = glob.compiled("--input").match
    unseen: list[str] = []
    entries = list_files(glob.root, lambda path: bool(matches(path)), glob.names_hidden, unseen)
    files = sorted(entry.path for entry in entries)
    if unseen:
        raise RunError(
            f"--input {uri}: {unseen[0]} cannot be looked into; restore it, or name the others"
        )
    if not files and is_file(uri):
        return [uri]  # an object whose name has such characters
    if not files:
        raise CorpusError(f"--input {uri}: no file matches")
    return files


def has_extension(uri: str, extensions: Collection[str]) -> bool:
    """Whether a name has one of the extensions, which may have two parts.

    >>> has_extension("s3://bucket/A.TAR.GZ", ["tar.gz"]), has_extension("/data/tar", ["tar"])
    (True, False)
    """
    return uri.lower().endswith(tuple(f".{extension}" for extension in extensions))


def shown(inputs: Sequence[str]) -> str:
    """Inputs as a message names them.

    >>> shown(["a", "b"]), shown(["a", "b", "c", "d", "e"])
    ('a b', 'a b c and 2 more')
    """
    more = len(inputs) - _SHOWN
    return " ".join(inputs[:_SHOWN]) + (f" and {more:,} more" if more > 0 else "")


@contextmanager
def input_errors(flag: str, uri: str) -> Iterator[None]:
    """Raises what the storage of an input raises in one line; a bug passes as it is.

    Args:
        flag: the command-line flag that gave the URI, as in ``--input``.
        uri: as the user gave it.

    Raises:
        CorpusError: it is missing or cannot be read.
        RunError: its storage cannot be reached.
    """
    try:
        yield
    except SerError:
        raise
    except FileNotFoundError:
        raise CorpusError(f"{flag} {uri}: there is no such file or folder") from None
    except Exception as error:
        if is_local(uri) and not isinstance(error, OSError | UnicodeDecodeError | pa.ArrowInvalid):
            raise  # remote file systems share no base class for what they raise
        if is_transient(error):
            raise unreachable(f"{flag} {uri}", error) from None
        raise CorpusError(f"{flag} {uri}: cannot be read ({one_line(error)})") from None
