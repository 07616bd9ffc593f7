"""Labels are joined with the truth of the same recording, and no recording is dropped."""

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ser_core.errors import CorpusError
from ser_core.evaluation.predictions import NO_ROW, read_predictions

LABELS = ("angry", "happy", "sad")
ANGRY, HAPPY, SAD = np.eye(3)


def write(folder, table, name="part-a"):
    folder.mkdir(exist_ok=True)
    pq.write_table(table, folder / f"{name}.parquet")
    return str(folder)


def write_truth(folder, **columns):
    folder.mkdir(exist_ok=True)
    pd.DataFrame(columns).to_csv(folder / "truth.csv", index=False)
    return str(folder / "truth.csv")


def predicted(predictions):
    return dict(predictions.recordings[["path", "prediction"]].itertuples(index=False, name=None))


def test_the_truth_of_the_labels(labels):
    predictions = read_predictions(str(labels), None)
    frame = pd.read_parquet(labels)
    recordings = predictions.recordings
    for name in ("path", "truth", "speaker", "split", "status"):
        assert recordings[name].tolist() == frame[name].tolist()
    assert recordings["prediction"].tolist() == [
        None if pd.isna(label) else label for label in frame["label"]
    ]
    scores = frame[[f"score_{name}" for name in LABELS]].to_numpy()
    np.testing.assert_array_equal(predictions.scores, scores)
    assert predictions.classes == LABELS
    assert predictions.models == ("tiny",)
    assert predictions.labels_without_truth == 0


def test_recordings_of_the_truth_alone_are_kept(labels, tmp_path):
    truth = write_truth(
        tmp_path, path=["/c/100.wav", "/c/new.wav", "/c/000.wav"], truth=["sad"] * 3
    )
    predictions = read_predictions(str(labels), truth)
    assert predictions.recordings["status"].tolist() == ["ok", NO_ROW, "decode_error"]
    assert predictions.recordings["identity"].tolist() == ["/c/100.wav", None, "/c/000.wav"]
    assert predictions.recordings["prediction"].isna().tolist() == [False, True, True]
    assert np.isnan(predictions.scores).all(axis=1).tolist() == [False, True, True]
    assert predictions.labels_without_truth == 198


# ---- classes -------------------------------------------------------------------------------------


def test_a_manifests_score_column_is_not_a_class(label_rows, tmp_path):
    table = label_rows(["/a", "/b"], [ANGRY, SAD], truth=["sad", "sad"], score_manual=["4", "5"])
    folder = write(tmp_path / "labels", table)
    predictions = read_predictions(folder, None)
    assert predictions.classes == LABELS
    assert predictions.scores.tolist() == [ANGRY.tolist(), SAD.tolist()]


def test_parts_of_models_with_different_classes(label_rows, tmp_path):
    table = label_rows(["/a"], [SAD], truth=["sad"])
    older = table.drop_columns("score_happy")
    folder = write(tmp_path / "labels", older)
    write(tmp_path / "labels", label_rows(["/b"], [HAPPY], truth=["sad"]), "part-b")
    predictions = read_predictions(folder, None)
    assert predictions.classes == ("angry", "sad", "happy")
    assert predictions.scores.tolist() == [[0, 1, 0], [0, 0, 1]]


def test_names_of_classes_are_canonical(label_rows, tmp_path):
    table = label_rows(["/a", "/b"], [SAD, HAPPY], truth=["sadness", "joy"])
    renamed = table.rename_columns([n.replace("sad", "Sadness") for n in table.column_names])
    label = pa.array(["Sadness", "happy"])
    renamed = renamed.set_column(renamed.schema.get_field_index("label"), "label", label)
    folder = write(tmp_path / "labels", renamed)
    predictions = read_predictions(folder, None)
    assert predictions.classes == ("angry", "happy", "sad")
    recordings = predictions.recordings
    assert recordings["prediction"].tolist() == recordings["truth"].tolist() == ["sad", "happy"]


def test_classes_with_the_same_canonical_name_stay_apart(label_rows, tmp_path):
    table = label_rows(["/a"], [ANGRY], truth=["joy"])
    renamed = table.rename_columns(
        [n.replace("score_sad", "score_joy") for n in table.column_names]
    )
    folder = write(tmp_path / "labels", renamed)
    assert read_predictions(folder, None).classes == ("angry", "happy", "joy")


