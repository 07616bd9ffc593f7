"""The Ray actor around a classifier: it dies rather than hang, and is restarted a few times."""

import atexit
import faulthandler
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.exceptions import RayActorError

from ser_core.audio.constants import SAMPLING_RATE
from ser_core.errors import DeviceError, RunError, SerError
from ser_core.labeling.output_rows import not_finite
from ser_core.labeling.packing import packed, unpacked
from ser_core.labeling.stages import (
    Scorer,
    StageSettings,
    classify_block,
    rows_with_reason,
    run_stage,
)
from ser_core.labeling.start_counter import STARTS, StartCounter, Verdict
from ser_core.labeling.stopping import bug, reason_of, reason_to_stop

_LOAD_SECONDS = 900.0  # the checkpoint may come from another node, to a slow disk
_BATCH_SECONDS = 300.0  # one forward pass; a full window takes a slow core 2 s


class ClassifierActor:
    """One checkpoint on one GPU, or on one core."""

    def __init__(
        self,
        settings: StageSettings,
        load: Callable[[Callable[[], None]], Scorer],
        starts: "ray.actor.ActorHandle[StartCounter]",
    ) -> None:
        """Loads the checkpoint, or remembers why the run must stop: Ray would only try again.

        Args:
            settings: of the run.
            load: makes the classifier; takes what it has to call before each forward pass.
            starts: of all classifiers of this pipeline.

        Raises:
            RunError: it died too often; the others go on without it.
        """
        atexit.register(os._exit, 0)  # Ray's own exit handler sometimes waits for itself for ever
        self._settings = settings
        self._starts = starts
        self._name = ray.get_runtime_context().get_actor_id()
        self._device = threading.Lock()
        self._counting = threading.Lock()
        self._calls = 0  # in progress
        self._idle_since: float | None = None  # the first block's wait is the pipeline's start
        self._reason: str | None = None
        verdict = _started(starts, self._name)
        if verdict == Verdict.GIVE_UP:
            raise RunError("this classifier died too often")
        if verdict == Verdict.STOP:
            problem = f"classifiers died {STARTS} times each before they finished a block"
            self._reason = reason_of(RunError(problem))
            return
        try:
            with _dies_if_stuck(_LOAD_SECONDS):
                self._classifier = load(_restart_clock)
                _check_scores(self._classifier)
            starts.ready.remote(self._name)
        except DeviceError:
            _die()
        except SerError as error:
            self._reason = reason_of(error)
        except Exception as error:
            self._reason = bug(error)

    def __call__(self, rows: pa.Table) -> Iterator[pa.Table]:
        """Classifies packed blocks; their rows come out as one block."""
        yield packed(pa.concat_tables(map(self.classify, unpacked(rows))))

    def classify(self, decoded: pa.Table) -> pa.Table:
        """Classifies the segments of a block of ``decoded_schema``."""
        if reason := self._reason or reason_to_stop(decoded):
            return rows_with_reason(decoded, self._settings, reason)

        def classified(block: pa.Table) -> Iterator[pa.Table]:
            yield classify_block(block, self._settings, self._classifier, self._turn)

        try:
            with self._watched():
                (labeled,) = run_stage(classified, decoded, self._settings)
        except DeviceError:  # nothing runs on this device any more in this process
            _die()
        self._starts.finished.remote(self._name)
        return labeled

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Ends this process if none of the calls makes progress for too long."""
        self._count_calls(1)
        try:
            yield
        finally:
            self._count_calls(-1)

    def _count_calls(self, more: int) -> None:
        with self._counting:
            self._calls += more
            if self._calls:
                _restart_clock()
            else:
                faulthandler.cancel_dump_traceback_later()

    @contextmanager
    def _turn(self) -> Iterator[float]:
        """Gives the device to one block at a time; yields how long it had nothing to do."""
        with self._device:
            now = time.perf_counter()
            try:
                yield now - (self._idle_since or now)
            finally:
                self._idle_since = time.perf_counter()


def _started(starts: "ray.actor.ActorHandle[StartCounter]", name: str) -> Verdict:
    try:
        return Verdict(ray.get(starts.started.remote(name)))
    except RayActorError:  # it went with its node; what it knew is not worth the run
        return Verdict.WORK


def _check_scores(scorer: Scorer) -> None:
    """Classifies noise, which a working model can do.

    Raises:
        CheckpointError: its scores are not finite.
    """
    noise = np.random.default_rng(0).standard_normal(SAMPLING_RATE).astype(np.float32)
    if not np.isfinite(scorer.compute(scorer.prepare([0.1 * noise])).scores).all():
        raise not_finite(scorer.description)


def _restart_clock() -> None:
    faulthandler.dump_traceback_later(_BATCH_SECONDS, exit=True)


@contextmanager
def _dies_if_stuck(seconds: float) -> Iterator[None]:
    """Ends this process if it takes too long; the clock needs neither Python nor its lock."""
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def _die() -> Any:
    traceback.print_exc()
    os._exit(1)
