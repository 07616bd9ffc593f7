"""Recordings → short MP3 clips for players within a page; it writes no file."""

import io
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from ser_core.audio.constants import SAMPLING_RATE
from ser_core.errors import RecordingError, Status
from ser_core.sources.decoder import Decoder, DecoderSettings
from ser_core.sources.forms import recordings_of_identities


def clips(identities: Iterable[str]) -> dict[str, bytes | RecordingError]:
    """What the classifier heard of recordings: the first 6 s, mono, 16 kHz, as MP3 of about 30 kB.

    They are decoded as they are for labelling, each in a process that it may crash.

    Args:
        identities: of recordings, as the column ``uri`` of labels has them; with a stretch, its
            first 6 s.

    Returns:
        By identity, in their order: the clip, or why there is none.
    """
    identities = list(dict.fromkeys(identities))
    by_storage: dict[Any, list[str]] = {}
    for identity in identities:
        by_storage.setdefault(urlsplit(identity)[:2], []).append(identity)
    made: dict[str, bytes | RecordingError] = {}
    with Decoder(DecoderSettings()) as decoder:
        for first, *others in by_storage.values():
            made |= _clips(decoder, [first])
            if getattr(made[first], "status", None) is Status.UNAVAILABLE:  # a minute each
                error = RecordingError(Status.UNAVAILABLE, "its storage did not answer for another")
                made |= dict.fromkeys(others, error)
            else:
                made |= _clips(decoder, others)
    return {identity: made[identity] for identity in identities}


def _clips(decoder: Decoder, identities: Sequence[str]) -> dict[str, bytes | RecordingError]:
    empty = RecordingError(Status.EMPTY, "the recording has no samples")
    made: dict[str, bytes | RecordingError] = dict.fromkeys(identities, empty)
    recordings = recordings_of_identities(identities)
    for decoded in decoder.decode(recordings):
        identity = recordings[decoded.recording].identity
        if isinstance(decoded.result, RecordingError):
            made[identity] = decoded.result
        elif decoded.segments:
            made[identity] = as_mp3(decoded.segments[0].waveform)
    return made


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
