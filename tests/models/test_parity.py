"""In fp32 every score is the model card's, whatever the file, the batch and the neighbours."""

import warnings
from itertools import product

import numpy as np
import pytest
from recordings import speech_like, write_audio, write_with_ffmpeg

from benchmarks.card import Card
from ser_core.audio.decode import decode
from ser_core.models.checkpoint import load_checkpoint
from ser_core.models.classifier import Classifier
from ser_core.storage.reading import open_recording

TO_CARD = 1e-4
AMONG_OURSELVES = 1e-5

LIBSNDFILE = {
    "u8": (".wav", {"subtype": "PCM_U8"}),
    "pcm16": (".wav", {"subtype": "PCM_16"}),
    "pcm24": (".wav", {"subtype": "PCM_24"}),
    "float": (".wav", {"subtype": "FLOAT"}),
    "flac": (".flac", {}),
    "vorbis": (".ogg", {}),
    "opus": (".opus", {"format": "OGG", "subtype": "OPUS"}),
    "mp3": (".mp3", {}),
}
FFMPEG = {
    "m4a": (".m4a", ["-c:a", "aac"]),
    "aac": (".aac", ["-c:a", "aac"]),
    "webm": (".webm", ["-c:a", "libopus"]),
}


@pytest.fixture(scope="module")
def ours(small_checkpoint):
    return Classifier(load_checkpoint(str(small_checkpoint)), "fp32")


def heard(path):
    with open_recording(str(path), None) as handle:
        return decode(handle).waveform


def assert_is_the_cards(path, card, classifier):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # librosa says that audioread will go
        expected = card.scores(path)
    np.testing.assert_allclose(classifier.scores([heard(path)])[0], expected, atol=TO_CARD)


def test_the_small_checkpoint_tells_recordings_apart(small_card):
    """Otherwise the comparisons below would pass for any input."""
    scores = np.stack([small_card.scores_of(speech_like(2, seed=s)) for s in range(8)])
    assert scores.std(axis=0).mean() > 0.05


def libsndfile_writes(name, rate, channels):
    if name == "opus":
        return rate in (8000, 16000, 48000)
    return name != "mp3" or (rate <= 48000 and channels <= 2)


RATES = (8000, 11025, 16000, 22050, 44100, 48000, 96000)
CASES = [c for c in product(LIBSNDFILE, RATES, (1, 2, 6)) if libsndfile_writes(*c)]


@pytest.mark.parametrize(("name", "rate", "channels"), CASES)
def test_formats_of_libsndfile(tmp_path, small_card, ours, name, rate, channels):
    suffix, options = LIBSNDFILE[name]
    samples = speech_like(2.3, rate, channels, seed=rate + channels)
    path = write_audio(tmp_path / f"x{suffix}", samples, rate, **options)
    assert_is_the_cards(path, small_card, ours)


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("name", FFMPEG)
def test_formats_of_ffmpeg(tmp_path, small_card, ours, name, channels, rate):
    suffix, options = FFMPEG[name]
    samples = speech_like(2.3, rate, channels, seed=rate + channels)
    path = write_with_ffmpeg(tmp_path / f"x{suffix}", samples, rate, *options)
    assert_is_the_cards(path, small_card, ours)


KINDS = [(".wav", 16000), (".flac", 44100), (".mp3", 44100), (".ogg", 48000)]
DURATIONS = [*product(KINDS, (0.1, 0.5, 5.99, 6.0, 6.01, 13)), *product(KINDS[:2], (3600,))]


@pytest.mark.parametrize(("kind", "seconds"), DURATIONS)
def test_durations(tmp_path, small_card, ours, kind, seconds):
    suffix, rate = kind
    minute = np.asarray(speech_like(min(seconds, 60), rate, seed=int(seconds * 10)))
    samples = np.tile(minute.reshape(-1), int(seconds // 60)) if seconds > 60 else minute
    path = write_audio(tmp_path / f"x{suffix}", samples, rate)
    assert_is_the_cards(path, small_card, ours)


def test_batch_size_order_and_neighbours_change_nothing(small_checkpoint):
    checkpoint = load_checkpoint(str(small_checkpoint))
    waveforms = [speech_like(s, seed=int(s * 100)) for s in (0.1, 6, 1.9, 0.7, 3.3, 5.2, 2)]
    alone = np.concatenate([Classifier(checkpoint, "fp32", 1).scores([w]) for w in waveforms])
    for batch_size in (2, 3, 16):
        classifier = Classifier(checkpoint, "fp32", batch_size)
        together = classifier.scores(waveforms)
        np.testing.assert_allclose(together, alone, atol=AMONG_OURSELVES)
        backwards = classifier.scores(waveforms[::-1])[::-1]
        np.testing.assert_allclose(backwards, alone, atol=AMONG_OURSELVES)


def test_full_size_checkpoint(full_checkpoint, tmp_path):
    card = Card(full_checkpoint)
    classifier = Classifier(load_checkpoint(str(full_checkpoint)), "fp32", 3)
    paths = [
        write_audio(tmp_path / f"{s}.flac", speech_like(s, 22050, seed=int(s * 10)), 22050)
        for s in (0.1, 1.9, 4.4, 8.0)
    ]
    expected = np.stack([card.scores(path) for path in paths])
    assert expected.std(axis=0).max() > 0.01
    np.testing.assert_allclose(classifier.scores([heard(p) for p in paths]), expected, atol=TO_CARD)


def test_real_recordings(shared_data, small_card, ours):
    paths = sorted(shared_data.glob("*/*.wav"))[::11] + sorted(shared_data.glob("*/*.mp3"))[::12]
    assert len(paths) >= 50
    expected = np.stack([small_card.scores(path) for path in paths])
    np.testing.assert_allclose(ours.scores([heard(path) for path in paths]), expected, atol=TO_CARD)