def test_truth_of_classes_with_the_same_canonical_name(label_rows, tmp_path):
    """The others keep their canonical names, in truth as well."""
    truth = [" Joy", "happy", "anger", "disgusted"]
    table = label_rows(["/a", "/b", "/c", "/d"], [SAD, HAPPY, ANGRY, ANGRY], truth=truth)
    renamed = table.rename_columns(
        [n.replace("score_sad", "score_joy") for n in table.column_names]
    )
    label = pa.array(["joy", "happy", "angry", "angry"])
    renamed = renamed.set_column(renamed.column_names.index("label"), "label", label)
    found = read_predictions(write(tmp_path / "labels", renamed), None).recordings
    assert found["truth"].tolist() == ["joy", "happy", "angry", "disgust"]
    assert found["prediction"].tolist() == ["joy", "happy", "angry", "angry"]


def test_a_class_that_is_called_like_a_missing_label(label_rows, tmp_path):
    folder = write(tmp_path / "labels", label_rows(["/a"], [ANGRY], truth=["no label"]))
    with pytest.raises(CorpusError, match="a class is called `no label`"):
        read_predictions(folder, None)


# ---- rows ----------------------------------------------------------------------------------------


def test_manifests_with_the_same_relative_names(label_rows, tmp_path):
    """The folder of the truth decides which recording is meant."""
    uris = [
        f"{tmp_path}/{folder}/{name}" for folder in ("one", "two") for name in ("1.wav", "2.wav")
    ]
    rows = label_rows(["1.wav", "2.wav"] * 2, [ANGRY, SAD, HAPPY, HAPPY], uris=uris)
    folder = write(tmp_path / "labels", rows)
    columns = {"path": ["2.wav", "1.wav"], "truth": ["sad", "sad"]}
    one = read_predictions(folder, write_truth(tmp_path / "one", **columns))
    two = read_predictions(folder, write_truth(tmp_path / "two", **columns))
    assert predicted(one) == {"1.wav": "angry", "2.wav": "sad"}
    assert predicted(two) == {"1.wav": "happy", "2.wav": "happy"}
    assert one.labels_without_truth == two.labels_without_truth == 2
    with pytest.raises(CorpusError, match=r"several recordings with the same path \(1.wav, 2.wav"):
        read_predictions(folder, write_truth(tmp_path / "three", **columns))


def test_the_recording_at_the_path_comes_before_one_with_the_same_name(label_rows, tmp_path):
    here = f"{tmp_path}/1.wav"
    rows = label_rows(["1.wav", here], [ANGRY, SAD], uris=["/elsewhere/1.wav", here])
    folder = write(tmp_path / "labels", rows)
    truth = write_truth(tmp_path, path=["1.wav"], truth=["sad"])
    assert predicted(read_predictions(folder, truth)) == {"1.wav": "sad"}


def test_a_manifest_that_was_moved(label_rows, tmp_path):
    rows = label_rows(["1.wav", "2.wav"], [ANGRY, SAD], uris=["/gone/1.wav", "/gone/2.wav"])
    folder = write(tmp_path / "labels", rows)
    truth = write_truth(tmp_path, path=["2.wav", "3.wav"], truth=["sad", "sad"])
    assert predicted(read_predictions(folder, truth)) == {"2.wav": "sad", "3.wav": None}


def test_paths_relative_to_the_truth(label_rows, tmp_path):
    folder = write(tmp_path / "labels", label_rows([f"{tmp_path}/c/1.wav"], [SAD]))
    truth = write_truth(tmp_path / "t", path=["../c/1.wav"], truth=["sad"])
    assert predicted(read_predictions(folder, truth)) == {"../c/1.wav": "sad"}


@pytest.mark.parametrize("newer", ["part-0", "part-z"])  # sorted before and after part-a
def test_the_newest_row_of_a_recording(label_rows, tmp_path, newer):
    folder = write(tmp_path / "labels", label_rows(["/a", "/b"], [SAD, SAD], truth=["sad", "sad"]))
    later = pd.Timestamp("2026-02-01", tz="UTC")
    rows = label_rows(["/b"], [HAPPY], later, truth=["sad"])
    write(tmp_path / "labels", rows, newer)
    assert predicted(read_predictions(folder, None)) == {"/a": "sad", "/b": "happy"}


