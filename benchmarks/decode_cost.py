"""Prints what the first 6 s of each file in a folder cost, in ms and in shares of it, as JSON.

It is run as a file with another checkout on the path, so it imports nothing from benchmarks.
"""

import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import av

from ser_core.audio import ffmpeg, libsndfile
from ser_core.audio.quality import QualityMeter
from ser_core.audio.resample import Resampler
from ser_core.audio.samples import Mixer
from ser_core.audio.segments import Segmentation, Segmenter
from ser_core.isolation import Caller
from ser_core.sources.file_decoder import FileJob, decode_file
from ser_core.sources.recording import Recording

_ROUNDS, _ROUNDS_OF_SHARES = 20, 10
_REST = "rest"  # opening, looking at the end, quality, cutting
_PARTS = {
    "reading": [(libsndfile, "read_samples"), (ffmpeg, "read_samples"), (av, "open")],
    "mixing": [(Mixer, "add"), (Mixer, "finish")],
    "resampling": [(Resampler, "add"), (Resampler, "finish")],
    _REST: [(QualityMeter, "add"), (Segmenter, "add")],
}


class _Here(Caller):
    """The caller of `decode_file` in the same process."""

    def __init__(self) -> None:
        pass

    @contextmanager
    def pause(self) -> Iterator[None]:
        yield

    def send(self, _: Any) -> None:
        raise AssertionError("a recording has one segment")


def decode(path: Path) -> float:
    """Decodes a file as a worker does; returns the milliseconds."""
    job = FileJob(0, [Recording(str(path), path.stat().st_size)], None, Segmentation())
    started = time.perf_counter()
    decoded = decode_file(job, _Here())
    elapsed = time.perf_counter() - started
    if isinstance(decoded.result, Exception):
        raise decoded.result
    return 1000 * elapsed


class Clock:
    """Adds up the time of each part, without that of the parts that it calls."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._part, self._since = _REST, 0.0
        for part, functions in _PARTS.items():
            for owner, name in functions:
                setattr(owner, name, self._timed(part, getattr(owner, name)))

    def shares(self, path: Path) -> dict[str, float]:
        """The shares of each part in decoding a file, in the fastest of several rounds."""
        rounds = []
        for _ in range(_ROUNDS_OF_SHARES):
            self._seconds.clear()
            self._since = time.perf_counter()
            decode(path)
            self._switch(_REST)
            rounds.append(dict(self._seconds))
        fastest = min(rounds, key=lambda seconds: sum(seconds.values()))
        return {part: fastest.get(part, 0.0) / sum(fastest.values()) for part in _PARTS}

    def _timed(self, part: str, function: Any) -> Any:
        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            before = self._switch(part)
            try:
                return function(*args, **kwargs)
            finally:
                self._switch(before)

        return timed

    def _switch(self, part: str) -> str:
        now, before = time.perf_counter(), self._part
        self._seconds[before] += now - self._since
        self._part, self._since = part, now
        return before


def main() -> None:
    paths = sorted(Path(sys.argv[1]).iterdir())
    rounds = [[decode(path) for path in paths] for _ in range(_ROUNDS)]
    fastest = [min(times) for times in zip(*rounds, strict=True)]
    clock = Clock()
    costs = {
        path.name: {"ms": ms, "shares": clock.shares(path)}
        for path, ms in zip(paths, fastest, strict=True)
    }
    print(json.dumps(costs))


if __name__ == "__main__":
    main()
