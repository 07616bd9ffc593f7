"""jobs.evaluate writes its files whole, or refuses in one line and writes nothing."""

import importlib.util
import json
import re

import fsspec
import pandas as pd
import pytest

from jobs.command import run
from ser_core.errors import UsageError
from ser_core.evaluation.config import EvaluateConfig
from ser_core.evaluation.job import evaluate_labels


def test_what_is_written(labels, tmp_path, capsys):
    output = tmp_path / "out"
    argv = ["--labels", str(labels), "--output", str(output), "--split", "test"]
    assert run(EvaluateConfig, evaluate_labels, argv) == 0
    assert {path.name for path in output.iterdir()} == {
        *("classes.csv", "confident_errors.csv", "confusion.csv", "confusion.png", "index.html"),
        *("least_sure.csv", "metrics.json", "reliability.csv", "reliability.png", "speakers.csv"),
    }
    summary = json.loads((output / "metrics.json").read_text())
    assert summary["recordings"] == 100
    confusion = pd.read_csv(output / "confusion.csv", index_col="truth")
    assert confusion.to_numpy().sum() == 100
    page = (output / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 1
    assert not re.search(r"(src|href)=[\"'](?!data:|#)", page)  # needs no other file
    assert f"{summary['uar']:.3f}" in page
    printed = capsys.readouterr().out
    assert f"UAR {summary['uar']:.3f}" in printed
    assert f"; chance {summary['chance']['uar']:.3f})" in printed
    for name in ("confusion.png", "reliability.png"):
        assert (output / name).read_bytes().startswith(b"\x89PNG")


def test_the_keys_of_the_metrics(labels, tmp_path):
    """Readers of earlier releases find what they looked for."""
    evaluate_labels(EvaluateConfig(labels=str(labels), output=str(tmp_path), split="test"))
    summary = json.loads((tmp_path / "metrics.json").read_text())
    assert list(summary) == [
        *("recordings", "without_label", "labels_without_truth", "models", "classes"),
        *("unknown_to_model", "never_in_truth", "accuracy", "uar", "macro_f1", "interval"),
        *("chance", "loss", "ece", "with_temperature", "confidence", "accuracy_of_labelled"),
    ]
    assert list(summary["interval"]) == ["over", "speakers", "accuracy", "uar", "macro_f1"]
    assert list(summary["with_temperature"]) == ["temperature", "loss", "ece"]


@pytest.mark.parametrize(
    ("split", "fitted"), [(None, False), ("validation", False), ("test", True)]
)
def test_a_temperature_is_never_evaluated_on_what_it_was_fitted_on(labels, tmp_path, split, fitted):
    config = EvaluateConfig(labels=str(labels), output=str(tmp_path / "out"), split=split)
    assert (evaluate_labels(config).summary["with_temperature"] is not None) == fitted


def test_on_an_object_store(labels):
    fs = fsspec.filesystem("memory")
    fs.put(str(labels), "/bucket/labels", recursive=True)
    output = "memory://bucket/evaluation"
    evaluate_labels(EvaluateConfig(labels="memory://bucket/labels", output=output))
    assert fs.cat_file("/bucket/evaluation/index.html").startswith(b"<!doctype html>")


def refusal(tmp_path, **settings):
    with pytest.raises(UsageError) as caught:
        evaluate_labels(EvaluateConfig(**{"output": str(tmp_path / "out"), **settings}))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    return str(caught.value)


def test_commands_that_cannot_run(labels, tmp_path, monkeypatch):
    assert "--labels" in refusal(tmp_path, labels=str(tmp_path / "none"))
    assert "--truth" in refusal(tmp_path, labels=str(labels), truth=str(tmp_path / "none.csv"))
    assert "--split dev" in refusal(tmp_path, labels=str(labels), split="dev")
    (tmp_path / "file").touch()
    assert "--output" in refusal(tmp_path, labels=str(labels), output=str(tmp_path / "file"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert "pip install 'ser-batch[report]'" in refusal(tmp_path, labels=str(labels))
