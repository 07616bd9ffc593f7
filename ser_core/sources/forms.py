"""``--input`` → its form, and a recording → its bytes; forms are found, not registered."""

import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import BinaryIO, cast

import pyarrow as pa

from ser_core import sources
from ser_core.errors import CorpusError, RecordingError, SerError, Status, one_line
from ser_core.sources.interface import Form, InputOptions, PackedForm, Page, Source
from ser_core.sources.recording import Recording
from ser_core.storage.filesystem import absolute, is_local, is_transient
from ser_core.storage.folder import unreachable
from ser_core.storage.reading import Stopwatch, open_file


def open_source(uri: str, options: InputOptions = InputOptions()) -> Source:
    """Opens an input, whatever its form.

    Args:
        uri: as the user gave it.
        options: how it is read.

    Raises:
        CorpusError: no form recognizes it, or it cannot be used.
        RunError: its storage cannot be reached.
    """
    with input_errors("--input", uri):
        return _form_of(absolute(uri)).open_source([absolute(uri)], options)


def open_recording(recording: Recording, stopwatch: Stopwatch) -> AbstractContextManager[BinaryIO]:
    """Opens a file for decoding; its bytes are fetched only as far as they are read.

    Args:
        recording: not a member of a packed file.
        stopwatch: receives the time that storage took.

    Raises:
        RecordingError: missing, forbidden, or out of reach after retries.
    """
    return open_file(recording.uri, recording.size, stopwatch)


def read_members(
    uri: str, recordings: Sequence[Recording], stopwatch: Stopwatch
) -> Iterator[bytes | RecordingError]:
    """Reads members of a packed file in one pass; see `PackedForm.read_members`."""
    try:
        yield from _packed_form_of(uri).read_members(uri, recordings, stopwatch)
    except RecordingError as error:
        yield from [error] * len(recordings)


def list_pages(uri: str, source: Source) -> Iterator[Page]:
    """Lists a source page by page.

    Raises:
        CorpusError: it cannot be listed.
        RunError: its storage cannot be reached.
    """
    with input_errors("--input", uri):
        yield from source.pages()


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


def _form_of(uri: str) -> Form:
    for form in _forms():
        if form.recognizes(uri):
            return form
    descriptions = ", ".join(form.DESCRIPTION for form in _forms())
    raise CorpusError(f"--input {uri}: not one of: {descriptions}")


def _packed_form_of(uri: str) -> PackedForm:
    for form in _forms():
        if hasattr(form, "read_members") and form.recognizes(uri):
            return cast(PackedForm, form)
    raise RecordingError(Status.UNAVAILABLE, "no input form opens its file")


def _forms() -> list[Form]:
    infos = pkgutil.iter_modules(sources.__path__, f"{sources.__name__}.")
    modules = [importlib.import_module(info.name) for info in infos]
    return [cast(Form, module) for module in modules if hasattr(module, "recognizes")]
