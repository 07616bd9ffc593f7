"""Decodes mutants as the job does, and compares with librosa and with other ways to the bytes."""

import hashlib
import io
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np

from ser_core.audio import file_view
from ser_core.audio.constants import FULL_SCALE, SEGMENT_SAMPLES
from ser_core.audio.decode import DecodedAudio, decode
from ser_core.audio.segments import Segmentation
from ser_core.errors import RecordingError, Status
from ser_core.isolation import Caller, ChildError, IsolatedFunction, Limits
from ser_core.sources.decoder import Decoder, DecoderSettings
from ser_core.sources.recording import Recording
from tests.fuzz.mutants import mutant
from tests.fuzz.references import load_with_librosa, refused_by_libsndfile
from tests.fuzz.seeds import Seed

_SECONDS = 20.0
_GIB = 1 << 30
# Of a duration: the padding of a codec's last packet, or damage after the first 6 s.
_TOLERATED_SECONDS, _TOLERATED_LOSS = 0.1, 0.1
_OPUS_PACKET = 1_920  # samples at 16 kHz; 120 ms
_LOSSY = 1e-6  # of Ogg Opus, which two releases of libopus decode
_CHECKERS = 2


class Report(NamedTuple):
    """What became of one mutant: its status, and what should not have been."""

    name: str
    status: str
    findings: list[str]


def check_all(numbers: Iterable[int]) -> Iterator[Report]:
    """Checks mutants by their numbers, two at a time."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        idle: SimpleQueue[Checker] = SimpleQueue()
        for _ in range(_CHECKERS):
            idle.put(stack.enter_context(Checker(folder)))

        def check(number: int) -> Report:
            checker = idle.get()
            try:
                return checker.check(mutant(number))
            finally:
                idle.put(checker)

        yield from stack.enter_context(ThreadPoolExecutor(_CHECKERS)).map(check, numbers)


def summary(reports: Iterable[Report]) -> dict[str, Any]:
    """Counts by status and by format, and all findings."""
    statuses, formats, findings = Counter[str](), Counter[str](), []
    for report in reports:
        statuses[report.status] += 1
        formats[report.name.split(":")[1].split("-")[1]] += 1
        findings += [f"{report.name}: {finding}" for finding in report.findings]
    return {
        "mutants": statuses.total(),
        "statuses": dict(statuses.most_common()),
        "formats": dict(sorted(formats.items())),
        "findings": findings,
    }


class Checker:
    """Checks one mutant at a time, in child processes that it may kill."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        timeout, memory = _SECONDS, 1.0
        self._first = Decoder(DecoderSettings(Segmentation("first"), timeout, memory), 1)
        self._whole = Decoder(DecoderSettings(Segmentation("all"), timeout, memory), 1)
        limits = Limits(3 * _SECONDS, _SECONDS, 4 * _GIB)
        self._other_ways = IsolatedFunction(decode_in_other_ways, limits)
        self._librosa = IsolatedFunction(load_with_librosa, limits)
        self._refused = IsolatedFunction(refused_by_libsndfile, limits)

    def __enter__(self) -> "Checker":
        self._first.__enter__()
        self._whole.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._first.__exit__()
        self._whole.__exit__()
        self._other_ways.close()
        self._librosa.close()
        self._refused.close()

    def check(self, seed: Seed) -> Report:
        # A name means nothing to the job. libsndfile takes any bytes for µ-law that are named so.
        suffix = {"au": "bin", "mp2": "mp3"}.get(seed.suffix, seed.suffix)
        path = self._folder / f"{seed.name.partition(':')[0]}.{suffix}"
        path.write_bytes(seed.data)
        try:
            return Report(seed.name, *self._check(path, len(seed.data)))
        except RuntimeError as error:  # of the decoder: a bug, with its traceback
            return Report(seed.name, "bug", [f"escaped: {error}"])
        finally:
            path.unlink()

    def _check(self, path: Path, size: int) -> tuple[str, list[str]]:
        recording = Recording(str(path), size)
        one, all_of_it = (_decoded(each, recording) for each in (self._first, self._whole))
        findings = [*_impossible(one, size), *_impossible(all_of_it, size)]
        try:
            digests = self._other_ways(path)
        except ChildError as error:
            digests = [repr(error)]
        if set(digests) != {digest(one)} and not _died(one):
            findings.append(f"differs by the way to its bytes: {digest(one)}, {digests}")
        if isinstance(one, RecordingError):
            return one.status, findings
        if isinstance(all_of_it, DecodedAudio):
            findings += _untrue_durations(one, all_of_it)
            if _begin_differently(one, all_of_it, path) and not self._goes_to_ffmpeg(path):
                findings.append("the first 6 s are not those of the whole")
        return Status.OK, findings + self._different_from_librosa(path, one)

    def _goes_to_ffmpeg(self, path: Path) -> bool:
        """Whether damage after the first 6 s leaves all of a file to another library."""
        with suppress(ChildError, RuntimeError):
            return bool(self._refused(path))
        return False

    def _different_from_librosa(self, path: Path, audio: DecodedAudio) -> list[str]:
        try:
            loaded = self._librosa(path)
        except (ChildError, RuntimeError):  # it cannot read the file
            return []
        waveform = as_float(audio.waveform)
        if not loaded or any(_same(waveform, samples, path) for samples in loaded):
            return []
        lengths = [len(samples) for samples in loaded]
        return [f"not librosa's samples: {len(waveform)} instead of {lengths}"]


