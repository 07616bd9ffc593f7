"""Rows per segment have the card's scores for that stretch of the whole recording resampled."""

import librosa
import numpy as np
import pandas as pd
import pytest
import ray
from recordings import speech_like, write_audio

from ser_core.labeling.config import LabelConfig
from ser_core.labeling.job import label_corpus

RATE = 16_000
LENGTHS = {
    "long.flac": (44_100, 2, 20.3),
    "exact.wav": (16_000, 1, 12.0),
    "call.mp3": (48_000, 2, 9),
}


@pytest.fixture(scope="module", autouse=True)
def ray_session():
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for seed, (name, (rate, channels, seconds)) in enumerate(LENGTHS.items()):
        write_audio(folder / name, speech_like(seconds, rate, channels, seed=seed), rate)
    (folder / "bad.wav").write_text("not audio")
    return folder


@pytest.fixture
def label(small_checkpoint, tmp_path):
    def run(source, **settings):
        settings = {"precision": "fp32", "model": str(small_checkpoint)} | settings
        plan = label_corpus(
            LabelConfig(input=str(source), output=str(tmp_path / "labels"), **settings)
        )
        rows = pd.read_parquet(tmp_path / "labels")
        return plan, rows.assign(name=rows["path"].str.rpartition("/")[2])

    return run


def scores_of(rows):
    return rows.filter(like="score_").to_numpy()


def card_scores(card, path, rows, channel=None):
    """Of each row's stretch of the whole file, resampled at once."""
    samples, _ = librosa.load(path, sr=RATE, mono=channel is None)
    samples = samples if channel is None else samples[channel]
    bounds = (rows[["start", "end"]].to_numpy() * RATE).round().astype(int)
    return np.stack([card.scores_of(samples[start:end]) for start, end in bounds])


@pytest.mark.parametrize("hop", [6.0, 2.5])
def test_rows_per_segment(label, corpus, small_card, hop):
    _, rows = label(corpus, rows="segment", hop=hop)
    assert list(rows[rows["name"] == "bad.wav"]["status"]) == ["decode_error"]
    for name, (rate, _, seconds) in LENGTHS.items():
        own = rows[rows["name"] == name]
        assert set(own["status"]) == {"ok"}
        assert set(own["sampling_rate"]) == {rate}
        np.testing.assert_allclose(own["duration"], seconds, atol=0.1)
        assert own["channel"].isna().all()
        starts = own["start"].to_numpy()
        np.testing.assert_allclose(starts, np.arange(len(own)) * hop)
        samples, _ = librosa.load(corpus / name, sr=RATE)
        assert own["end"].iloc[-1] == len(samples) / RATE
        assert (own["end"] - own["start"]).iloc[:-1].eq(6.0).all()
        np.testing.assert_allclose(
            scores_of(own), card_scores(small_card, corpus / name, own), atol=1e-4
        )


def test_rows_per_channel(label, corpus, small_card):
    _, rows = label(corpus, rows="segment", channels="each")
    own = rows[rows["name"] == "long.flac"]
    assert list(own["channel"]) == [0] * 4 + [1] * 4
    for channel in (0, 1):
        side = own[own["channel"] == channel]
        expected = card_scores(small_card, corpus / "long.flac", side, channel)
        np.testing.assert_allclose(scores_of(side), expected, atol=1e-4)
    assert list(rows[rows["name"] == "exact.wav"]["channel"]) == [0, 0]


def test_one_row_per_recording_is_the_mean_of_its_segments(label, corpus):
    _, segments = label(corpus, rows="segment")
    plan, recordings = label(corpus, segments="all")
    assert plan.to_do == 4  # what makes a row has changed
    assert len(recordings) == 4
    assert recordings["start"].isna().all()
    for name, own in segments[segments["status"] == "ok"].groupby("name"):
        mean = np.average(scores_of(own), axis=0, weights=own["end"] - own["start"])
        row = recordings[recordings["name"] == name]
        np.testing.assert_allclose(scores_of(row)[0], mean, atol=1e-6)


def test_what_has_rows_is_not_labelled_again(label, corpus):
    _, rows = label(corpus, rows="segment")
    plan, again = label(corpus, rows="segment")
    assert plan.to_do == 0
    pd.testing.assert_frame_equal(again, rows)


def test_only_speech_is_labelled(label, tmp_path):
    pytest.importorskip("silero_vad", reason="the extra `speech` is not installed")
    write_audio(tmp_path / "calls" / "silence.wav", np.zeros(RATE * 8, np.float32))
    _, rows = label(tmp_path / "calls", segments="speech", rows="segment")
    (row,) = rows.to_dict("records")
    assert (row["status"], row["speech"], row["duration"]) == ("no_speech", 0.0, 8.0)
