"""Recordings → waveforms, decoded in child processes that a recording may crash or exhaust."""

import itertools
import queue
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from ser_core.audio.decode import AudioInfo, check_decoders
from ser_core.audio.segments import Segmentation
from ser_core.errors import RecordingError, RunError, Status, one_line
from ser_core.isolation import (
    Caller,
    ChildCrashedError,
    ChildError,
    ChildMemoryError,
    ChildTimeoutError,
    IsolatedFunction,
    Limits,
    PauseTimeoutError,
)
from ser_core.sources import file_decoder
from ser_core.sources.file_decoder import Decoded, FileJob, decode_file
from ser_core.sources.forms import read_members
from ser_core.sources.recording import Recording
from ser_core.storage.protocols import modules_of
from ser_core.storage.reading import Stopwatch

_CONCURRENT_FILES = 4  # one file's bytes arrive while another is decoded
# What is decoded or waits to be taken: files, long ones, and bytes of members of packed files.
_AHEAD, _AHEAD_WHOLE, _AHEAD_BYTES = 16, 3, 256 << 20
_WAITING_MESSAGES = 4  # of one file, which waits then: up to 24 MB
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
        how: how they are cut into segments.
        timeout: s for one recording, without waiting for storage; None chooses.
        memory: GiB for one recording.
    """

    how: Segmentation = Segmentation()  # noqa: RUF009 (immutable)
    timeout: float | None = None
    memory: float = 2.0

    @property
    def limits(self) -> Limits:
        """What the decoding of one recording may use."""
        seconds = self.timeout or (_SECONDS_WHOLE if self.how.whole else _SECONDS)
        return Limits(seconds, _STORAGE_SECONDS, int(self.memory * _GIB))


class Decoder:
    """Decodes several recordings at once, each in a child process that may crash.

    ::

        with Decoder(DecoderSettings()) as decoder:
            for decoded in decoder.decode(recordings):
                ...
    """

    def __init__(self, settings: DecoderSettings, concurrent: int = _CONCURRENT_FILES) -> None:
        self._settings = settings
        self._idle: queue.LifoQueue[IsolatedFunction] = queue.LifoQueue()
        self._pool = ThreadPoolExecutor(concurrent)

    def __enter__(self) -> "Decoder":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        while not self._idle.empty():
            self._idle.get().close()

    def decode(self, recordings: Sequence[Recording]) -> Iterator[Decoded]:
        """Decodes recordings, in their order; those of one file that follow each other at once.

        A long recording comes in parts, and is decoded no faster than they are taken. Once several
        files in a row could not be reached, the others are not tried: each would wait for the
        deadline of its requests.

        Raises:
            RuntimeError: a bug, with its traceback.
        """
        decode = partial(self._decode_if_reachable, _Outage())
        ahead = _AHEAD_WHOLE if self._settings.how.whole else _AHEAD
        decoding: deque[_Messages] = deque()
        try:
            for job in _file_jobs(recordings, self._settings.how):
                decoding.append(_Messages(job))
                self._pool.submit(decoding[-1].put_all, decode(job))
                while len(decoding) > ahead or sum(m.num_bytes for m in decoding) > _AHEAD_BYTES:
                    yield from decoding[0]
                    decoding.popleft()
            while decoding:
                yield from decoding[0]
                decoding.popleft()
        finally:
            for messages in decoding:
                messages.abandon()

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

    def _decode_if_reachable(self, outage: "_Outage", job: FileJob) -> Iterator[Decoded]:
        positions = range(job.first, job.first + len(job.recordings))
        if outage.in_a_row >= _OUT_OF_REACH:
            reason = "the storage did not answer for the recordings before this one"
            error = RecordingError(Status.UNAVAILABLE, reason)
            yield from (Decoded(position, [], error) for position in positions)
            return
        unfinished = dict.fromkeys(positions)
        try:
            for decoded in self._decode(job):
                if decoded.result is not None:
                    unfinished.pop(decoded.recording)
                    outage.count(decoded.result)
                yield decoded
        except RecordingError as error:
            outage.count(error)
            yield from (Decoded(position, [], error) for position in unfinished)

    def _decode(self, job: FileJob) -> Iterator[Decoded]:
        child = self._child(job.recordings[0])
        try:
            yield from _decode_isolated(child, job)
        finally:
            self._idle.put(child)

    def _child(self, recording: Recording) -> IsolatedFunction:
        with suppress(queue.Empty):
            return self._idle.get_nowait()
        preload = [file_decoder.__name__, *modules_of(recording.uri)]
        return IsolatedFunction(decode_file, self._settings.limits, preload)


class _KilledError(RecordingError):
    """Another process killed the decoder, twice: neither the recording nor its storage is bad."""

    def __init__(self) -> None:
        reason = "another process killed the decoder twice; the machine may be out of memory"
        super().__init__(Status.UNAVAILABLE, reason)


class _Outage:
    """Counts the recordings in a row whose storage did not answer."""

    def __init__(self) -> None:
        self.in_a_row = 0

    def count(self, result: AudioInfo | RecordingError) -> None:
        status = getattr(result, "status", Status.OK)
        out_of_reach = status is Status.UNAVAILABLE and not isinstance(result, _KilledError)
        self.in_a_row = self.in_a_row + 1 if out_of_reach else 0


class _Messages:
    """What is decoded of one file in a thread, taken in another.

    Attributes:
        num_bytes: of its content, if it is a member of a packed file.
    """

    def __init__(self, job: FileJob) -> None:
        self.num_bytes = len(job.content) if isinstance(job.content, bytes) else 0
        self._queue: queue.Queue[Decoded | BaseException | None] = queue.Queue(_WAITING_MESSAGES)
        self._abandoned = threading.Event()

    def put_all(self, messages: Iterator[Decoded]) -> None:
        """Puts messages as they come, and waits while they are not taken."""
        end: BaseException | None = None
        if self._abandoned.is_set():
            return
        try:
            for message in messages:
                self._queue.put(message)
                if self._abandoned.is_set():
                    return
        except BaseException as error:  # raised again where the messages are taken
            end = error
        self._queue.put(end)

    def __iter__(self) -> Iterator[Decoded]:
        while isinstance(message := self._queue.get(), Decoded):
            yield message
        if message is not None:
            raise message

    def abandon(self) -> None:
        """Lets the thread end though nobody takes its messages."""
        self._abandoned.set()
        with suppress(queue.Empty):
            while True:
                self._queue.get_nowait()


def _file_jobs(recordings: Sequence[Recording], how: Segmentation) -> Iterator[FileJob]:
    """The files of recordings, in their order; members of a packed file are read in one pass."""
    position = 0
    for (uri, packed), group in itertools.groupby(
        recordings, lambda each: (each.uri, each.member is not None)
    ):
        files = [list(same) for _, same in itertools.groupby(group, lambda each: each.file)]
        contents: Iterator[bytes | RecordingError | None] = itertools.repeat(None, len(files))
        stopwatch, before = Stopwatch(), 0.0
        if packed:
            contents = read_members(uri, [file[0] for file in files], stopwatch)
        for file, content in zip(files, contents, strict=True):
            yield FileJob(position, file, content, how, stopwatch.seconds - before)
            position, before = position + len(file), stopwatch.seconds


def _decode_isolated(child: IsolatedFunction, job: FileJob) -> Iterator[Decoded]:
    """Decodes in the child, and says why that failed.

    Raises:
        RecordingError: crashed twice, too slow, too large, or the storage does not answer.
    """
    try:
        yield from _decode_up_to_twice(child, job)
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


def _decode_up_to_twice(child: IsolatedFunction, job: FileJob) -> Iterator[Decoded]:
    """Tries a new process where earlier recordings may have damaged or filled the first one."""
    passed_on: Counter[int] = Counter()  # segments of each recording
    finished: set[int] = set()
    try:
        for decoded in child.stream(job):
            if getattr(decoded.result, "status", None) is Status.TOO_LARGE:
                break
            yield decoded
            passed_on[decoded.recording] += len(decoded.segments)
            finished |= {decoded.recording} if decoded.result is not None else set()
        else:
            return
    except (ChildCrashedError, ChildMemoryError):
        pass
    child.close()
    for decoded in child.stream(job):
        if decoded.recording not in finished:
            repeated = min(passed_on[decoded.recording], len(decoded.segments))
            passed_on[decoded.recording] -= repeated
            yield decoded._replace(segments=decoded.segments[repeated:])


def _check_in_child(_: None, __: Caller) -> None:
    check_decoders()
