"""The reports of the runs that made a folder of labels."""

import json
from typing import Any

from ser_core.labeling.label_store import RUNS
from ser_core.storage.folder import Folder, storage_errors


def read_runs(folder: Folder) -> list[dict[str, Any]]:
    """What a page says of each run, the newest first; what a run did not report is None.

    Raises:
        RunError: the storage failed.
    """
    runs = []
    with storage_errors(f"--labels {folder.uri}: the reports of its runs could not be read"):
        for name in folder.names(RUNS):
            if name.endswith(".json") and name != "claim.json":
                content = json.loads(folder.read(f"{RUNS}/{name}"))
                runs.append({"run": name.removesuffix(".json"), **_shown(content)})
    return sorted(runs, key=lambda run: str(run["started_at"]), reverse=True)


def _shown(report: dict[str, Any]) -> dict[str, Any]:
    config = report.get("config", {})
    return {
        "started_at": report.get("started_at"),
        "outcome": report.get("outcome"),
        "input": ", ".join(config.get("input") or []),
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
