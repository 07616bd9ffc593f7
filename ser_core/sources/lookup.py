"""The `uri` of a row → the recording as it is now; it reads no audio."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

from ser_core.errors import CorpusError, RecordingError, Status
from ser_core.sources.forms import open_source, packed_file_of
from ser_core.sources.inputs import input_errors
from ser_core.sources.interface import InputOptions
from ser_core.sources.named_files import NamedFiles
from ser_core.sources.recording import Recording

_STRETCH = re.compile(r"(.+)#t=(\d+(?:\.\d+)?)(?:,(\d+(?:\.\d+)?))?", re.DOTALL)
_ANY_NAME = InputOptions(include=("*",))  # rows of --include have names of any kind


def look_up(identities: Collection[str]) -> dict[str, Recording | RecordingError]:
    """The recordings of some rows, or why they cannot be seen.

    Packed files are listed again, since a row does not say where in its file the member lies.

    Returns:
        By identity; members in the order of their file, as `forms.read_members` wants them.

    Raises:
        RunError: storage cannot be reached.
    """
    alone: list[str] = []
    packed: defaultdict[str, list[str]] = defaultdict(list)
    for identity in dict.fromkeys(identities):
        uri = packed_file_of(identity)
        (alone if uri is None else packed[uri]).append(identity)
    found = _by_themselves(alone) if alone else {}
    for uri, members in packed.items():
        found |= _members(uri, members)
    return found


def _by_themselves(identities: Sequence[str]) -> dict[str, Recording | RecordingError]:
    """Files and stretches of files; a file whose name reads like a stretch comes first."""
    matches = {identity: _STRETCH.fullmatch(identity) for identity in identities}
    files = [match[1] for match in matches.values() if match]
    uris = list(dict.fromkeys([*identities, *files]))
    with input_errors("the recordings of --labels", uris[0]), NamedFiles() as named:
        entries = dict(zip(uris, named.entries(uris), strict=True))
    found: dict[str, Recording | RecordingError] = {}
    for identity, match in matches.items():
        if entries[identity].size is not None:
            found[identity] = Recording(*entries[identity])
        elif match and entries[match[1]].size is not None:
            found[identity] = replace(Recording(*entries[match[1]]), **_stretch(match))
        else:
            found[identity] = RecordingError(Status.NOT_FOUND, "not there, or not to be seen")
    return found


def _stretch(match: re.Match[str]) -> dict[str, Any]:
    start, end = float(match[2]), match[3]
    return {"start": start, "duration": None if end is None else float(end) - start}


def _members(uri: str, identities: list[str]) -> dict[str, Recording | RecordingError]:
    wanted: defaultdict[str, list[str]] = defaultdict(list)  # several stretches of a member
    for identity in identities:
        match = _STRETCH.fullmatch(identity)
        for file in {identity, match[1] if match else identity}:
            wanted[file].append(identity)
    found: dict[str, Recording | RecordingError] = {}
    reason = RecordingError(Status.NOT_FOUND, "no longer in its file")
    try:
        for member in _listed(uri):
            for identity in wanted.get(member.file, ()):
                found[identity] = _part_of(member, identity)
            if len(found) == len(identities):
                break
    except CorpusError as error:
        reason = RecordingError(Status.NOT_FOUND, str(error))
    return found | {identity: reason for identity in identities if identity not in found}


def _listed(uri: str) -> Iterator[Recording]:
    for page in open_source([uri], _ANY_NAME).pages():
        yield from page.recordings


def _part_of(member: Recording, identity: str) -> Recording:
    match = None if member.file == identity else _STRETCH.fullmatch(identity)
    return replace(member, **_stretch(match)) if match else member
