"""In fp32 every score equals the model card's, whatever the file, the batch and the neighbors.

The card's script dates from 2023, when `librosa.load` still called audioread, and with it FFmpeg,
for what libsndfile cannot read. librosa 1.0 refuses such files; where both versions read a file
they return the same samples.
"""

import subprocess
import warnings
from importlib.metadata import version
from itertools import product

import imageio_ffmpeg
import librosa
import numpy as np
import pytest
import soundfile
import torch
from recordings import speech_like, write_audio, write_with_ffmpeg

from ser_core.audio.decode import decode
from ser_core.models.card import Card
from ser_core.models.checkpoint import load_checkpoint
from ser_core.models.classifier import Classifier
from ser_core.storage.reading import open_file

TO_CARD = 1e-4
TO_EACH_OTHER = 1e-5
LIBROSA_CALLS_FFMPEG = version("librosa").startswith("0.")

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
def classifier(small_checkpoint):
    return Classifier(load_checkpoint(str(small_checkpoint)), "fp32")


def waveform(path):
    with open_file(str(path)) as handle:
        return decode(handle).waveform


def card_scores(card, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # librosa 0.11 announces the end of audioread
        return card.scores(path)


def assert_scores_are_the_cards(path, card, classifier):
    expected = card_scores(card, path)
    np.testing.assert_allclose(classifier.scores([waveform(path)])[0], expected, atol=TO_CARD)


def test_the_small_checkpoint_distinguishes_recordings(small_card):
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
def test_formats_of_libsndfile(tmp_path, small_card, classifier, name, rate, channels):
    suffix, options = LIBSNDFILE[name]
    samples = speech_like(2.3, rate, channels, seed=rate + channels)
    path = write_audio(tmp_path / f"x{suffix}", samples, rate, **options)
    assert_scores_are_the_cards(path, small_card, classifier)


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("name", FFMPEG)
def test_formats_of_ffmpeg(tmp_path, small_card, classifier, name, channels, rate):
    suffix, options = FFMPEG[name]
    samples = speech_like(2.3, rate, channels, seed=rate + channels)
    path = write_with_ffmpeg(tmp_path / f"x{suffix}", samples, rate, *options)
    if LIBROSA_CALLS_FFMPEG:
        expected = card_scores(small_card, path)
    else:
        with pytest.raises(soundfile.LibsndfileError):
            card_scores(small_card, path)
        expected = card_scores(small_card, as_audioread_decodes(path))
    np.testing.assert_allclose(classifier.scores([waveform(path)])[0], expected, atol=TO_CARD)


def as_audioread_decodes(path):
    """Decodes a file as audioread does: by FFmpeg, to 16 bits."""
    wav = path.with_suffix(".decoded.wav")
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    command = [ffmpeg, "-y", "-loglevel", "error", "-i", path, "-c:a", "pcm_s16le", wav]
    subprocess.run(command, check=True)
    return wav


KINDS = [(".wav", 16000), (".flac", 44100), (".mp3", 44100), (".ogg", 48000)]


@pytest.mark.parametrize(("kind", "seconds"), product(KINDS, (0.1, 0.5, 5.99, 6.0, 6.01, 13)))
def test_durations(tmp_path, small_card, classifier, kind, seconds):
    suffix, rate = kind
    samples = speech_like(seconds, rate, seed=int(seconds * 10))
    path = write_audio(tmp_path / f"x{suffix}", samples, rate)
    assert_scores_are_the_cards(path, small_card, classifier)


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "rate"), KINDS[:2])
def test_an_hour(tmp_path, small_card, classifier, suffix, rate):
    samples = np.tile(speech_like(60, rate, seed=36000), 60)
    path = write_audio(tmp_path / f"x{suffix}", samples, rate)
    assert_scores_are_the_cards(path, small_card, classifier)


def test_batch_size_order_and_neighbors_do_not_change_scores(small_checkpoint):
    checkpoint = load_checkpoint(str(small_checkpoint))
    waveforms = [speech_like(s, seed=int(s * 100)) for s in (0.1, 6, 1.9, 0.7, 3.3, 5.2, 2)]
    alone = np.concatenate([Classifier(checkpoint, "fp32", 1).scores([w]) for w in waveforms])
    for batch_size in (2, 3, 16):
        classifier = Classifier(checkpoint, "fp32", batch_size)
        together = classifier.scores(waveforms)
        np.testing.assert_allclose(together, alone, atol=TO_EACH_OTHER)
        backwards = classifier.scores(waveforms[::-1])[::-1]
        np.testing.assert_allclose(backwards, alone, atol=TO_EACH_OTHER)


@pytest.mark.slow
def test_full_size_checkpoint(full_checkpoint, tmp_path):
    card = Card(full_checkpoint)
    classifier = Classifier(load_checkpoint(str(full_checkpoint)), "fp32", 3)
    paths = [
        write_audio(tmp_path / f"{s}.flac", speech_like(s, 22050, seed=int(s * 10)), 22050)
        for s in (0.1, 1.9, 4.4, 8.0)
    ]
    expected = np.stack([card.scores(path) for path in paths])
    assert expected.std(axis=0).max() > 0.01
    scores = classifier.scores([waveform(path) for path in paths])
    np.testing.assert_allclose(scores, expected, atol=TO_CARD)


def card_embedding(card, path):
    """The mean of the last hidden states, as the card's own network has them."""
    speech, _ = librosa.load(path, sr=16000)
    sizes = {"padding": "max_length", "truncation": True, "max_length": 96000}
    inputs = card.processor(speech, sampling_rate=16000, return_tensors="pt", **sizes)
    with torch.no_grad():
        return card.model.hubert(inputs.input_values).last_hidden_state.mean(dim=1)[0].numpy()


@pytest.mark.parametrize("size", ["small", pytest.param("full", marks=pytest.mark.slow)])
def test_embeddings_are_the_means_of_the_cards_hidden_states(request, tmp_path, size):
    checkpoint = request.getfixturevalue(f"{size}_checkpoint")
    card = Card(checkpoint)
    classifier = Classifier(load_checkpoint(str(checkpoint)), "fp32", 3)
    paths = [
        write_audio(tmp_path / f"{s}.flac", speech_like(s, 22050, seed=int(s * 10)), 22050)
        for s in (0.1, 1.9, 4.4, 8.0)
    ]
    expected = np.stack([card_embedding(card, path) for path in paths])
    assert expected.std(axis=0).max() > 0.01  # they differ
    scores = classifier.scores([waveform(path) for path in paths])
    classifier.embeddings = True
    outputs = classifier.compute(classifier.prepare([waveform(path) for path in paths]))
    assert outputs.embeddings.dtype == np.float16
    rounding = 2.0**-11  # of float16, relative
    np.testing.assert_allclose(outputs.embeddings, expected, rtol=rounding, atol=2e-5)
    np.testing.assert_array_equal(outputs.scores, scores)


@pytest.mark.slow
def test_real_recordings(shared_data, small_card, classifier):
    paths = sorted(shared_data.glob("*/*.wav"))[::11] + sorted(shared_data.glob("*/*.mp3"))[::12]
    assert len(paths) >= 50
    expected = np.stack([small_card.scores(path) for path in paths])
    scores = classifier.scores([waveform(path) for path in paths])
    np.testing.assert_allclose(scores, expected, atol=TO_CARD)
