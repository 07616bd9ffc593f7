"""The words for what is wrong with a recording, on recordings made for them and on real ones."""

import io
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from recordings import speech_like, write_audio, write_with_ffmpeg

from ser_core.audio import quality
from ser_core.audio.decode import decode_into
from ser_core.audio.quality import QualityMeter
from ser_core.labeling.output_rows import LOW_SCORE

RATE = 16_000
ROOT = Path(__file__).parents[2]


class Nobody:
    """Takes samples and does nothing with them."""

    def add(self, samples):
        pass

    def restart(self):
        pass


def measure(samples, rate=RATE, block=1 << 20, bounds=(0.0, 6.0), speech=None):
    """Of samples of shape ``(num_samples,)`` or ``(num_samples, channels)``."""
    samples = np.atleast_2d(np.asarray(samples, np.float32).T).T
    meter = QualityMeter([bounds])
    for start in range(0, len(samples), block):
        meter.add(samples[start : start + block], rate)
    return meter.quality(0, speech)


def written(samples, rate=RATE, **options):
    """The samples as a file has them."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, **({"format": "WAV"} | options))
    file.seek(0)
    return soundfile.read(file, dtype="float32")[0]


def speech(seconds=3.0, seed=1, peak=1.0):
    samples = speech_like(seconds, seed=seed)
    return samples * (peak / np.abs(samples).max())


def decibels(gain):
    return 10 ** (gain / 20)


def sine(frequency, seconds=3.0, rate=RATE):
    return np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)


def white(seconds=3.0):
    return 0.1 * np.random.default_rng(0).standard_normal(int(seconds * RATE))


def mains_hum():
    return 0.2 * sum(sine(50 * k) / k for k in range(1, 8))


CLIPPED = np.clip(4 * speech(), -1, 1)  # 12 dB too loud
MADE = {
    "speech": ("", lambda: written(speech(peak=0.5))),
    "normalized": ("", lambda: written(speech())),
    "8 bits": ("", lambda: written(speech(peak=0.5), subtype="PCM_U8")),
    "telephone": ("", lambda: written(speech(peak=0.5), subtype="ULAW")),
    "sine at 0 dBFS": ("no_speech", lambda: written(sine(440))),
    "low sine at 0 dBFS": ("no_speech", lambda: written(sine(50))),
    "square": ("clipped no_speech", lambda: 0.5 * np.sign(sine(100.3))),
    "clipped": ("clipped", lambda: written(CLIPPED)),
    "clipped floats": ("clipped", lambda: CLIPPED),
    "clipped at the top only": ("clipped", lambda: np.minimum(4 * speech(), 1) * 0.25),
    "clipped, then lowered": ("clipped", lambda: written(decibels(-6) * written(CLIPPED))),
    "clipped, then lowered by 15 dB": ("clipped", lambda: written(decibels(-15) * CLIPPED)),
    "above full scale": ("clipped", lambda: 4 * speech()),
    "one channel clipped": ("clipped", lambda: np.stack([0.1 * speech()] * 5 + [CLIPPED], 1)),
    "half a second": ("", lambda: speech(0.5)),
    "short": ("short", lambda: speech(0.49)),
    "quiet": ("quiet", lambda: decibels(-32) * speech()),
    "digital silence": ("silent no_speech", lambda: np.zeros(3 * RATE)),
    "an idle line": ("silent no_speech", lambda: white() * decibels(-50)),
    "faint": ("silent", lambda: decibels(-55) * speech()),
    "noise": ("no_speech", white),
    "mains hum": ("no_speech", mains_hum),
    "constant": ("no_speech", lambda: np.full(3 * RATE, 0.5)),
    "speech in noise, 5 dB": ("", lambda: speech() + white() * 10 * decibels(-5) * 0.2),
    "one sample": ("short no_speech", lambda: np.float32([0.5])),
}


@pytest.mark.parametrize("name", MADE)
def test_the_words_of_recordings_made_for_them(name):
    expected, make = MADE[name]
    assert measure(make()).quality == expected


def test_the_numbers():
    loud, low = 0.8 * sine(1000, 2.0), 0.05 * sine(1000, 1.0)
    found = measure(np.concatenate([loud, low]))
    # A sine of amplitude a has the mean square a² / 2.
    assert found.rms_db == pytest.approx(10 * np.log10((2 * 0.32 + 0.00125) / 3), abs=1e-3)
    assert found.peak == pytest.approx(0.8)
    assert found.level_range_db == pytest.approx(20 * np.log10(0.8 / 0.05), abs=0.5)
    assert found.clipped_share == 0
    assert measure(np.zeros(RATE)).rms_db == quality.FLOOR_DB


def test_the_clipped_share_counts_samples_in_flat_tops():
    samples = speech(peak=0.5)[:32_000]
    samples[500:550] = 0.55  # the highest value so far
    samples[1000:1100] = 0.6  # 100 samples
    samples[2000:2002] = 0.6  # too few to be one
    samples[3000:3010] = 0.55  # not the highest value
    samples[4000:4050] = -0.7
    found = measure(samples)
    assert found.clipped_share == pytest.approx(150 / 32_000)
    assert measure(samples, block=640).clipped_share == found.clipped_share
    channels = measure(np.stack([samples, 0.01 * speech()[:32_000]], axis=1))
    assert channels.clipped_share == found.clipped_share


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("block", [1, 333, 4096])
def test_blocks_do_not_change_what_is_measured(monkeypatch, channels, block):
    samples = np.clip(6 * speech_like(1.01, channels=channels, seed=4), -0.7, 0.7)
    whole = measure(samples)
    assert whole.quality == "clipped"
    monkeypatch.setattr(quality, "_SAMPLES_AT_ONCE", 1000)
    in_blocks = measure(samples, block=block)
    assert in_blocks.quality == whole.quality
    assert in_blocks[1:] == pytest.approx(whole[1:])


def test_stretches_are_measured_by_themselves():
    samples = np.concatenate([speech(4.0), np.zeros(4 * RATE), CLIPPED])
    meter = QualityMeter([(0.0, 4.0), (4.0, 8.0), (8.0, None), (3.0, 3.2), (99.0, 100.0)])
    for start in range(0, len(samples), 50_001):
        meter.add(samples[start : start + 50_001, None].astype(np.float32), RATE)
    words = [found and found.quality for found in (meter.quality(n, None) for n in range(5))]
    assert words == ["", "silent no_speech", "clipped", "short", None]


def test_another_decoder_begins_again():
    meter = QualityMeter([(0.0, 1.0), (0.0, None)])
    meter.add(speech(2.0)[:, None], RATE)
    meter.restart()
    assert meter.quality(0, None) == measure(speech(2.0)[:RATE])  # it was complete
    assert meter.quality(1, None) is None
    meter.add(np.zeros((2 * RATE, 1), np.float32), RATE)
    assert meter.quality(0, None) == measure(speech(2.0)[:RATE])
    assert meter.quality(1, None).quality == "silent no_speech"


def test_the_speech_detector_decides_if_it_looked():
    assert measure(white(), speech=0.4).quality == ""
    assert measure(speech(), speech=0.0).quality == "no_speech"


def test_samples_too_large_to_be_squared_have_finite_levels():
    found = measure(speech() * np.float32(1e30))
    assert np.isfinite([found.rms_db, found.peak, found.level_range_db]).all()


def decoded(path, seconds=6.0):
    meter = QualityMeter([(0.0, seconds)])
    with open(path, "rb") as file:
        decode_into(file, Nobody(), seconds, meter=meter)
    return meter.quality(0, None)


def test_files_are_measured_before_channels_are_mixed_and_resampled(tmp_path):
    samples = np.stack([CLIPPED, np.zeros_like(CLIPPED)], axis=1)
    path = write_audio(tmp_path / "x.wav", samples, 48_000)
    found = decoded(path)
    assert found.quality == "clipped"
    assert found.peak == pytest.approx(1, abs=1e-4)  # of the mix, it is half of that
    one = measure(written(CLIPPED, 48_000), 48_000)
    assert found.clipped_share == one.clipped_share
    assert found.rms_db == pytest.approx(one.rms_db - 10 * np.log10(2))


@pytest.mark.parametrize(
    ("suffix", "write"),
    [(".mp3", write_audio), (".ogg", write_audio), (".m4a", write_with_ffmpeg)],
)
def test_lossy_files_of_clipped_speech_are_clipped(tmp_path, suffix, write):
    for name, samples, expected in (("a", CLIPPED, "clipped"), ("b", speech(), "")):
        assert decoded(write(tmp_path / f"{name}{suffix}", samples, 22_050)).quality == expected


# ---- real recordings -----------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["corpus", "emodb", "mandarin_words"])
def test_real_recordings_have_no_words(folder, request):
    if folder == "corpus":
        paths = [p for p in (ROOT / "examples" / "corpus").glob("*/*") if p.parent.name != "broken"]
    else:
        paths = sorted((request.getfixturevalue("shared_data") / folder).iterdir())[::6]
    assert len(paths) >= 30
    assert Counter(decoded(path).quality for path in paths) == {"": len(paths)}


# ---- docs ----------------------------------------------------------------------------------------


def test_the_thresholds_are_those_of_the_docs():
    page = (ROOT / "docs" / "output.md").read_text()
    table = page.split("\n| word | when |\n")[1].split("\n\n")[0]
    numbers = {
        word: [float(n.replace("−", "-")) for n in re.findall(r"−?\d+(?:\.\d+)?", when)]
        for word, when in re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.M)
    }
    assert numbers == {
        "short": [quality.SHORT_SECONDS],
        "silent": [quality.SILENT_DB],
        "quiet": [quality.QUIET_DB],
        "clipped": [100 * quality.CLIPPED_SHARE],
        "no_speech": [quality.NO_SPEECH_RANGE_DB],
        LOW_SCORE: [],
    }
    text = " ".join(page.split())
    for number in (
        f"{quality.FLAT_SAMPLES} or more samples",
        f"{quality.LOW_PERCENTILE}th and the {quality.HIGH_PERCENTILE}th percentile",
        f"{round(1000 * quality.FRAME_SECONDS)} ms",
        f"{quality.FLOOR_DB:g}".replace("-", "−") + " dB",
        f"below {quality.FLAT_PEAK:g}",
    ):
        assert number in text