def test_a_recording_out_of_reach_keeps_its_label(label_rows, tmp_path):
    """In the folder of a run that did not finish, as the label store has not settled it."""
    folder = write(tmp_path / "labels", label_rows(["/a"], [SAD], truth=["sad"]))
    rows = label_rows(
        ["/a"], [np.full(3, np.nan)], pd.Timestamp("2026-02-01", tz="UTC"), truth=["sad"]
    )
    status = pa.array(["not_found"]).cast(rows.schema.field("status").type)
    rows = rows.set_column(rows.schema.get_field_index("status"), "status", status)
    write(tmp_path / "labels", rows, "part-b")
    assert predicted(read_predictions(folder, None)) == {"/a": "sad"}


def test_an_older_part_without_uri(label_rows, tmp_path):
    """Release 0.1 told recordings apart by their path."""
    older = label_rows(["/a", "/b"], [SAD, SAD], truth=["sad", "sad"])
    folder = write(tmp_path / "labels", older.drop_columns(["uri", "precision"]))
    later = pd.Timestamp("2026-02-01", tz="UTC")
    write(tmp_path / "labels", label_rows(["/b"], [HAPPY], later, truth=["sad"]), "part-b")
    assert predicted(read_predictions(folder, None)) == {"/a": "sad", "/b": "happy"}
    truth = write_truth(tmp_path, path=["/a"], truth=["sad"])
    assert predicted(read_predictions(folder, truth)) == {"/a": "sad"}


def test_a_truth_that_is_a_number(label_rows, tmp_path):
    """Columns are read as text, whatever their type in a part."""
    table = label_rows(["/a"], [SAD]).append_column("truth", pa.array([7]))
    assert read_predictions(write(tmp_path / "labels", table), None).recordings[
        "truth"
    ].tolist() == ["7"]


def test_an_empty_name_is_unknown(label_rows, tmp_path):
    rows = label_rows(["/a", "/b"], [SAD, SAD], truth=["sad", ""], speaker=["", "s"])
    predictions = read_predictions(write(tmp_path / "labels", rows), None)
    assert predictions.recordings[["path", "speaker"]].to_numpy().tolist() == [["/a", None]]
    assert predictions.labels_without_truth == 1


def test_a_single_file_and_an_object_store(labels):
    fsspec.filesystem("memory").put(str(labels), "/bucket/labels", recursive=True)
    local = read_predictions(str(labels), None).recordings
    assert read_predictions("memory://bucket/labels", None).recordings.equals(local)
    part = read_predictions("memory://bucket/labels/part-a.parquet", None)
    assert part.recordings.equals(local[:90])


# ---- refusals ------------------------------------------------------------------------------------


def refusal(labels, truth=None):
    with pytest.raises(CorpusError) as caught:
        read_predictions(str(labels), truth)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_refused(labels, label_rows, tmp_path):
    frame = pd.read_parquet(labels)
    bare = write(tmp_path / "bare", label_rows(["/a"], [SAD]))
    assert "--truth is missing" in refusal(bare)
    empty = write(tmp_path / "empty", label_rows(["/a"], [SAD], truth=[""]))
    assert "column `truth` is empty" in refusal(empty)
    truth = write_truth(tmp_path, path=["x/1.wav"], truth=["sad"])
    assert "none of its paths, like x/1.wav, is in the labels" in refusal(labels, truth)
    assert "no such file or folder" in refusal(tmp_path / "none")
    assert "no Parquet files" in refusal(labels / "__runs")
    frame[["path", "truth"]].to_parquet(tmp_path / "t.parquet")
    assert "no columns label, status, score_<label>" in refusal(tmp_path / "t.parquet")
    assert "cannot be read" in refusal(truth)
    none = write(tmp_path / "no rows", label_rows([], np.empty((0, 3)), truth=[]))
    assert "it has no rows" in refusal(none)
    (labels / "part-z.parquet").write_bytes(b"PAR1 but not Parquet")
    assert "cannot be read" in refusal(labels)


def test_a_split_without_recordings(labels):
    predictions = read_predictions(str(labels), None)
    assert (
        len(predictions.of_split("test").recordings)
        == len(predictions.of_split("test").scores)
        == 100
    )
    with pytest.raises(CorpusError, match=r"--split dev: .*the truth has test, validation"):
        predictions.of_split("dev")
