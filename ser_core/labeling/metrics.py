"""What Ray's metrics endpoint says of a run, beside Ray Data's own metrics of its stages."""

from collections import Counter as Counts

from ray.util.metrics import Counter, Gauge

from ser_core.labeling.progress import RunStats


class RunMetrics:
    """Counters and gauges of the driver; on the endpoint, `ray_` stands before their names."""

    def __init__(self) -> None:
        """Exports nothing yet."""
        self._recordings = Counter("ser_batch_recordings", "Recordings with rows.")
        self._rows = Counter("ser_batch_rows", "Rows, by status.", ("status",))
        self._audio = Counter("ser_batch_audio_seconds", "Duration of these recordings, s.")
        self._labeled = Counter("ser_batch_labeled_seconds", "What the model got of them, s.")
        self._listed = Gauge("ser_batch_listed_recordings", "Recordings of the input so far.")
        self._to_label = Gauge("ser_batch_recordings_to_label", "Of these, those without a row.")
        self._exported_rows: Counts[str] = Counts()
        self._exported = (0.0, 0.0, 0.0)

    def update(self, stats: RunStats) -> None:
        """Exports what has come since the last call."""
        self._listed.set(stats.plan.listed)
        self._to_label.set(max(0, stats.plan.to_do - stats.done))
        rows = stats.status.copy()
        for status, count in (rows - self._exported_rows).items():
            self._rows.inc(count, {"status": status})
        totals = (stats.done, stats.audio_seconds, stats.labeled_seconds)
        counters = (self._recordings, self._audio, self._labeled)
        for counter, now, before in zip(counters, totals, self._exported, strict=True):
            if now > before:
                counter.inc(now - before)
        self._exported_rows, self._exported = rows, totals
