"""The pipeline for GPUs, in a Ray session that claims to have one; the CPU computes."""

import sys
import threading
import time

import librosa
import numpy as np
import pandas as pd
import pytest
import ray
import torch
from recordings import speech_like, write_audio

from ser_core.errors import RunError
from ser_core.labeling import pipeline, resources, rounds
from ser_core.labeling.config import LabelConfig
from ser_core.labeling.job import label_corpus
from ser_core.models.checkpoint import load_checkpoint
from ser_core.models.classifier import Classifier
from ser_core.models.outputs import Outputs

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import it
SECONDS = [0.4 + index % 7 for index in range(30)]


@pytest.fixture(scope="module", autouse=True)
def ray_with_a_gpu():
    ray.init(address="local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def load_on_cpu(settings, before_pass):
    classifier = Classifier(ray.get(settings.checkpoint), settings.precision)
    classifier.before_pass = before_pass
    return classifier


def statuses(folder, checkpoint, recordings):
    """Of so many recordings, once they are labelled."""
    for index in range(recordings):
        write_audio(folder / "corpus" / f"{index}.wav", speech_like(1.0, seed=index))
    output = folder / "labels"
    label_corpus(
        LabelConfig(input=str(folder / "corpus"), output=str(output), model=str(checkpoint))
    )
    return list(pd.read_parquet(output)["status"])


@pytest.mark.parametrize("segments", ["first", "all"])
def test_scores_belong_to_their_recordings(
    tmp_path, small_checkpoint, monkeypatch, capsys, segments
):
    monkeypatch.setattr(pipeline, "_BYTES_PER_TABLE_ON_GPU", 500_000)  # several tables
    monkeypatch.setattr(pipeline, "_load", load_on_cpu)
    for index, seconds in enumerate(SECONDS):
        write_audio(tmp_path / "corpus" / f"{index:02}.wav", speech_like(seconds, seed=index))
    (tmp_path / "corpus" / "30.wav").write_bytes(b"no audio")
    config = LabelConfig(
        input=str(tmp_path / "corpus"),
        output=str(tmp_path / "labels"),
        model=str(small_checkpoint),
        precision="fp32",
        segments=segments,
    )
    label_corpus(config)
    assert "on GPUs" in capsys.readouterr().err
    rows = pd.read_parquet(tmp_path / "labels").sort_values("path")
    assert list(rows["status"]) == ["ok"] * 30 + ["decode_error"]
    longest = 96_000 if segments == "first" else None
    waveforms = [librosa.load(path, sr=16_000)[0][:longest] for path in rows["path"][:30]]
    expected = Classifier(load_checkpoint(str(small_checkpoint)), "fp32").scores(waveforms)
    scores = rows[:30].filter(like="score_").to_numpy()
    np.testing.assert_allclose(scores, expected, atol=1e-4)


class TakingTurns:
    """Is never to compute two blocks at once, and waits until another one is prepared."""

    precision = "fp32"
    description = "taking turns"

    def __init__(self, labels):
        self.labels, self.device = labels, threading.Lock()
        self.prepared = self.computed = 0

    def prepare(self, waveforms):
        self.prepared += 1
        return waveforms

    def compute(self, waveforms):
        assert self.device.acquire(blocking=False), "two at once"
        self.computed += 1
        deadline = time.monotonic() + 60
        while 1 < self.computed < 4 and self.prepared == self.computed:  # the first is of noise
            assert time.monotonic() < deadline, "no block was prepared meanwhile"
            time.sleep(0.01)
        self.device.release()
        return Outputs(np.full((len(waveforms), self.labels), 1 / self.labels, np.float32))


def test_a_block_is_prepared_while_another_is_computed(tmp_path, small_checkpoint, monkeypatch):
    labels = len(load_checkpoint(str(small_checkpoint)).labels)
    monkeypatch.setattr(pipeline, "_BYTES_PER_TABLE_ON_GPU", 20_000)  # many tables
    monkeypatch.setattr(pipeline, "_load", lambda *_: TakingTurns(labels))
    assert statuses(tmp_path, small_checkpoint, recordings=10) == ["ok"] * 10


def test_what_is_lost_is_tried_again_a_table_at_a_time(tmp_path, small_checkpoint, monkeypatch):
    """Any of the tables of a call may be what ended its process."""
    label_planned, calls = rounds.label_planned, []

    def lossy(planned, settings):
        calls.append(settings.resources.tables_per_call)
        for labeled in label_planned(planned, settings):
            yield labeled.slice(1 if len(calls) == 1 else 0)

    monkeypatch.setattr(pipeline, "_load", load_on_cpu)
    monkeypatch.setattr(rounds, "label_planned", lossy)
    monkeypatch.setattr(resources, "_GPUS_FED_TABLE_BY_TABLE", 0)
    monkeypatch.setattr(resources, "_STORE_BYTES_PER_TABLE", 1)
    assert statuses(tmp_path, small_checkpoint, recordings=3) == ["ok"] * 3
    assert calls == [4, 1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_promised_gpu_that_torch_cannot_use_stops_the_run(tmp_path, small_checkpoint):
    write_audio(tmp_path / "corpus" / "1.wav", speech_like(1.0))
    config = LabelConfig(
        input=str(tmp_path / "corpus"),
        output=str(tmp_path / "labels"),
        model=str(small_checkpoint),
    )
    with pytest.raises(RunError, match=r"torch .* cannot use them; .*--num-gpus=0") as error:
        label_corpus(config)
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "labels").glob("*.parquet"))
