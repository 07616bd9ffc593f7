"""`ser_core.label`: what goes in, what comes out; tests/integration compares it with the job."""

import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pytest
import soundfile
from recordings import speech_like, write_audio

from ser_core.errors import CheckpointError, UsageError
from ser_core.labeling import in_process
from ser_core.labeling.in_process import label
from ser_core.models.checkpoint import load_checkpoint
from ser_core.models.classifier import Classifier
from ser_core.schema import output_schema

pytestmark = pytest.mark.usefixtures("one_thread")
SCORES = r"^score"


@pytest.fixture(scope="module")
def checkpoint(small_checkpoint):
    return load_checkpoint(small_checkpoint)


@pytest.fixture(scope="module")
def classifier(checkpoint):
    return Classifier(checkpoint, "fp32")


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """Paths relative to the working directory, the bad ones among the good ones."""
    monkeypatch.chdir(tmp_path)
    for number in range(4):
        write_audio(Path(f"{number}.wav"), speech_like(1 + number / 2, seed=number))
    Path("bad.wav").write_text("not audio")
    return ["3.wav", "bad.wav", "0.wav", "missing.wav", "2.wav", "0.wav", "1.wav"]


def scores(rows):
    return rows.filter(regex=SCORES).to_numpy()


def test_paths_in_their_order(corpus, classifier, checkpoint, small_checkpoint):
    rows = label(corpus, classifier)
    assert list(rows.columns) == output_schema(checkpoint.labels, pa.schema([])).names
    assert list(rows.index) == list(range(7))
    assert list(rows["path"]) == corpus
    assert list(rows["uri"]) == [str(Path(path).resolve()) for path in corpus]
    bad = {1: "decode_error", 3: "not_found"}
    assert list(rows["status"]) == [bad.get(row, "ok") for row in range(7)]
    assert rows["error"].notna().tolist() == [row in bad for row in range(7)]
    assert rows["label"].notna().tolist() == [row not in bad for row in range(7)]
    assert rows["duration"].dropna().tolist() == [2.5, 1.0, 2.0, 1.0, 1.5]
    assert set(rows["model"]) == {str(small_checkpoint)}
    assert set(rows["model_digest"]) == {checkpoint.digest}
    for path, row in zip(corpus, scores(rows), strict=True):
        if path[0].isdigit():
            (alone,) = classifier.scores([soundfile.read(path, dtype="float32")[0]])
            np.testing.assert_allclose(row, [alone.max(), *alone], atol=1e-5)


def test_one_path(corpus, classifier):
    for path in (corpus[0], Path(corpus[0]), np.array([corpus[0]])):
        assert list(label(path, classifier)["path"]) == [corpus[0]]


def test_nothing_to_label(classifier):
    rows = label([], classifier)
    assert rows.shape == (0, len(rows.columns))
    assert "score" in rows


@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_a_waveform_is_labelled_as_the_file_with_its_samples(tmp_path, classifier, rate, subtype):
    samples = speech_like(7.5, rate, channels=2)
    path = write_audio(tmp_path / "a.wav", samples[:, 0], rate, subtype=subtype)
    waveform, _ = soundfile.read(path, dtype="int16" if subtype == "PCM_16" else "float32")
    of_file = label(path, classifier)
    of_waveform = label(waveform, classifier, sampling_rate=rate)
    unnamed = ["path", "uri", "file_id"]
    assert of_waveform[unnamed].isna().all(axis=None)
    # Not nearly: these are the same samples.
    rest = [name for name in of_file if name not in [*unnamed, "labeled_at"]]
    pd.testing.assert_frame_equal(of_waveform[rest], of_file[rest], check_exact=True)


def test_waveforms_of_any_kind(classifier):
    samples = speech_like(1, channels=2)
    waveforms = [samples[:, 0], samples[:, 0].astype(np.float64), samples[:, 1], np.zeros(0)]
    waveforms += [np.full(16_000, np.nan, np.float32), samples[:, 0].tolist()]
    rows = label(waveforms, classifier)
    assert list(rows["status"]) == ["ok", "ok", "ok", "empty", "decode_error", "ok"]
    equal = scores(rows)[[0, 1, 5]]
    np.testing.assert_array_equal(equal[1:], equal[:-1])
    assert (scores(rows)[0] != scores(rows)[2]).any()


def test_a_data_frame_keeps_its_index_and_its_other_columns(corpus, classifier):
    frame = pd.DataFrame(
        {"speaker": pd.Categorical(list("abcdefg")), "path": corpus, 7: [object()] * 7},
        index=list("tuvvxyz"),
    )
    rows = label(frame, classifier)
    pd.testing.assert_frame_equal(rows[["speaker", 7]], frame[["speaker", 7]])
    assert list(rows.columns[-2:]) == ["speaker", 7]
    assert list(rows["path"]) == corpus
    series = label(frame["path"], classifier)
    assert list(series.index) == list(frame.index)
    waveforms = [speech_like(1, seed=seed) for seed in range(7)]
    rows = label(frame.drop(columns="path").assign(waveform=waveforms), classifier)
    pd.testing.assert_frame_equal(rows[["speaker", 7]], frame[["speaker", 7]])
    assert "waveform" not in rows


def test_stretches_of_a_file(tmp_path, classifier):
    samples = speech_like(9)
    path = str(write_audio(tmp_path / "a.wav", samples, subtype="FLOAT"))
    frame = pd.DataFrame({"path": [path] * 3, "start": [2.0, 5, None], "end": [4.0, None, None]})
    rows = label(frame, classifier)
    parts = [samples[32_000:64_000], samples[80_000:], samples]
    np.testing.assert_allclose(scores(rows), scores(label(parts, classifier)), atol=1e-5)
    assert list(rows["uri"]) == [f"{path}#t=2,4", f"{path}#t=5", path]


