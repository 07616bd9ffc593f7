"""Runs Ray Data on one machine without the processes that it starts for a cluster."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from uuid import uuid4

import ray
from ray.data import ExecutionResources
from ray.data._internal.cluster_autoscaler import ClusterAutoscaler
from ray.data._internal.execution import streaming_executor
from ray.data._internal.execution.operators import actor_pool_map_operator
from ray.data._internal.stats import _StatsManager

from ser_core.cluster import nothing, replaced

_NO_TRACKER = SimpleNamespace(update_actor_location=SimpleNamespace(remote=nothing))


class _FixedSize(ClusterAutoscaler):  # type: ignore[misc]
    """The autoscaler of a cluster that never grows."""

    def try_trigger_scaling(self) -> None:
        """Does nothing."""

    def on_executor_shutdown(self) -> None:
        """Does nothing."""

    def get_total_resources(self) -> ExecutionResources:
        """Returns all that Ray has here."""
        return ExecutionResources.from_resource_dict(ray.cluster_resources())


@contextmanager
def without_cluster_services() -> Iterator[None]:
    """Within it, Ray Data starts neither autoscaling coordinator, statistics nor location tracker.

    Each of the three is a process that takes about a second of a core to start. Ray Data has no
    switch for them. Where a version of Ray starts them in another way, it starts them, and
    `tests/integration/test_ray_ends.py` fails.
    """
    no_statistics = replaced(
        _StatsManager,
        gen_dataset_id_from_stats_actor=lambda: uuid4().hex,
        register_dataset_to_stats_actor=nothing,
        update_execution_metrics=nothing,
        update_iteration_metrics=nothing,
    )
    no_requests = replaced(
        streaming_executor, create_cluster_autoscaler=lambda *_, **__: _FixedSize()
    )
    no_locations = replaced(
        actor_pool_map_operator,
        get_or_create_actor_location_tracker=lambda: _NO_TRACKER,
        get_actor_locations=lambda _: {},
    )
    with no_statistics, no_requests, no_locations:
        yield
