"""Manifests with truth are read as they are; what cannot be used is refused in one line."""

import pandas as pd
import pytest
from misbehaving_store import BUCKET
from recordings import write_manifest

from ser_core.corpora.layouts import read_corpus
from ser_core.corpora.truth import read_truth
from ser_core.errors import CorpusError, RunError


def frame_of(truth="truth"):
    return pd.DataFrame(
        {
            "path": ["b.wav", "a b.wav", "/far/c.wav", "d.wav"],
            truth: ["Anger", "高兴", "awe", None],
            "speaker": ["007", "8", None, "9"],
            "take": [1, 2, 3, 4],
        }
    )


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("truth", ["truth", "label"])
def test_a_manifest(tmp_path, caplog, suffix, truth):
    uri = write_manifest(frame_of(truth), tmp_path / f"m{suffix}")
    recordings = read_truth(uri, "--truth")
    assert list(recordings.columns) == ["path", "truth", "speaker", "sentence"]
    assert recordings["path"].tolist() == ["b.wav", "a b.wav", "/far/c.wav"]
    assert recordings["truth"].tolist() == ["angry", "happy", "awe"]
    assert recordings["speaker"].tolist() == ["007", "8", None]
    assert recordings["sentence"].tolist() == [None] * 3
    assert f"--truth {uri}: skipped rows without truth: 1 (d.wav)" in caplog.text


def test_truth_comes_before_label(tmp_path):
    frame = frame_of().assign(label="sad", split="test")
    recordings = read_truth(write_manifest(frame, tmp_path / "m.csv"), "--truth")
    assert recordings["truth"].tolist() == ["angry", "happy", "awe"]
    assert recordings["split"].tolist() == ["test"] * 3


def refusal(frame, path):
    with pytest.raises(CorpusError) as caught:
        read_truth(write_manifest(frame, path) if frame is not None else str(path), "--truth")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"--truth {path}: ")
    return str(caught.value)


def test_what_is_refused(tmp_path):
    path = tmp_path / "m.csv"
    wrong = pd.DataFrame({"path": ["a"], "emotion": ["sad"]})
    assert "it has path, emotion" in refusal(wrong, path)
    assert "it has truth" in refusal(pd.DataFrame({"truth": ["sad"]}), path)
    assert "no row has a truth" in refusal(pd.DataFrame({"path": ["a"], "truth": [None]}), path)
    repeated = pd.DataFrame({"path": ["a", "a"], "truth": ["sad", "sad"]})
    assert "a path twice: a" in refusal(repeated, path)
    nameless = pd.DataFrame({"path": ["a", None], "truth": ["sad", "sad"]})
    assert "a row has no path" in refusal(nameless, tmp_path / "m.jsonl")
    assert "a row has no path" in refusal(nameless, path)
    numbered = pd.DataFrame({"path": [1], "truth": ["sad"]})
    assert "not text but int64" in refusal(numbered, tmp_path / "m.parquet")
    listed = pd.DataFrame({"path": ["a"], "truth": [["sad"]]})
    assert "cannot be read" in refusal(listed, tmp_path / "m.jsonl")
    assert "no rows" in refusal(pd.DataFrame({"path": [], "truth": []}), path)
    assert "no such file" in refusal(None, tmp_path / "none.csv")
    assert "not a manifest" in refusal(None, tmp_path)
    path.write_bytes(b"")
    assert "no rows" in refusal(None, path)
    path.write_bytes(b"path,truth\n\xff\xfe.wav,sad\n")
    assert "cannot be read" in refusal(None, path)


@pytest.mark.parametrize("deadline", [0.5], indirect=True)
@pytest.mark.usefixtures("deadline")
@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        (503, RunError, "cannot be reached ("),
        (403, CorpusError, "cannot be read ("),
        (404, CorpusError, "there is no such file"),
    ],
)
def test_storage_out_of_reach_is_told_from_a_bad_command(store, fault, error, words):
    store.fault = lambda *_: fault
    uri = f"s3://{BUCKET}/m.csv"
    for read, flag in (
        (lambda: read_truth(uri, "--truth"), "--truth"),
        (lambda: read_corpus("manifest", uri), "--data"),
    ):
        with pytest.raises(error) as caught:
            read()
        assert str(caught.value).startswith(f"{flag} {uri}: {words}")
