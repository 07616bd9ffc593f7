"""The reports of the runs into a folder, newest first; one that is damaged is left out."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ser_core.labeling import release_0_1
from ser_core.labeling.label_store import RUNS
from ser_core.storage.folder import Folder, storage_errors

_READERS = 16  # reports read at once


def run_reports(folder: Folder) -> dict[str, dict[str, Any]]:
    """Reads the report of each run, by the run's name; those of release 0.1 as well.

    A report has at least an object ``config``. A run that was killed left none.

    Raises:
        RunError: the storage failed.
    """
    with storage_errors(f"--labels {folder.uri}: the run reports could not be read"):
        paths = {
            name.removesuffix(".json"): f"{subfolder}/{name}"
            for subfolder in (release_0_1.REPORTS, RUNS)
            for name in folder.names(subfolder)
            if name.endswith(".json") and name != "claim.json"
        }
        with ThreadPoolExecutor(_READERS) as pool:
            parsed = list(pool.map(lambda path: _parsed(folder.read(path)), paths.values()))
    reports = {run: each for run, each in zip(paths, parsed, strict=True) if each is not None}
    return dict(sorted(reports.items(), key=_started, reverse=True))


def _parsed(content: bytes) -> dict[str, Any] | None:
    try:
        report = json.loads(content)
    except (ValueError, RecursionError):
        return None
    is_report = isinstance(report, dict) and isinstance(report.get("config"), dict)
    return report if is_report else None


def _started(item: tuple[str, dict[str, Any]]) -> tuple[str, str]:
    run, report = item
    return str(report.get("started_at") or ""), run
