"""Mixing channels and resampling return the samples that librosa does, to the bit."""

import librosa
import numpy as np
import pytest
from recordings import speech_like, write_audio

from ser_core.audio.decode import decode
from ser_core.storage.reading import open_file
from tests.audio.encoding import resample


@pytest.mark.parametrize("channels", [1, 2, 3, 5, 7, 8, 11, 16])
def test_mixing_channels_is_bit_identical(tmp_path, channels):
    samples = speech_like(1, 16000, channels, seed=channels)
    path = write_audio(tmp_path / "x.wav", samples, subtype="FLOAT")
    with open_file(str(path)) as handle:
        waveform = decode(handle).waveform
    np.testing.assert_array_equal(waveform, librosa.load(path, sr=16000)[0])


@pytest.mark.parametrize("block", [1 << 20, 4096, 997])
@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000])
def test_resampling_is_bit_identical(rate, block):
    samples = speech_like(1.37, rate)
    expected = librosa.resample(samples, orig_sr=rate, target_sr=16000)
    np.testing.assert_array_equal(resample(samples, rate, block), expected)
