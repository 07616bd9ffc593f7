"""Every recording counts, and notes state the limits of the figures."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from ser_core.evaluation import metrics
from ser_core.evaluation.predictions import Predictions, read_predictions
from ser_core.evaluation.report import fit_on_validation, make_report

LABELS = ("angry", "happy", "sad")


def report_on(labels, truth=None):
    return make_report(read_predictions(str(labels), str(truth) if truth else None))


def by_hand(truth, prediction, **columns):
    """A report on predictions with score 0.8; None is a recording without a label."""
    scores = np.full((len(truth), 3), np.nan, np.float32)
    for row, name in enumerate(prediction):
        if name is not None:
            scores[row] = np.where(np.array(LABELS) == name, 0.8, 0.1)
    recordings = pd.DataFrame(
        {
            "path": [f"{n}" for n in range(len(truth))],
            "identity": [f"/{n}" for n in range(len(truth))],
            "truth": truth,
            "speaker": None,
            "split": None,
            "status": ["ok" if name else "empty" for name in prediction],
            "prediction": prediction,
            **columns,
        },
        dtype=object,
    )
    return make_report(Predictions(recordings, scores, LABELS, ("tiny",)))


def test_figures_by_hand():
    truth = ["angry", "angry", "angry", "happy", "happy", "sad"]
    report = by_hand(truth, ["angry", "angry", "happy", "happy", None, "angry"])
    summary = report.summary
    assert summary["accuracy"] == 3 / 6
    assert summary["uar"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert summary["macro_f1"] == pytest.approx((4 / 6 + 2 / 4 + 0) / 3)
    assert summary["loss"] == pytest.approx(-(3 * np.log(0.8) + 2 * np.log(0.1)) / 5)
    assert summary["ece"] == pytest.approx(0.8 - 3 / 5)
    assert summary["without_label"] == {"empty": 1}
    assert summary["confidence"] == pytest.approx(0.8)
    assert summary["accuracy_of_labelled"] == 3 / 5
    assert report.tables["confusion"].to_numpy().tolist() == [
        [2, 1, 0, 0],
        [0, 1, 0, 1],
        [1, 0, 0, 0],
    ]
    classes = report.tables["classes"].set_index("class")
    assert classes["recordings"].tolist() == [3, 2, 1]
    assert classes["predicted"].tolist() == [3, 2, 0]
    assert classes["recall"].tolist() == pytest.approx([2 / 3, 1 / 2, 0])
    assert classes["precision"].tolist()[:2] == pytest.approx([2 / 3, 1 / 2])
    assert np.isnan(classes.loc["sad", "precision"])
    reliability = report.tables["reliability"]
    assert reliability["recordings"].sum() == 5
    row = reliability[reliability["recordings"] > 0].iloc[0]
    assert row["from"] <= 0.8 < row["to"]


def test_chance_by_hand():
    truth = ["angry", "angry", "angry", "happy", "sad"]
    report = by_hand(truth, ["angry", "sad", "happy", "happy", "sad"], speaker=list("aabbb"))
    chance = report.summary["chance"]
    assert (chance["accuracy"], chance["most_frequent"]) == (0.6, "angry")
    assert chance["uar"] == chance["macro_f1"] == 1 / 3
    assert chance["loss"] == pytest.approx(np.log(3))
    assert 0 < chance["ece"] < chance["ece_95"]
    classes = report.tables["classes"]
    assert classes["share"].tolist() == [0.6, 0.2, 0.2]
    assert classes["recall_chance"].tolist() == [1 / 3] * 3
    speakers = report.tables["speakers"].set_index("speaker")
    assert speakers["uar_chance"].to_dict() == {"a": 1, "b": 1 / 3}
    assert speakers["accuracy_chance"].to_dict() == {"a": 1, "b": pytest.approx(1 / 3)}


def test_recordings_without_a_label_are_errors(labels):
    report = report_on(labels)
    assert report.summary["recordings"] == 200
    assert report.summary["without_label"] == {"decode_error": 10}
    frame = pd.read_parquet(labels)
    assert report.summary["accuracy"] == sum(frame["label"] == frame["truth"]) / 200
    assert any("10 of 200 recordings have no label (decode_error 10)" in n for n in report.notes)


def test_recordings_that_were_not_labelled_are_errors(labels, tmp_path):
    frame = pd.read_parquet(labels)[["path", "truth"]]
    frame.loc[len(frame)] = ["/c/never.wav", "sad"]
    frame.iloc[20:].to_csv(tmp_path / "truth.csv", index=False)
    report = report_on(labels, tmp_path / "truth.csv")
    assert report.summary["recordings"] == 181
    assert report.summary["without_label"] == {"no row": 1}
    assert report.summary["labels_without_truth"] == 20
    assert any("Ignored: 20 labels without truth" in note for note in report.notes)


def test_nothing_is_labelled():
    report = by_hand(["sad", "happy"], [None, None])
    summary = report.summary
    assert (summary["accuracy"], summary["loss"], summary["ece"]) == (0, None, None)
    assert (summary["chance"]["uar"], summary["chance"]["ece"]) == (0.5, None)
    assert report.tables["confident_errors"].empty
    assert report.tables["least_sure"].empty


def test_intervals_over_speakers(labels):
    report = report_on(labels)
    assert report.summary["interval"]["over"] == "speakers"
    assert report.summary["interval"]["speakers"] == 4
    assert "4 speakers" in report.notes[0]
    assert "too narrow" in report.notes[0]
    low, high = report.summary["interval"]["uar"]
    assert low < report.summary["uar"] < high


def test_speakers(labels):
    speakers = report_on(labels).tables["speakers"].set_index("speaker")
    frame = pd.read_parquet(labels)
    correct = frame["label"].astype(object) == frame["truth"]
    assert speakers["accuracy"].to_dict() == correct.groupby(frame["speaker"]).mean().to_dict()
    assert speakers["recordings"].tolist() == [50] * 4
    assert speakers["without_label"].sum() == 10
    assert speakers["uar"].is_monotonic_increasing
    by_class = correct.groupby([frame["speaker"], frame["truth"]]).mean()
    expected = by_class.groupby("speaker").mean()
    assert speakers["uar"].to_dict() == pytest.approx(expected.to_dict())


def test_intervals_over_recordings_if_speakers_are_unknown(labels, tmp_path):
    pd.read_parquet(labels)[["path", "truth"]].to_parquet(tmp_path / "truth.parquet")
    report = report_on(labels, tmp_path / "truth.parquet")
    assert report.summary["interval"]["over"] == "recordings"
    assert "nothing about other speakers" in report.notes[0]
    assert report.tables["speakers"].empty


def test_one_known_speaker_is_not_resampled():
    report = by_hand(["sad", "sad", "sad"], ["sad", "angry", "sad"], speaker=["s0", None, "s0"])
    assert report.summary["interval"]["over"] == "recordings"
    assert report.tables["speakers"]["speaker"].tolist() == ["s0"]
    assert report.tables["speakers"]["recordings"].tolist() == [2]


def test_known_speakers_are_the_only_groups():
    """An empty one for unknown speakers would be resampled, too."""
    truth = ["sad"] * 20
    report = by_hand(truth, ["sad"] * 10 + ["angry"] * 10, speaker=["s0"] * 10 + ["s1"] * 10)
    assert report.summary["interval"]["accuracy"] == (0, 1)


def test_resamples_in_blocks_are_those_of_one(monkeypatch):
    confusions = np.random.default_rng(0).integers(0, 9, (50, 3, 4))
    whole = metrics.interval_over_groups(confusions)
    monkeypatch.setattr(metrics, "_MOST_DRAWN", 50 * 700)
    assert metrics.interval_over_groups(confusions) == whole


def test_unknown_speakers_are_resampled_but_not_listed():
    truth = ["sad"] * 30
    speaker = ["s0"] * 10 + ["s1"] * 10 + [None] * 10
    report = by_hand(truth, ["sad"] * 20 + ["angry"] * 10, speaker=speaker)
    assert report.tables["speakers"]["speaker"].tolist() == ["s0", "s1"]
    assert report.summary["interval"]["speakers"] == 2
    low, high = report.summary["interval"]["accuracy"]  # 3 groups: all unknown, or none
    assert (low, high) == (0, 1)


def test_classes_that_only_the_truth_or_the_model_has():
    truth = ["boredom", "boredom", "angry", "angry", "happy"]
    report = by_hand(truth, ["angry", "sad", "angry", "happy", "happy"])
    summary = report.summary
    assert summary["classes"] == [*LABELS, "boredom"]
    assert summary["unknown_to_model"] == ["boredom"]
    assert summary["never_in_truth"] == ["sad"]
    assert summary["accuracy"] == 2 / 5
    assert summary["uar"] == pytest.approx((0 + 1 / 2 + 1) / 3)
    known = summary["classes_that_the_model_knows"]
    assert known["recordings"] == 3
    assert known["accuracy"] == pytest.approx(2 / 3)
    assert known["uar"] == 0.75
    assert known["chance"] == {"accuracy": pytest.approx(2 / 3), "uar": 0.5, "macro_f1": 0.5}
    assert summary["chance"]["uar"] == 1 / 3  # of the classes in truth
    assert summary["loss"] == pytest.approx(-(2 * np.log(0.8) + np.log(0.1)) / 3)
    assert any("does not know boredom" in note for note in report.notes)
    assert any("also knows sad" in note for note in report.notes)


def test_a_temperature_is_fitted_on_validation(labels):
    predictions = read_predictions(str(labels), None)
    temperature = fit_on_validation(predictions)
    assert temperature == pytest.approx(3, rel=0.4)  # the fixture multiplies its logits by 3
    validation = predictions.of_split("validation")
    labelled = validation.recordings["prediction"].notna().to_numpy()
    truth = validation.recordings["truth"].map(LABELS.index).to_numpy(int)[labelled]
    logits = np.log(validation.scores[labelled])
    assert temperature == metrics.fit_temperature(logits, truth)
    assert fit_on_validation(predictions.of_split("test")) is None
    test = predictions.of_split("test")
    before, scaled = make_report(test).summary, make_report(test, temperature).summary
    assert before["with_temperature"] is None
    assert scaled["with_temperature"]["temperature"] == temperature
    assert scaled["with_temperature"]["loss"] < before["loss"] == scaled["loss"]
    assert scaled["with_temperature"]["ece"] < before["ece"] == scaled["ece"]


def test_several_models_are_stated(labels):
    predictions = read_predictions(str(labels), None)
    several = Predictions(predictions.recordings, predictions.scores, LABELS, ("a", "b"))
    assert "Several models made the labels: a, b." in make_report(several).notes


def test_a_temperature_that_makes_calibration_worse_is_not_offered(label_rows, tmp_path):
    """Validation is overconfident, and test is not confident enough."""
    random, rows = np.random.default_rng(0), 400
    logits = random.normal(size=(rows, 3))
    truth = [LABELS[random.choice(3, p=row)] for row in metrics.at_temperature(logits, 1)]
    split = np.where(np.arange(rows) % 2, "validation", "test")
    scale = np.where(split == "validation", 4, 0.5)[:, np.newaxis]
    table = label_rows(
        [f"/{n}" for n in range(rows)],
        metrics.at_temperature(logits * scale, 1),
        truth=truth,
        split=split.tolist(),
    )
    pq.write_table(table, tmp_path / "labels.parquet")
    predictions = read_predictions(str(tmp_path / "labels.parquet"), None)
    temperature = fit_on_validation(predictions)
    assert temperature > 2
    (note,) = [
        note
        for note in make_report(predictions.of_split("test"), temperature).notes
        if note.startswith("Temperature")
    ]
    assert note.endswith("Both get worse, so do not use it.")
