"""Labels against truth: every recording counts, and what the numbers hide is said."""

import json
import re

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sklearn.metrics

from jobs.command import run
from ser_core.errors import UsageError
from ser_core.evaluation import metrics
from ser_core.evaluation.config import EvaluateConfig
from ser_core.evaluation.job import evaluate_labels
from ser_core.evaluation.predictions import judge
from ser_core.evaluation.report import fit_on_validation, score
from ser_core.reporting import html as pages
from ser_core.schema import output_schema

LABELS = ("angry", "happy", "sad")
CLASSES = len(LABELS)


def label_rows(paths, scores, **columns):
    """Rows as jobs.label writes them; the recording is labelled where its scores are finite."""
    rows = len(paths)
    ok = np.isfinite(scores).all(axis=1)
    best = np.where(ok, scores.argmax(axis=1), 0)
    word = [LABELS[i] if fine else None for i, fine in zip(best, ok, strict=True)]
    table = {
        "path": paths,
        "file_id": paths,
        "duration": [1.0] * rows,
        "sampling_rate": [16_000] * rows,
        "label": word,
        "score": np.where(ok, scores.max(axis=1), np.nan),
        **{f"score_{name}": scores[:, i] for i, name in enumerate(LABELS)},
        "status": np.where(ok, "ok", "decode_error"),
        "error": [None if fine else "no decoder reads it" for fine in ok],
        "model": ["tiny"] * rows,
        "model_digest": ["0"] * rows,
        "labeled_at": [pd.Timestamp("2026-01-01", tz="UTC")] * rows,
        **columns,
    }
    own = pa.schema([(name, pa.string()) for name in columns if name != "labeled_at"])
    schema = output_schema(LABELS, own)
    return pa.table({f.name: pa.array(list(table[f.name]), f.type) for f in schema}, schema)


@pytest.fixture
def labels(tmp_path):
    """200 recordings by 4 speakers, in two parts, 10 without a label; twice too sure."""
    random = np.random.default_rng(0)
    logits = random.normal(size=(200, CLASSES))
    truth = [LABELS[random.choice(CLASSES, p=row)] for row in metrics.at_temperature(logits, 1)]
    scores = metrics.at_temperature(3 * logits, 1).astype(np.float32)
    scores[:10] = np.nan
    paths = [f"/c/{n:03}.wav" for n in range(200)]
    columns = {
        "truth": truth,
        "speaker": [f"s{n % 4}" for n in range(200)],
        "split": ["validation" if n % 2 else "test" for n in range(200)],
    }
    table = label_rows(paths, scores, **columns)
    (tmp_path / "labels").mkdir()
    pq.write_table(table.slice(0, 90), tmp_path / "labels" / "part-a.parquet")
    pq.write_table(table.slice(90), tmp_path / "labels" / "part-b.parquet")
    (tmp_path / "labels" / "_runs").mkdir()
    (tmp_path / "labels" / "_runs" / "x.json").write_text("{}")
    return tmp_path / "labels"


def carded(labels, truth=None):
    return score(judge(str(labels), str(truth) if truth else None))


def test_numbers_are_scikit_learns(labels):
    card = carded(labels)
    frame = pd.read_parquet(labels)
    guess = frame["label"].astype(object).fillna("none")
    options = {"labels": LABELS, "average": "macro", "zero_division": 0}
    expected = {
        "accuracy": sklearn.metrics.accuracy_score(frame["truth"], guess),
        "uar": sklearn.metrics.recall_score(frame["truth"], guess, **options),
        "macro_f1": sklearn.metrics.f1_score(frame["truth"], guess, **options),
    }
    found = {name: card.summary[name] for name in expected}
    assert found == pytest.approx(expected)
    ok = frame[frame["status"] == "ok"]
    scores = ok[[f"score_{name}" for name in LABELS]].to_numpy()
    loss = sklearn.metrics.log_loss(ok["truth"], scores, labels=LABELS)
    assert card.summary["loss"] == pytest.approx(loss)
    right = (ok["label"].astype(str) == ok["truth"]).to_numpy()
    ece = metrics.expected_calibration_error(ok["score"].to_numpy(), right)
    assert card.summary["ece"] == pytest.approx(ece)
    confusion = sklearn.metrics.confusion_matrix(frame["truth"], guess, labels=[*LABELS, "none"])
    assert (card.tables["confusion"].to_numpy() == confusion[:CLASSES]).all()
    recall = sklearn.metrics.recall_score(frame["truth"], guess, labels=LABELS, average=None)
    assert card.tables["classes"]["recall"].tolist() == pytest.approx(recall.tolist())


def test_files_without_a_label_are_errors(labels):
    card = carded(labels)
    assert card.summary["recordings"] == 200
    assert card.summary["without_label"] == {"decode_error": 10}
    right = pd.read_parquet(labels).eval("label.astype('str') == truth", engine="python").sum()
    assert card.summary["accuracy"] == right / 200
    assert any("10 of 200 recordings have no label (decode_error 10)" in n for n in card.notes)


