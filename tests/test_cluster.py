"""Starting and joining Ray; integration/test_job_submit.py joins a real cluster."""

import os

import pytest
import ray

from ser_core.cluster import join

METRICS, TASK_EVENTS = "RAY_enable_metrics_collection", "RAY_task_events_report_interval_ms"


@pytest.mark.parametrize(
    ("environment", "address", "metrics", "task_events"),
    [
        ({}, "local", "0", "0"),
        ({METRICS: "1"}, "local", "1", "0"),  # the user's own setting is kept
        ({"RAY_ADDRESS": "auto"}, "auto", None, None),
    ],
)
@pytest.mark.parametrize("verbose", [False, True])
def test_local_ray_collects_no_dashboard_data(
    monkeypatch, environment, address, metrics, task_events, verbose
):
    started_with = {}
    monkeypatch.setattr(os, "environ", dict(environment))
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **options: started_with.update(options | os.environ))
    join(verbose)
    assert started_with["address"] == address
    assert (started_with.get(METRICS), started_with.get(TASK_EVENTS)) == (metrics, task_events)
    assert started_with.get("include_dashboard") is (False if address == "local" else None)
