"""What a run exports: counters grow by what is new, gauges are what is listed and left."""

from collections import Counter

import pytest

from ser_core.labeling import metrics
from ser_core.labeling.metrics import RunMetrics
from ser_core.labeling.plan import Plan
from ser_core.labeling.progress import RunStats


@pytest.fixture
def exported(monkeypatch):
    """By name, or by name and status."""
    values = Counter()

    class Metric:
        def __init__(self, name, description, tag_keys=()):
            assert description
            self.name, self.tag_keys = name, tag_keys

        def key(self, tags):
            assert tuple(tags or {}) == self.tag_keys
            return (self.name, *tags.values()) if tags else self.name

        def inc(self, value, tags=None):
            assert value > 0  # or Ray raises
            values[self.key(tags)] += value

        def set(self, value, tags=None):
            values[self.key(tags)] = value

    monkeypatch.setattr(metrics, "Counter", Metric)
    monkeypatch.setattr(metrics, "Gauge", Metric)
    return values


def test_what_is_exported(exported):
    stats = RunStats()
    run = RunMetrics()
    run.update(stats)
    assert set(exported.values()) == {0}
    stats.listing(Plan(listed=10, done=4), ended=False)
    stats.done, stats.audio_seconds, stats.labeled_seconds = 2, 20.0, 12.0
    stats.status.update(ok=1, decode_error=1)
    run.update(stats)
    run.update(stats)  # nothing is counted twice
    stats.done, stats.audio_seconds = 3, 25.0
    stats.status.update(ok=1)
    run.update(stats)
    assert exported == {
        "ser_batch_recordings": 3,
        ("ser_batch_rows", "ok"): 2,
        ("ser_batch_rows", "decode_error"): 1,
        "ser_batch_audio_seconds": 25,
        "ser_batch_labeled_seconds": 12,
        "ser_batch_listed_recordings": 10,
        "ser_batch_recordings_to_label": 3,
    }