def test_what_was_never_labelled_is_an_error_too(labels, tmp_path):
    frame = pd.read_parquet(labels)[["path", "truth"]]
    frame.loc[len(frame)] = ["/c/never.wav", "sad"]
    frame.iloc[20:].to_csv(tmp_path / "truth.csv", index=False)
    judged = judge(str(labels), str(tmp_path / "truth.csv"))
    assert np.isnan(judged.scores[-1]).all()
    card = score(judged)
    assert card.summary["recordings"] == 181
    assert card.summary["without_label"] == {"no row": 1}
    assert card.summary["labels_without_truth"] == 20
    assert any("20 labels have no truth" in note for note in card.notes)


def test_intervals_are_over_speakers(labels):
    card = carded(labels)
    assert card.summary["interval"]["over"] == "speakers"
    assert "4 speakers" in card.notes[0]
    assert "too narrow" in card.notes[0]
    low, high = card.summary["interval"]["uar"]
    assert low < card.summary["uar"] < high
    speakers = card.tables["speakers"].set_index("speaker")
    frame = pd.read_parquet(labels)
    right = frame["label"].astype(object) == frame["truth"]
    assert speakers["accuracy"].to_dict() == right.groupby(frame["speaker"]).mean().to_dict()
    assert speakers["without_label"].sum() == 10
    assert speakers["uar"].is_monotonic_increasing


def test_intervals_over_recordings_where_speakers_are_unknown(labels, tmp_path):
    pd.read_parquet(labels)[["path", "truth"]].to_parquet(tmp_path / "truth.parquet")
    card = carded(labels, tmp_path / "truth.parquet")
    assert card.summary["interval"]["over"] == "recordings"
    assert "nothing about other speakers" in card.notes[0]
    assert card.tables["speakers"].empty


def test_a_speaker_without_a_name_is_nobody(labels):
    frame = pd.read_parquet(labels)
    columns = {name: frame[name] for name in ("truth", "split")}
    columns["speaker"] = frame["speaker"].replace({"s0": "", "s1": ""})
    scores = frame[[f"score_{name}" for name in LABELS]].to_numpy()
    pq.write_table(label_rows(frame["path"], scores, **columns), labels.parent / "one.parquet")
    assert sorted(carded(labels.parent / "one.parquet").tables["speakers"]["speaker"]) == [
        "s2",
        "s3",
    ]


def test_one_known_speaker_is_none_to_draw(labels, tmp_path):
    frame = pd.read_parquet(labels)[["path", "truth", "speaker"]]
    frame.loc[frame["speaker"] != "s0", "speaker"] = None
    frame.to_parquet(tmp_path / "truth.parquet")
    card = carded(labels, tmp_path / "truth.parquet")
    assert card.summary["interval"]["over"] == "recordings"
    assert card.tables["speakers"]["recordings"].tolist() == [50]


def test_classes_that_only_one_side_knows(labels, tmp_path):
    frame = pd.read_parquet(labels)[["path", "truth"]].iloc[10:]
    frame["truth"] = frame["truth"].replace({"sad": "Boredom", "angry": "anger"})
    frame.to_csv(tmp_path / "truth.csv", index=False)
    card = carded(labels, tmp_path / "truth.csv")
    assert card.summary["classes"] == [*LABELS, "boredom"]
    assert card.summary["unknown_to_model"] == ["boredom"]
    assert card.summary["never_in_truth"] == ["sad"]
    both = pd.read_parquet(labels).iloc[10:].query("truth != 'sad'")
    known = (both["label"].astype(object) == both["truth"]).mean()
    assert card.summary["classes_that_the_model_knows"]["accuracy"] == pytest.approx(known)
    assert card.summary["accuracy"] == pytest.approx(known * len(both) / 190)
    assert any("does not know boredom" in note for note in card.notes)
    assert any("also knows sad" in note for note in card.notes)


def test_paths_relative_to_the_truth(labels, tmp_path):
    frame = pd.read_parquet(labels)
    moved = frame["path"].str.replace("/c/", f"{tmp_path}/c/")
    columns = {name: frame[name] for name in ("truth", "speaker", "split")}
    scores = frame[[f"score_{name}" for name in LABELS]].to_numpy()
    pq.write_table(label_rows(moved, scores, **columns), tmp_path / "moved.parquet")
    relative = frame[["truth"]].assign(path=frame["path"].str.removeprefix("/"))
    relative.to_csv(tmp_path / "truth.csv", index=False)
    assert (
        carded(tmp_path / "moved.parquet", tmp_path / "truth.csv").summary["uar"]
        == (carded(labels).summary["uar"])
    )


def test_on_an_object_store(labels):
    fs = fsspec.filesystem("memory")
    fs.put(str(labels), "/bucket/labels", recursive=True)
    assert carded("memory://bucket/labels").summary == carded(labels).summary
    output = "memory://bucket/evaluation"
    evaluate_labels(EvaluateConfig(labels="memory://bucket/labels", output=output))
    assert fs.cat_file("/bucket/evaluation/index.html").startswith(b"<!doctype html>")


