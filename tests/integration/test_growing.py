"""Machines that join the cluster while a run goes on get classifiers, as they get decoders."""

import os
import sys
import time

import numpy as np
import pytest
import ray
from ray.cluster_utils import Cluster
from recordings import speech_like, write_audio

from ser_core.labeling import pipeline, resources
from ser_core.labeling.config import LabelConfig
from ser_core.labeling.job import label_corpus
from ser_core.models.checkpoint import load_checkpoint
from ser_core.models.outputs import Outputs

pytestmark = pytest.mark.timeout(400)
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import it
RECORDINGS = 120
SECONDS = 150.0  # for a node to start and a classifier on it; ten on two idle cores


class Waiting:
    """Classifies one batch at once, and the next ones when there are classifiers on two nodes."""

    precision = "fp32"
    description = "waiting"

    def __init__(self, labels, nodes):
        self.labels, self.nodes, self.calls = labels, nodes, 0
        (nodes / ray.get_runtime_context().get_node_id()).touch()

    def prepare(self, waveforms):
        return waveforms

    def compute(self, waveforms):
        self.calls += 1
        deadline = time.monotonic() + SECONDS
        while self.calls > 2 and len(os.listdir(self.nodes)) < 2:  # the first call is of noise
            assert time.monotonic() < deadline, "no classifier on the new machine"
            time.sleep(0.05)
        return Outputs(np.full((len(waveforms), self.labels), 1 / self.labels, np.float32))


@pytest.fixture(params=["CPU", "GPU"])
def cluster(request):
    node = {"num_cpus": 1, "object_store_memory": 200 << 20}
    if request.param == "GPU":
        node = {"num_cpus": 2, "num_gpus": 1, "object_store_memory": 200 << 20}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    ray.init(address=cluster.address, log_to_driver=False)
    cluster.add_one = lambda: cluster.add_node(**node)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_classifiers_start_on_machines_that_come_later(
    cluster, tmp_path, small_checkpoint, monkeypatch
):
    (tmp_path / "nodes").mkdir()
    for number in range(RECORDINGS):
        write_audio(tmp_path / "corpus" / f"{number:03}.wav", speech_like(0.5, seed=number))
    monkeypatch.setattr(resources, "_SEGMENTS_PER_GPU", 10)  # as if that were much work
    monkeypatch.setattr(resources, "_ROWS_PER_BLOCK", (4, 8))
    labels = len(load_checkpoint(str(small_checkpoint)).labels)
    monkeypatch.setattr(pipeline, "_load", lambda *_: Waiting(labels, tmp_path / "nodes"))
    label_planned, joined = pipeline.label_planned, []

    def one_more_node(planned, settings):
        for rows in label_planned(planned, settings):
            if not joined:
                joined.append(cluster.add_one())
            yield rows

    monkeypatch.setattr("ser_core.labeling.rounds.label_planned", one_more_node)
    config = LabelConfig(
        input=str(tmp_path / "corpus"),
        output=str(tmp_path / "labels"),
        model=str(small_checkpoint),
    )
    plan = label_corpus(config)
    assert plan.to_do == RECORDINGS
    assert len(os.listdir(tmp_path / "nodes")) == 2
    assert len(joined) == 1
