"""Recordings → short MP3 clips for players within a page; it writes no file."""

import io
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from ser_core.audio.constants import SAMPLING_RATE
from ser_core.errors import RecordingError, RunError, Status, UsageError, one_line
from ser_core.reporting.html import data_uri
from ser_core.sources.decoder import Decoder, DecoderSettings
from ser_core.sources.lookup import look_up
from ser_core.sources.recording import Recording


def clips(identities: Iterable[str]) -> dict[str, bytes | RecordingError]:
    """What the classifier heard of recordings: the first 6 s, mono, 16 kHz, as MP3 of about 30 kB.

    They are decoded as they are for labelling, each in a process that it may crash.

    Args:
        identities: of recordings, as the column ``uri`` of labels has them; with a stretch, its
            first 6 s.

    Returns:
        By identity, in their order: the clip, or why there is none.
    """
    by_storage: dict[Any, list[str]] = {}
    names = list(dict.fromkeys(identities))
    for identity in names:
        by_storage.setdefault(urlsplit(identity)[:2], []).append(identity)
    made: dict[str, bytes | RecordingError] = {}
    with Decoder(DecoderSettings()) as decoder:
        for together in by_storage.values():
            made |= _clips(decoder, together)
    return {identity: made[identity] for identity in names}


def _clips(decoder: Decoder, identities: Sequence[str]) -> dict[str, bytes | RecordingError]:
    """Clips of recordings in one storage, which is waited for once."""
    try:
        found = look_up(identities)
    except (RunError, UsageError) as error:
        return dict.fromkeys(identities, RecordingError(Status.UNAVAILABLE, str(error)))
    empty = RecordingError(Status.EMPTY, "the recording has no samples")
    clips: dict[str, bytes | RecordingError] = dict.fromkeys(identities, empty)
    clips |= {name: why for name, why in found.items() if isinstance(why, RecordingError)}
    there = {name: each for name, each in found.items() if isinstance(each, Recording)}
    names = list(there)
    for decoded in decoder.decode(list(there.values())):
        if isinstance(decoded.result, RecordingError):
            clips[names[decoded.recording]] = decoded.result
        elif decoded.segments:
            clips[names[decoded.recording]] = as_mp3(decoded.segments[0].waveform)
    return clips


def as_mp3(waveform: np.ndarray) -> bytes:
    """A waveform at 16 kHz as an MP3 file; int16, or float with full scale 1, which is clipped.

    >>> import soundfile
    >>> mp3 = as_mp3(np.zeros(32_000, np.float32))
    >>> soundfile.info(io.BytesIO(mp3)).duration
    2.0
    """
    import soundfile

    if waveform.dtype.kind == "f":  # the encoder aborts the process at what is not finite
        waveform = np.clip(np.nan_to_num(waveform), -1, 1)
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, SAMPLING_RATE, format="MP3")
    return buffer.getvalue()


def player(clip: bytes | RecordingError | None) -> dict[str, str | None]:
    """What a page shows beside a recording: its clip, or why there is none.

    Args:
        clip: as `clips` returns it; None where nobody wanted one.
    """
    match clip:
        case bytes():
            return {"audio": data_uri("audio/mpeg", clip), "why": ""}
        case RecordingError():
            return {"audio": None, "why": f"no clip: {clip.status}: {one_line(clip)}"}
        case _:
            return {"audio": None, "why": ""}
