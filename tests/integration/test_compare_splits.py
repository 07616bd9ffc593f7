"""Comparing splits with real training: the table takes what jobs.train returns."""

from itertools import product
from pathlib import Path

import pandas as pd
import pytest
from recordings import speech_like, write_audio

from ser_core.training.compare_splits import compare_splits
from ser_core.training.config import CompareSplitsConfig

MODEL = Path(__file__).parents[2] / "benchmarks" / "small-hubert.json"


@pytest.mark.usefixtures("ray_of_two_cores")
def test_three_real_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")  # 2 s by default
    rows = list(product("ABC", ("angry", "sad"), "12"))
    frame = pd.DataFrame(rows, columns=["speaker", "truth", "sentence"])
    frame["path"] = [f"{''.join(row)}.wav" for row in rows]
    for number, name in enumerate(frame["path"]):
        write_audio(tmp_path / name, speech_like(0.5, seed=number))
    frame.to_csv(tmp_path / "m.csv", index=False)
    config = CompareSplitsConfig(
        corpus="manifest",
        data=str(tmp_path / "m.csv"),
        model=str(MODEL),
        output=str(tmp_path / "out"),
        seeds=1,
        epochs=1,
    )
    runs = compare_splits(config)
    assert runs["uar"].between(0, 1).all()
    for name in runs["split"]:
        assert (tmp_path / "out" / f"{name}-34" / "best" / "config.json").is_file()
        table = pd.read_csv(tmp_path / "out" / f"{name}-34" / "split.csv")
        assert "audio" not in table
    assert compare_splits(config).equals(runs)  # nothing is trained again
