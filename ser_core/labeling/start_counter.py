"""Counts the starts of classifiers; it imports little, as a run waits for its process."""

import math
import time
from collections import Counter
from enum import StrEnum

STARTS = 4  # of one classifier, without a block finished in between
_GIVEN_UP = 3  # times the number of classifiers, without a block finished by any


class Verdict(StrEnum):
    """What a classifier does that has just started."""

    WORK = "work"
    GIVE_UP = "give up"  # it died too often; others work
    STOP = "stop"  # all did


class StartCounter:
    """Counts how often each classifier started since it last finished a block.

    It runs as an actor of its own, because whoever dies remembers nothing.
    """

    def __init__(self, classifiers: int) -> None:
        self._most = classifiers  # at the same time; more may join
        self._starts: Counter[str] = Counter()
        self._given_up = 0  # since anyone finished a block
        self._ready: set[str] = set()
        self._ready_since = math.inf

    def started(self, classifier: str) -> Verdict:
        """Counts a start."""
        self._starts[classifier] += 1
        self._most = max(self._most, len(self._starts))
        if self._starts[classifier] <= STARTS:
            return Verdict.WORK
        del self._starts[classifier]
        self._given_up += 1
        hopeless = self._given_up >= _GIVEN_UP * self._most  # Ray replaces some of them
        return Verdict.STOP if hopeless or not self._starts else Verdict.GIVE_UP

    def ready(self, classifier: str) -> None:
        """Notes that a classifier has started."""
        self._ready.add(classifier)
        self._ready_since = min(self._ready_since, time.monotonic())

    def numbers(self) -> tuple[int, float]:
        """How many classifiers have started, and for how many seconds the first one has worked."""
        return len(self._ready), max(0.0, time.monotonic() - self._ready_since)

    def finished(self, classifier: str) -> None:
        """Counts a finished block: the model works, and whoever works is healthy."""
        self._starts[classifier] = 0
        self._given_up = 0