def _decoded(decoder: Decoder, recording: Recording) -> DecodedAudio | RecordingError:
    """What the segments of a recording are together."""
    parts = list(decoder.decode([recording]))
    result = parts[-1].result
    if isinstance(result, RecordingError):
        return result
    segments = [as_float(segment.waveform) for part in parts for segment in part.segments]
    waveform = np.concatenate([np.zeros(0, np.float32), *segments])
    return DecodedAudio(waveform, result.duration, result.sampling_rate)


def _same(ours: np.ndarray, librosas: np.ndarray, path: Path) -> bool:
    """Whether samples are equal.

    If an Ogg Opus says that playback begins behind its end, FFmpeg's releases differ in whether the
    last packet, whose own padding is stated too, is cut at its end only.
    """
    content = path.read_bytes()
    if b"OpusHead" in content and not len(librosas):
        return len(ours) <= _OPUS_PACKET
    return _equal(ours, librosas, path)


def _equal(ours: np.ndarray, others: np.ndarray, path: Path) -> bool:
    """Whether samples are the same to the bit, or nearly so where the format is Ogg Opus."""
    if b"OggS" in (content := path.read_bytes()) and b"OpusHead" in content:
        return len(ours) == len(others) and np.allclose(ours, others, rtol=0, atol=_LOSSY)
    return np.array_equal(ours, others)


def _died(result: DecodedAudio | RecordingError) -> bool:
    limits = (Status.CRASHED, Status.TIMEOUT, Status.TOO_LARGE)
    return isinstance(result, RecordingError) and result.status in limits


def _impossible(result: DecodedAudio | RecordingError, size: int) -> Iterator[str]:
    """What no recording can be."""
    if isinstance(result, RecordingError):
        if not result.status.final:
            yield f"transient: {result}"
        return
    if not 1_000 <= result.sampling_rate <= 768_000:
        yield f"sampling rate of {result.sampling_rate} Hz"
    if not np.isfinite(result.waveform).all():
        yield "samples that are not finite"
    if result.duration is not None and not 0 < result.duration <= size:
        yield f"duration of {result.duration} s in {size} bytes"
    if not len(result.waveform):
        yield "no samples"


def _begin_differently(first: DecodedAudio, whole: DecodedAudio, path: Path) -> bool:
    beginning, same = as_float(first.waveform), as_float(whole.waveform)[:SEGMENT_SAMPLES]
    return not _equal(beginning, same, path)


def _untrue_durations(first: DecodedAudio, whole: DecodedAudio) -> Iterator[str]:
    """Durations, found by a look at the first 6 s or at all, that are not those of the samples."""
    seconds = len(whole.waveform) / 16_000
    for audio in (first, whole):
        tolerated = max(_TOLERATED_SECONDS, _TOLERATED_LOSS * seconds)
        if audio.duration is not None and abs(audio.duration - seconds) > tolerated:
            yield f"duration of {audio.duration} s, but {seconds} s of samples"


def as_float(waveform: np.ndarray) -> np.ndarray:
    """The samples as decoded; between processes they may be integers."""
    return waveform.astype(np.float32) / FULL_SCALE if waveform.dtype.kind == "i" else waveform


def digest(result: DecodedAudio | RecordingError) -> str:
    """What must not depend on the way to the bytes."""
    if isinstance(result, RecordingError):
        return result.status
    samples = hashlib.md5(as_float(result.waveform).tobytes()).hexdigest()
    return f"ok {samples} {result.duration} {result.sampling_rate}"


# ---- in child processes --------------------------------------------------------------------------


class _Ranges(io.RawIOBase):
    """A file that is fetched in ranges."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def readinto(self, buffer: Any) -> int:
        return self._file.readinto(buffer)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def decode_in_other_ways(path: Path, _caller: Caller) -> list[str]:
    """Digests of decoding from memory, and in ranges as a large file is read from S3."""
    data, in_memory = path.read_bytes(), file_view._IN_MEMORY
    digests = []
    for handle, limit in [(io.BytesIO(data), in_memory), (io.BufferedReader(_Ranges(data)), -1)]:
        file_view._IN_MEMORY = limit
        try:
            digests.append(digest(decode(handle)))
        except RecordingError as error:
            digests.append(digest(error))
        finally:
            file_view._IN_MEMORY = in_memory
    return digests