def test_the_newest_row_of_a_path_counts(labels):
    frame = pd.read_parquet(labels)
    right = np.eye(CLASSES, dtype=np.float32)[[LABELS.index(name) for name in frame["truth"]]]
    columns = {name: frame[name] for name in ("truth", "speaker", "split")}
    newer = [pd.Timestamp("2026-02-01", tz="UTC")] * len(frame)
    rows = label_rows(frame["path"], right, labeled_at=newer, **columns)
    pq.write_table(rows, labels / "part-0.parquet")
    assert carded(labels).summary["accuracy"] == 1


def test_temperature_is_fitted_elsewhere(labels, tmp_path):
    judged = judge(str(labels), None)
    temperature = fit_on_validation(judged)
    assert temperature == pytest.approx(3, rel=0.4)  # what the fixture's scores were made with
    config = {"labels": str(labels), "output": str(tmp_path / "out")}
    after = evaluate_labels(EvaluateConfig(**config, split="test")).summary["with_temperature"]
    assert after["temperature"] == temperature
    test = score(judged.of_split("test")).summary
    assert after["loss"] < test["loss"]
    assert after["ece"] < test["ece"]
    for split in (None, "validation"):  # never on what it was fitted on
        card = evaluate_labels(EvaluateConfig(**config, split=split))
        assert card.summary["with_temperature"] is None


def test_what_is_written(labels, tmp_path, capsys):
    output = tmp_path / "out"
    argv = ["--labels", str(labels), "--output", str(output), "--split", "test"]
    assert run(EvaluateConfig, evaluate_labels, argv) == 0
    names = "classes.csv confusion.csv confusion.png index.html metrics.json reliability.csv"
    assert sorted(path.name for path in output.iterdir()) == [
        *names.split(), "reliability.png", "speakers.csv"
    ]  # fmt: skip
    summary = json.loads((output / "metrics.json").read_text())
    assert summary["recordings"] == 100
    confusion = pd.read_csv(output / "confusion.csv", index_col="truth")
    assert confusion.to_numpy().sum() == 100
    page = (output / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert not re.search(r"(src|href)=[\"'](?!data:)", page)  # needs no other file
    assert f"{summary['uar']:.3f}" in page
    printed = capsys.readouterr().out
    assert f"UAR {summary['uar']:.3f}" in printed
    for name in ("confusion.png", "reliability.png"):
        assert (output / name).read_bytes().startswith(b"\x89PNG")


def test_names_are_escaped_on_the_page(labels, tmp_path):
    frame = pd.read_parquet(labels)[["path", "truth"]].assign(speaker="<script>alert(1)</script>")
    frame.loc[0, "speaker"] = "b"
    frame.to_parquet(tmp_path / "truth.parquet")
    config = EvaluateConfig(
        labels=str(labels), truth=str(tmp_path / "truth.parquet"), output=str(tmp_path / "out")
    )
    evaluate_labels(config)
    assert "<script>" not in (tmp_path / "out" / "index.html").read_text()


def test_nothing_labelled_is_told(labels, tmp_path):
    frame = pd.read_parquet(labels).iloc[:10][["path", "truth"]]
    frame.to_parquet(tmp_path / "truth.parquet")
    config = EvaluateConfig(
        labels=str(labels), truth=str(tmp_path / "truth.parquet"), output=str(tmp_path / "out")
    )
    summary = evaluate_labels(config).summary
    assert (summary["accuracy"], summary["loss"], summary["ece"]) == (0, None, None)


def refusal(tmp_path, **settings):
    with pytest.raises(UsageError) as caught:
        evaluate_labels(EvaluateConfig(**{"output": str(tmp_path / "out"), **settings}))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    return str(caught.value)


def test_commands_that_cannot_run(labels, tmp_path, monkeypatch):
    frame = pd.read_parquet(labels)
    bare = tmp_path / "bare"
    bare.mkdir()
    table = pq.read_table(labels / "part-a.parquet")
    pq.write_table(table.drop_columns("truth"), bare / "part-a.parquet")
    assert "--truth is missing" in refusal(tmp_path, labels=str(bare))
    other = tmp_path / "other.csv"
    frame[["path", "truth"]].assign(path="x" + frame["path"]).to_csv(other, index=False)
    assert "none of its paths, like x/c/000.wav" in refusal(
        tmp_path, labels=str(labels), truth=str(other)
    )
    assert "no such folder" in refusal(tmp_path, labels=str(tmp_path / "none"))
    words = refusal(tmp_path, labels=str(labels), split="dev")
    assert "--split dev: no recording is of it; the truth has test, validation" in words
    frame[["path", "truth"]].to_parquet(tmp_path / "t.parquet")
    words = refusal(tmp_path, labels=str(tmp_path / "t.parquet"))
    assert "it has no columns label, score_<label>, status" in words
    assert "not labels that can be read" in refusal(tmp_path, labels=str(other))
    (tmp_path / "file").touch()
    assert "--output" in refusal(tmp_path, labels=str(labels), output=str(tmp_path / "file"))
    monkeypatch.setattr(pages.importlib.util, "find_spec", lambda _: None)
    assert "pip install 'ser-batch[report]'" in refusal(tmp_path, labels=str(labels))
