"""Every split method is run once with every seed, and the table has the mean over the runs."""

import json
from itertools import product
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from jobs.command import parse, run
from ser_core.errors import RunError, UsageError
from ser_core.training import compare_splits as module
from ser_core.training.compare_splits import SPLIT_METHODS, compare_splits
from ser_core.training.config import CompareSplitsConfig

EMOTIONS = ("angry", "happy", "sad")


@pytest.fixture
def corpus(tmp_path):
    """A manifest of 5 speakers × 3 emotions × 5 sentences."""
    rows = list(product("ABCDE", EMOTIONS, "12345"))
    for row in rows:
        (tmp_path / "".join(row)).write_text("".join(row))
    frame = pd.DataFrame(rows, columns=["speaker", "truth", "sentence"])
    frame.assign(path=["".join(row) for row in rows]).to_csv(tmp_path / "m.csv", index=False)
    return str(tmp_path / "m.csv")


@pytest.fixture
def trained(monkeypatch):
    """The arguments ``train`` was called with; the n-th call returns a UAR of n / 10."""
    asked = []

    def train(config, split):
        asked.append((config, split))
        number = len(asked)
        return SimpleNamespace(metrics={"best": {"test": {"uar": number / 10, "accuracy": 0.5}}})

    monkeypatch.setattr(module, "train", train)
    return asked


def config_of(corpus, tmp_path, **settings):
    return CompareSplitsConfig(
        **{
            "corpus": "manifest",
            "data": corpus,
            "output": str(tmp_path / "out"),
            "model": "small.json",
            "seeds": 2,
            **settings,
        }
    )


def disjoint(split, column):
    values = {name: set(rows[column]) for name, rows in split.groupby("split")}
    return not values["train"] & values["test"]


def test_every_split_method_runs_with_every_seed(corpus, tmp_path, trained, capsys):
    runs = compare_splits(config_of(corpus, tmp_path, epochs=7, seed=5))
    assert [(config.split, config.seed) for config, _ in trained] == list(
        product(SPLIT_METHODS, (5, 6))
    )
    assert {config.epochs for config, _ in trained} == {7}
    assert len({config.output for config, _ in trained}) == 6
    for config, split in trained:
        assert split["audio"].notna().all()  # so that train does not read the files again
        assert disjoint(split, "speaker") == (config.split != "random")
        assert disjoint(split, "sentence") == (config.split == "speaker-sentence")
    shared = runs.groupby("split")[["shared_speaker", "shared_sentence"]].agg(list)
    assert all(count > 2 for counts in shared.loc["random"] for count in counts)
    assert shared.loc["speaker"].tolist() == [[0, 0], [5, 5]]
    assert shared.loc["speaker-sentence"].tolist() == [[0, 0], [0, 0]]
    deviation = np.std([0.3, 0.4], ddof=1)
    printed = capsys.readouterr().out
    assert f"0.350 ± {deviation:.3f}" in printed
    output = tmp_path / "out"
    table = json.loads((output / "splits.json").read_text())["splits"]
    assert [row["split"] for row in table] == list(SPLIT_METHODS)
    assert table[1]["uar_mean"] == pytest.approx(0.35)
    assert table[1]["uar_std"] == pytest.approx(deviation)
    assert f"0.350 ± {deviation:.3f}" in (output / "index.html").read_text()
    assert pd.read_csv(output / "runs.csv")["uar"].tolist() == runs["uar"].tolist()


def test_finished_runs_are_kept(corpus, tmp_path, trained, monkeypatch):
    train = module.train

    def fail(config, split):
        if len(trained) == 3:
            raise RunError("killed")
        return train(config, split)

    monkeypatch.setattr(module, "train", fail)
    with pytest.raises(RunError):
        compare_splits(config_of(corpus, tmp_path))
    monkeypatch.setattr(module, "train", train)
    runs = compare_splits(config_of(corpus, tmp_path))
    assert len(trained) == 6
    assert runs["uar"].tolist() == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    compare_splits(config_of(corpus, tmp_path, seeds=3))
    assert [config.seed for config, _ in trained[6:]] == [36, 36, 36]
    compare_splits(config_of(corpus, tmp_path, epochs=31))
    assert len(trained) == 15  # another setting is another run


@pytest.mark.usefixtures("trained")
def test_one_seed_has_no_deviation(corpus, tmp_path, capsys):
    compare_splits(config_of(corpus, tmp_path, seeds=1))
    assert "±" not in capsys.readouterr().out
    table = json.loads((tmp_path / "out" / "splits.json").read_text())["splits"]
    assert table[0]["uar_std"] is None


def test_a_corpus_of_two_speakers_is_refused_before_training(corpus, tmp_path, trained):
    frame = pd.read_csv(corpus).query("speaker in ['A', 'B']")
    frame.to_csv(corpus, index=False)
    with pytest.raises(UsageError, match="needs at least 3 speakers"):
        compare_splits(config_of(corpus, tmp_path))
    assert not trained


@pytest.mark.usefixtures("trained")
def test_flags(corpus, tmp_path):
    argv = ["--corpus", "manifest", "--data", corpus, "--output", str(tmp_path / "out")]
    assert run(CompareSplitsConfig, compare_splits, [*argv, "--seeds", "1"]) == 0
    with pytest.raises(UsageError, match=r"--split speaker: .*leave it out"):
        parse(CompareSplitsConfig, [*argv, "--split", "speaker"])
    with pytest.raises(UsageError, match=r"--held-out A: .*leave it out"):
        parse(CompareSplitsConfig, [*argv, "--held-out", "A"])
