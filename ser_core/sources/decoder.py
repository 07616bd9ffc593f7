"""Recordings → waveforms, decoded in child processes that a recording may crash or exhaust."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from queue import Empty, LifoQueue
from typing import NamedTuple

import numpy as np
from fsspec.registry import known_implementations

from ser_core.audio.constants import FULL_SCALE
from ser_core.audio.decode import DecodedAudio, check_decoders, decode
from ser_core.errors import RecordingError, RunError, Status, one_line
from ser_core.isolation import (
    ChildCrashedError,
    ChildError,
    ChildMemoryError,
    ChildTimeoutError,
    IsolatedFunction,
    Limits,
    Pause,
    PauseTimeoutError,
)
from ser_core.sources.forms import open_recording
from ser_core.sources.recording import Recording
from ser_core.storage.reading import Stopwatch

_CONCURRENT_RECORDINGS = 4  # one recording's bytes arrive while another is decoded
# Of one wait for storage, whose requests have a deadline of their own; only what ignores it, as a
# dead network file system does, is stopped by this.
_STORAGE_SECONDS = 180.0
_OUT_OF_REACH = 12  # recordings in a row that were not reached: the storage is down
_SECONDS = 60.0
_SECONDS_WHOLE = 600.0
_GIB = 1 << 30


@dataclass(frozen=True)
class DecoderSettings:
    """How recordings are decoded.

    Attributes:
        whole: to their end rather than their first 6 s.
        timeout: s for one recording, without waiting for storage; None chooses.
        memory: GiB for one recording.
    """

    whole: bool = False
    timeout: float | None = None
    memory: float = 2.0

    @property
    def limits(self) -> Limits:
        """What the decoding of one recording may use."""
        seconds = self.timeout or (_SECONDS_WHOLE if self.whole else _SECONDS)
        return Limits(seconds, _STORAGE_SECONDS, int(self.memory * _GIB))


class Decoded(NamedTuple):
    """What became of one recording.

    Attributes:
        result: its audio, or why there is none. The waveform is int16 where that is lossless.
        fetch_seconds: waiting for storage.
        decode_seconds: the rest.
    """

    result: DecodedAudio | RecordingError
    fetch_seconds: float
    decode_seconds: float


class Decoder:
    """Decodes several recordings at once, each in a child process that may crash.

    ::

        with Decoder(DecoderSettings()) as decoder:
            for decoded in decoder.decode(recordings):
                ...
    """

    def __init__(self, settings: DecoderSettings, concurrent: int = _CONCURRENT_RECORDINGS) -> None:
        self._settings = settings
        self._idle: LifoQueue[IsolatedFunction] = LifoQueue()
        self._pool = ThreadPoolExecutor(concurrent)

    def __enter__(self) -> "Decoder":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        while not self._idle.empty():
            self._idle.get().close()

    def decode(self, recordings: Sequence[Recording]) -> Iterator[Decoded]:
        """Decodes recordings, in their order.

        Once several in a row could not be reached, the others are not tried: each would wait for
        the deadline of its requests.

        Raises:
            RuntimeError: a bug, with its traceback.
        """
        return self._pool.map(partial(self._decode_if_reachable, _Outage()), recordings)

    def check(self) -> None:
        """Decodes a recording that is known to be good.

        Raises:
            RunError: that fails as well, so the machine is to blame, or the limits.
        """
        child = IsolatedFunction(_check_in_child, self._settings.limits, [__name__])
        try:
            child(None)
        except (ChildError, RecordingError, RuntimeError) as error:
            reason = "on this machine and with these limits, no recording can be decoded"
            raise RunError(f"{reason} ({type(error).__name__}: {one_line(error)})") from None
        finally:
            child.close()

    def _decode_if_reachable(self, outage: "_Outage", recording: Recording) -> Decoded:
        if outage.in_a_row >= _OUT_OF_REACH:
            reason = "the storage did not answer for the recordings before this one"
            return Decoded(RecordingError(Status.UNAVAILABLE, reason), 0.0, 0.0)
        decoded = self._decode(recording)
        outage.count(decoded)
        return decoded

    def _decode(self, recording: Recording) -> Decoded:
        child = self._child(recording)
        started = time.perf_counter()
        try:
            return _decode_isolated(child, (recording, self._settings.whole))
        except RecordingError as error:
            return Decoded(error, 0.0, time.perf_counter() - started)
        finally:
            self._idle.put(child)

    def _child(self, recording: Recording) -> IsolatedFunction:
        with suppress(Empty):
            return self._idle.get_nowait()
        preload = [__name__, *_file_system_modules(recording.uri)]
        return IsolatedFunction(_decode_in_child, self._settings.limits, preload)


class _KilledError(RecordingError):
    """Another process killed the decoder, twice: neither the recording nor its storage is bad."""

    def __init__(self) -> None:
        reason = "another process killed the decoder twice; the machine may be out of memory"
        super().__init__(Status.UNAVAILABLE, reason)


class _Outage:
    """Counts the recordings in a row whose storage did not answer."""

    def __init__(self) -> None:
        self.in_a_row = 0

    def count(self, decoded: Decoded) -> None:
        status = getattr(decoded.result, "status", Status.OK)
        out_of_reach = status is Status.UNAVAILABLE and not isinstance(decoded.result, _KilledError)
        self.in_a_row = self.in_a_row + 1 if out_of_reach else 0


def _file_system_modules(uri: str) -> list[str]:
    """What a child would import at its first request."""
    known = known_implementations.get(uri.partition("://")[0])
    return [known["class"].rpartition(".")[0]] if known else []


def _decode_isolated(child: IsolatedFunction, job: tuple[Recording, bool]) -> Decoded:
    """Decodes in the child, and says why that failed.

    Raises:
        RecordingError: crashed twice, too slow, too large, or the storage does not answer.
    """
    try:
        return _decode_up_to_twice(child, job)
    except ChildCrashedError as error:
        if error.killed:
            raise _KilledError from None
        raise RecordingError(Status.CRASHED, f"the decoder crashed ({error})") from None
    except ChildTimeoutError as error:
        reason = f"decoding took more than {error} (--decode-timeout)"
        raise RecordingError(Status.TIMEOUT, reason) from None
    except ChildMemoryError as error:
        reason = f"decoding needs more than {error} (--decode-memory)"
        raise RecordingError(Status.TOO_LARGE, reason) from None
    except PauseTimeoutError as error:
        reason = f"the storage did not answer for {error}"
        raise RecordingError(Status.UNAVAILABLE, reason) from None


def _decode_up_to_twice(child: IsolatedFunction, job: tuple[Recording, bool]) -> Decoded:
    """Tries a new process where earlier recordings may have damaged or filled the first one."""
    decoded: Decoded
    try:
        decoded = child(job)
        if getattr(decoded.result, "status", None) is not Status.TOO_LARGE:
            return decoded
    except (ChildCrashedError, ChildMemoryError):
        pass
    child.close()
    decoded = child(job)
    return decoded


# ---- in the child --------------------------------------------------------------------------------


def _check_in_child(_: None, __: Pause) -> None:
    check_decoders()


class _PausingStopwatch(Stopwatch):
    """Stops the clock of the call while storage is waited for."""

    def __init__(self, pause: Pause) -> None:
        super().__init__()
        self._pause = pause

    @contextmanager
    def waiting(self) -> Iterator[None]:
        with self._pause(), super().waiting():
            yield


def _decode_in_child(job: tuple[Recording, bool], pause: Pause) -> Decoded:
    recording, whole = job
    started, stopwatch = time.perf_counter(), _PausingStopwatch(pause)
    result: DecodedAudio | RecordingError
    try:
        with open_recording(recording, stopwatch) as handle:
            audio = decode(handle, whole)
        result = replace(audio, waveform=_as_int16_if_lossless(audio.waveform))
    except RecordingError as error:
        result = error
    seconds = time.perf_counter() - started
    return Decoded(result, stopwatch.seconds, seconds - stopwatch.seconds)


def _as_int16_if_lossless(waveform: np.ndarray) -> np.ndarray:
    """Half the bytes for recordings of 16 bits at 16 kHz."""
    scaled = waveform * FULL_SCALE
    with np.errstate(invalid="ignore"):  # what does not fit compares as different
        integers = scaled.astype("<i2")
    return integers if np.array_equal(integers, scaled) else waveform.astype("<f4", copy=False)
