"""A small corpus, and labels of it that the small checkpoint made."""

from functools import partial

import labelled_rows
import pytest
from recordings import speech_like, write_audio


@pytest.fixture(scope="session", autouse=True)
def _one_thread(one_thread):
    """For all tests here."""


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Recordings of several formats, rates, channels and lengths."""
    folder = tmp_path_factory.mktemp("corpus")
    kinds = [("wav", 16000, 1), ("flac", 44100, 2), ("ogg", 48000, 1), ("mp3", 22050, 2)]
    for number in range(12):
        suffix, rate, channels = kinds[number % len(kinds)]
        samples = speech_like(1.0 + number, rate, channels, seed=number)
        write_audio(folder / f"{number}.{suffix}", samples, rate)
    return folder


@pytest.fixture
def label(small_checkpoint, tmp_path):
    """Labels inputs into a folder of the test; see `labelled_rows.label`."""
    output, model = str(tmp_path / "labels"), str(small_checkpoint)
    defaults = {"output": output, "model": model, "precision": "fp32"}
    return lambda *inputs, **settings: labelled_rows.label(*inputs, **defaults | settings)


@pytest.fixture
def changed_checkpoint(small_checkpoint, tmp_path):
    """A changed copy of the small checkpoint; see `labelled_rows.changed_checkpoint`."""
    return partial(labelled_rows.changed_checkpoint, small_checkpoint, tmp_path / "changed")