def test_all_of_a_long_recording(tmp_path, checkpoint):
    samples = speech_like(100)
    waveforms = [samples[:16_000], samples, samples[:16_000]]
    paths = [
        write_audio(tmp_path / f"{number}.wav", waveform, subtype="FLOAT")
        for number, waveform in enumerate(waveforms)
    ]
    classifier = Classifier(checkpoint, "fp32", batch_size=1)  # so that it comes in several tables
    expected = classifier.scores(waveforms)
    for recordings in (paths, waveforms):
        rows = label(recordings, classifier, segments="all")
        np.testing.assert_allclose(scores(rows)[:, 1:], expected, atol=1e-5)
        assert list(rows["duration"]) == [1, 100, 1]
        digest = load_checkpoint(checkpoint.name, segments="all").digest
        assert set(rows["model_digest"]) == {digest}


def test_what_is_loaded_is_not_loaded_again(monkeypatch, checkpoint, small_checkpoint):
    waveform = speech_like(1)
    expected = label(waveform, str(small_checkpoint), precision="fp32")
    monkeypatch.setattr(in_process, "load_checkpoint", None)  # a call would raise TypeError
    for model in (checkpoint, Classifier(checkpoint, "fp32")):
        rows = label(waveform, model, precision="fp32")
        pd.testing.assert_frame_equal(
            rows.drop(columns="labeled_at"), expected.drop(columns="labeled_at")
        )


# ---- arguments that cannot be used ---------------------------------------------------------------

BAD_RECORDINGS = [
    (None, "NoneType is no path, waveform or DataFrame"),
    (np.zeros((2, 9)), r"row 0 is a ndarray of shape \(2, 9\)"),
    ([np.zeros(9), np.zeros(9, bool)], "row 1 is a ndarray .* type bool"),
    (["a.wav", np.zeros(9)], "row 0 is a str"),
    (pd.DataFrame({"file": ["a.wav"]}), "a column `path` or a column `waveform`; .* has file"),
    (pd.DataFrame({"path": ["a.wav", None]}), "row 1 has no path"),
    (pd.DataFrame({"path": ["a.wav"], "label": ["sad"]}), "own columns label; rename"),
    (pd.DataFrame({"path": ["a.wav"], "start": [-1]}), "-1 is not a time"),
    (pd.DataFrame([["a.wav"] * 2], columns=["path"] * 2), "a column twice"),
    ({"path": ["a.wav", "b.wav"]}, "a dict is no path, waveform or DataFrame; use pandas"),
    (np.array("a.wav"), "a ndarray is no path, waveform or DataFrame"),
    ("https://me:secret@host/a.wav", "a password in a URI"),
]


@pytest.mark.parametrize(("recordings", "message"), BAD_RECORDINGS)
def test_recordings_that_are_none(classifier, recordings, message):
    with pytest.raises(UsageError, match=message) as caught:
        label(recordings, classifier)
    assert re.fullmatch(r"(?!.*(--|secret))[^\n]*", str(caught.value))


BAD_OPTIONS = [
    ({"model": "./nowhere"}, CheckpointError, "^./nowhere: no such folder"),
    ({"precision": "fp8"}, UsageError, "'fp8' is not one of auto, fp32, bf16, fp16"),
    ({"segments": "last"}, UsageError, "'last' is not one of first, all, speech"),
    ({"batch_size": 0}, UsageError, "batch_size 0"),
    ({"sampling_rate": 0}, UsageError, "sampling_rate 0"),
    ({"sampling_rate": 22_050.5}, UsageError, r"sampling_rate 22050\.5"),
]


@pytest.mark.parametrize(("options", "kind", "message"), BAD_OPTIONS)
def test_options_that_cannot_be(small_checkpoint, options, kind, message):
    with pytest.raises(kind, match=message) as caught:
        label(np.zeros(9), **{"model": small_checkpoint} | options)
    assert re.fullmatch("(?!.*--)[^\n]*", str(caught.value))


def test_options_that_do_not_go_together(classifier, checkpoint):
    for options in ({"precision": "bf16"}, {"batch_size": 2}, {"revision": "main"}):
        with pytest.raises(UsageError):
            label(np.zeros(9), classifier, **options)
    with pytest.raises(UsageError, match="revision"):
        label(np.zeros(9), checkpoint, revision="main")
    with pytest.raises(UsageError, match="sampling_rate is for waveforms"):
        label("a.wav", classifier, sampling_rate=8_000)


# ---- the bar, and the end ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "watched", "progress", "shown"),
    [
        (2, True, None, True),
        (1, True, None, False),
        (2, False, None, False),
        (1, False, True, True),
        (2, True, False, False),
    ],
)
def test_a_bar_is_shown_to_whoever_watches(
    classifier, capsys, monkeypatch, count, watched, progress, shown
):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: watched)
    label([speech_like(7)] * count, classifier, segments="all", progress=progress)
    out, error = capsys.readouterr()
    assert (f"{count}/{count} [" in error) == shown
    assert not out
    assert shown or not error


@pytest.mark.timeout(60)
@pytest.mark.parametrize("stage", ["classify_block", "output_rows"])
def test_an_interrupt_ends_what_decodes_ahead(tmp_path, classifier, monkeypatch, stage):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(in_process, stage, interrupted)
    samples = speech_like(700)
    paths = [write_audio(tmp_path / "60s.wav", samples[:960_000])]
    paths += [write_audio(tmp_path / "700s.wav", samples)]
    with pytest.raises(KeyboardInterrupt):
        label(paths, classifier, segments="all")
    servers = psutil.Process().children()
    assert not [child for server in servers for child in server.children()]
