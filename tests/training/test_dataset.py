"""A corpus in memory: what can be decoded, and never less because storage fails for a moment."""

import logging

import pandas as pd
import pytest
from recordings import speech_like, write_audio

from ser_core.errors import CorpusError, RecordingError, RunError, Status
from ser_core.sources.file_decoder import Decoded
from ser_core.training import dataset as module
from ser_core.training.dataset import labels_of_train, load_waveforms, split_datasets


@pytest.fixture
def recordings(tmp_path):
    """Two recordings, and one that is not audio."""
    for name in ("a", "b"):
        write_audio(tmp_path / f"{name}.wav", speech_like(0.5))
    (tmp_path / "c.wav").write_bytes(b"This is not audio.\n")
    rows = [
        (str(tmp_path / "a.wav"), "sad", "train"),
        (str(tmp_path / "b.wav"), "sad", "validation"),
        (str(tmp_path / "c.wav"), "angry", "train"),
    ]
    return pd.DataFrame(rows, columns=["path", "truth", "split"])


def test_what_cannot_be_decoded_is_named_and_left_out(recordings, caplog):
    with caplog.at_level(logging.WARNING):
        loaded = load_waveforms(recordings)
    assert loaded["path"].tolist() == recordings["path"][:2].tolist()
    assert list(loaded) == ["path", "truth", "split", "waveform"]
    assert [len(waveform) for waveform in loaded["waveform"]] == [8000, 8000]
    assert "1 of 3 recordings" in caplog.text
    assert recordings["path"][2] in caplog.text


def test_more_than_a_tenth_undecodable_is_an_error(recordings):
    many = pd.concat([recordings] * 6, ignore_index=True)
    with pytest.raises(CorpusError, match="cannot decode 6 of 18 recordings"):
        load_waveforms(many)


def test_a_missing_recording_stops_the_run(recordings):
    missing = recordings.iloc[:2].copy()
    missing.loc[1, "path"] += ".moved"
    with pytest.raises(RunError, match=r"^--data: cannot read 1 of 2 .*\.moved.*same command.*$"):
        load_waveforms(missing)


@pytest.mark.parametrize("status", [Status.PERMISSION_DENIED, Status.UNAVAILABLE])
def test_a_recording_out_of_reach_stops_the_run(recordings, status, monkeypatch):
    def fail(_, references):
        error = RecordingError(status, "no answer")
        return [Decoded(position, [], error) for position in range(len(references))]

    monkeypatch.setattr(module.Decoder, "decode", fail)
    with pytest.raises(RunError, match=r"3 of 3 recordings .*no answer"):
        load_waveforms(recordings)


def test_a_class_that_loses_all_its_recordings_is_an_error(recordings):
    labels = labels_of_train(recordings)
    assert labels == ["angry", "sad"]
    with pytest.raises(CorpusError, match="no recording of angry in `train` can be decoded"):
        split_datasets(load_waveforms(recordings), labels)


def test_a_class_only_in_validation_is_an_error(recordings):
    with pytest.raises(CorpusError, match="angry is in `validation` but not in `train`"):
        labels_of_train(recordings.assign(split=["train", "validation", "validation"]))


@pytest.mark.parametrize("split", ["train", "validation"])
def test_an_empty_split_is_an_error(recordings, split):
    with pytest.raises(CorpusError, match=f"`{split}`"):
        labels_of_train(recordings[recordings["split"] != split])
