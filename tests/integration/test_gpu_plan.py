"""The pipeline for GPUs, in a Ray session that claims to have one; the CPU computes."""

import librosa
import numpy as np
import pandas as pd
import pytest
import ray
from recordings import speech_like, write_audio

from ser_core.labeling import pipeline
from ser_core.labeling.config import LabelConfig
from ser_core.labeling.job import label_corpus
from ser_core.models.checkpoint import load_checkpoint
from ser_core.models.classifier import Classifier

SECONDS = [0.4 + index % 7 for index in range(30)]


@pytest.fixture(scope="module", autouse=True)
def ray_with_a_gpu():
    ray.init(address="local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.parametrize("segments", ["first", "all"])
def test_scores_belong_to_their_recordings(
    tmp_path, small_checkpoint, monkeypatch, capsys, segments
):
    monkeypatch.setattr(pipeline, "_ROWS_PER_CALL_ON_GPU", 6)
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
