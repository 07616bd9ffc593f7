"""What a report says of the runs that made a folder of labels."""

from typing import Any

from ser_core.labeling.run_reports import run_reports
from ser_core.storage.folder import Folder


def read_runs(folder: Folder) -> list[dict[str, Any]]:
    """What a page says of each run, the newest first; what a run did not report is None.

    Raises:
        RunError: the storage failed.
    """
    return [{"run": run, **_shown(report)} for run, report in run_reports(folder).items()]


def _shown(report: dict[str, Any]) -> dict[str, Any]:
    config = report["config"]
    places = config.get("input") or []
    return {
        "started_at": report.get("started_at"),
        "outcome": report.get("outcome"),
        "input": places if isinstance(places, str) else ", ".join(places),
        "model": config.get("model"),
        "revision": report.get("revision"),
        "segments": config.get("segments"),
        "recordings": report.get("recordings"),
        "failed": report.get("failed"),
        "elapsed_seconds": report.get("elapsed_seconds"),
        "files_per_second": report.get("files_per_second"),
        "times_real_time": report.get("times_real_time"),
        "devices": ", ".join(report.get("by_device") or {}),
    }
