"""Starting and joining Ray; integration/test_job_submit.py joins a real cluster."""

import os
import socket
from contextlib import nullcontext

import pytest
import ray

from ser_core.cluster import check_address, join
from ser_core.errors import UsageError

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


@pytest.mark.parametrize(
    ("address", "connects_to"),
    [
        ("10.0.0.1:6379", ("10.0.0.1", 6379)),
        ("[::1]:6379", ("::1", 6379)),
        ("ray://head:10002", ("head", 10002)),
        ("ray://head", ("head", 10001)),
        ("ray://[::1]", ("::1", 10001)),
        ("auto", None),
        ("local", None),
    ],
)
def test_the_address_is_tried_before_anything_starts(monkeypatch, address, connects_to):
    tried = []

    def refuse(address, _):
        tried.append(address)
        raise ConnectionRefusedError("refused")

    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(socket, "create_connection", refuse)
    refused = pytest.raises(UsageError, match=r"no Ray cluster answers there \(refused\)")
    with refused if connects_to else nullcontext():
        check_address()
    assert tried == ([connects_to] if connects_to else [])


@pytest.mark.parametrize("address", ["127.0.0.1:99999", f"{'a' * 64}.example:6379", "a..b:6379"])
def test_an_address_that_is_none_is_a_one_line_error(monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(UsageError, match=f"RAY_ADDRESS {address}: "):
        check_address()
