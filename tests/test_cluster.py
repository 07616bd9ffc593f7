"""How Ray is started or joined; integration/test_job_submit.py joins a real cluster."""

import os

import pytest
import ray

from ser_core.cluster import join

METRICS, TASK_EVENTS = "RAY_enable_metrics_collection", "RAY_task_events_report_interval_ms"


@pytest.mark.parametrize(
    ("environment", "address", "metrics", "task_events"),
    [
        ({}, "local", "0", "0"),
        ({METRICS: "1"}, "local", "1", "0"),  # who asks for them gets them
        ({"RAY_ADDRESS": "auto"}, "auto", None, None),
    ],
)
@pytest.mark.parametrize("verbose", [False, True])
def test_a_local_ray_gathers_nothing_for_a_dashboard(
    monkeypatch, environment, address, metrics, task_events, verbose
):
    asked = {}
    monkeypatch.setattr(os, "environ", dict(environment))
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **where: asked.update(where | os.environ))
    join(verbose)
    assert asked["address"] == address
    assert (asked.get(METRICS), asked.get(TASK_EVENTS)) == (metrics, task_events)
    assert asked.get("include_dashboard") is (False if address == "local" else None)
