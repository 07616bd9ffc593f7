"""Clips hold what was classified, whatever the form of the input; bad recordings become reasons."""

import io

import numpy as np
import pytest
import soundfile
from form_inputs import parquet, shards
from recordings import speech_like, write_audio

import ser_core.reporting.clips as clips_module
from ser_core.errors import RecordingError, RunError, Status
from ser_core.reporting.clips import as_mp3, clips
from ser_core.sources import lookup


def read(mp3: bytes) -> np.ndarray:
    samples, rate = soundfile.read(io.BytesIO(mp3), dtype="float32")
    assert rate == 16_000
    assert samples.ndim == 1
    return samples


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one, other)[0, 1])


def test_clips_are_the_first_six_seconds(tmp_path):
    long, short = speech_like(9, seed=1), speech_like(1.5, 16_000, 2, seed=2)
    paths = [write_audio(tmp_path / "long.flac", long), write_audio(tmp_path / "short.wav", short)]
    made = clips(map(str, paths))
    assert [*made] == [*map(str, paths)]
    first, second = map(read, made.values())
    assert (len(first), len(second)) == (96_000, 24_000)
    assert likeness(first, long[:96_000]) > 0.99
    assert likeness(second, short.mean(axis=1)) > 0.99
    assert max(map(len, made.values())) < 60_000


def test_a_clip_of_a_stretch_begins_where_the_stretch_does(tmp_path):
    samples = speech_like(9, seed=1)
    path = write_audio(tmp_path / "a.wav", samples)
    identities = [f"{path}#t=5,8", f"{path}#t=2,3.5", f"{path}#t=0.5,1"]
    last, middle, beginning = map(read, clips(identities).values())
    assert likeness(beginning, samples[8_000:16_000]) > 0.99
    assert likeness(last, samples[80_000:128_000]) > 0.99
    assert likeness(middle, samples[32_000:56_000]) > 0.99


def test_members_of_packed_files(tmp_path):
    files = [write_audio(tmp_path / f"{n}.wav", speech_like(0.5, seed=n)) for n in range(4)]
    shards(tmp_path, files)
    parquet(tmp_path, files)
    made = clips([f"{tmp_path}/shard-0.tar::3.wav", f"{tmp_path}/data/train.parquet::2"])
    third, second = map(read, made.values())
    assert likeness(third, speech_like(0.5, seed=3)) > 0.99
    assert likeness(second, speech_like(0.5, seed=2)) > 0.99


def test_what_cannot_be_read_costs_only_its_own_clip(tmp_path):
    write_audio(tmp_path / "good.wav", speech_like(0.5))
    write_audio(tmp_path / "empty.wav", [])
    (tmp_path / "text.wav").write_text("no audio")
    made = clips(str(tmp_path / f"{name}.wav") for name in ("text", "gone", "empty", "good"))
    *bad, clip = made.values()
    assert len(read(clip)) == 8_000
    assert all(isinstance(each, RecordingError) for each in bad)
    assert [each.status for each in bad] == [Status.DECODE_ERROR, Status.NOT_FOUND, Status.EMPTY]


def test_storage_out_of_reach_is_waited_for_once(tmp_path, monkeypatch):
    asked = []

    def look_up(identities):
        asked.append(len(identities))
        if identities[0].startswith("s3://away/"):
            raise RunError("no answer")
        return lookup.look_up(identities)

    monkeypatch.setattr(clips_module, "look_up", look_up)
    good = [str(write_audio(tmp_path / f"{n}.wav", speech_like(0.1, seed=n))) for n in range(2)]
    away = [f"s3://away/{n}.wav" for n in range(5)]
    made = clips([away[0], good[0], *away[1:], good[1]])
    assert asked == [5, 2]
    assert [*made] == [away[0], good[0], *away[1:], good[1]]
    assert all(isinstance(made[identity], bytes) for identity in good)
    assert {made[identity].status for identity in away} == {Status.UNAVAILABLE}


@pytest.mark.parametrize("scale", [2.0, np.nan])
def test_samples_beyond_full_scale_are_clipped(scale):
    samples = np.float32(0.4) * np.sin(np.arange(16_000, dtype=np.float32) / 20)
    samples[8_000:8_100] *= np.float32(scale)
    assert np.isfinite(read(as_mp3(samples))).all()
