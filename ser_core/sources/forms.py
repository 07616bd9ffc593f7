"""``--input`` → its form, and a recording → its bytes; forms are found, not registered."""

import importlib
import pkgutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import BinaryIO, cast

from ser_core import sources
from ser_core.errors import CorpusError, RecordingError, Status
from ser_core.sources import file, path_list
from ser_core.sources.combined import CombinedSource, Opened, columns_of
from ser_core.sources.file import is_recording
from ser_core.sources.inputs import expand, has_extension, input_errors, shown
from ser_core.sources.interface import Form, InputOptions, PackedForm, Source
from ser_core.sources.recording import Recording
from ser_core.sources.skipped import extension_of
from ser_core.storage.reading import Stopwatch, open_file

_DEFAULTS = InputOptions()


def open_source(inputs: Sequence[str], options: InputOptions = _DEFAULTS) -> Source:
    """Opens inputs of any forms as one source.

    An input is a file, a folder or prefix, or a pattern of files: ``*`` and ``?`` within a name,
    ``**`` across folders, ``{a,b}`` and ``{000..999}``. A list of packed files stands for them.
    Files that one input names and that end alike are of one form. A recording that several inputs
    lead to is listed once.

    Args:
        inputs: as the user gave them; a text is one.
        options: how they are read.

    Raises:
        CorpusError: no form recognizes an input, or it cannot be used.
        RunError: its storage cannot be reached.
    """
    inputs = [inputs] if isinstance(inputs, str) else inputs  # and not its characters
    if not inputs:
        raise CorpusError("--input: nothing is named")
    forms = _forms()
    uris: dict[Form, dict[str, None]] = {}  # in order, each once
    for typed in inputs:
        with input_errors("--input", typed):
            for uri, form in _recognized(typed, forms, options):
                uris.setdefault(form, {})[uri] = None
    opened = []
    for form, names in uris.items():
        with input_errors("--input", shown(list(names))):
            opened.append(Opened(list(names), form.open_source(list(names), options)))
    return CombinedSource(opened, columns_of(opened))


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
    done = 0
    try:
        for member in _packed_form_of(uri).read_members(uri, recordings, stopwatch):
            yield member
            done += 1
    except RecordingError as error:
        yield from [error] * (len(recordings) - done)


def packed_file_of(identity: str) -> str | None:
    """The packed file in the identity of one of its members; None if it names no member.

    >>> packed_file_of("s3://bucket/calls-1.tar::a/1.wav"), packed_file_of("/calls/1::2.wav")
    ('s3://bucket/calls-1.tar', None)
    """
    packed = cast(list[PackedForm], list(filter(_is_packed, _forms())))
    extensions = [name for form in packed for name in form.EXTENSIONS]
    parts = identity.split("::")
    files = ("::".join(parts[:count]) for count in range(1, len(parts)))
    return next((uri for uri in files if has_extension(uri, extensions)), None)


def _recognized(
    typed: str, forms: Sequence[Form], options: InputOptions
) -> Iterator[tuple[str, Form]]:
    """The URIs that an input stands for, with their forms."""
    extensions = {name for form in forms for name in getattr(form, "EXTENSIONS", ())}
    form_of_extension: dict[str, Form] = {}
    for uri in _without_lists(expand(typed, extensions), extensions, options):
        if not has_extension(uri, extensions):
            yield uri, _form_of(uri, forms, options)
            continue
        extension = extension_of(uri)
        if extension not in form_of_extension:
            form_of_extension[extension] = _form_of(uri, forms, options)
        yield uri, form_of_extension[extension]


def _without_lists(
    uris: Iterable[str], extensions: set[str], options: InputOptions
) -> Iterator[str]:
    """The URIs, with what is in lists of packed files or tables instead of those lists."""
    others = extensions.difference(path_list.EXTENSIONS)
    for uri in uris:
        named = path_list.files_in(uri, others, options) if path_list.recognizes(uri) else []
        yield from named or [uri]


def _form_of(uri: str, forms: Sequence[Form], options: InputOptions) -> Form:
    for form in forms:
        if form.recognizes(uri):
            return form
    if is_recording(uri, options.include):
        return cast(Form, file)
    descriptions = ", ".join(form.DESCRIPTION for form in forms)
    raise CorpusError(f"--input {uri}: not one of: {descriptions}")


def _packed_form_of(uri: str) -> PackedForm:
    """By the name alone: its storage may be out of reach by now."""
    for form in filter(_is_packed, _forms()):
        packed = cast(PackedForm, form)
        if has_extension(uri, packed.EXTENSIONS):
            return packed
    raise RecordingError(Status.UNAVAILABLE, "no input form opens its file")


def _is_packed(form: Form) -> bool:
    return hasattr(form, "read_members")


def _forms() -> list[Form]:
    """The modules that are forms; those that take what no other does come last."""
    infos = pkgutil.iter_modules(sources.__path__, f"{sources.__name__}.")
    modules = [importlib.import_module(info.name) for info in infos]
    forms = [cast(Form, module) for module in modules if hasattr(module, "recognizes")]
    return sorted(forms, key=lambda form: getattr(form, "LAST_RESORT", False))
