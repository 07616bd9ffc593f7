"""Files decoded once for all their recordings: stretches, members, long files, failures midway."""

import io
import itertools
import threading

import librosa
import numpy as np
import pytest
import soundfile
from recordings import speech_like, write_audio

from ser_core.audio.decode import AudioInfo
from ser_core.audio.segments import Segmentation
from ser_core.errors import RecordingError, Status
from ser_core.sources import decoder as decoder_module
from ser_core.sources.decoder import Decoder, DecoderSettings
from ser_core.sources.recording import Recording

RATE = 16_000
ALL = Segmentation("all")


def decode(recordings, how=ALL, **settings):
    """For each recording its segments and its result."""
    found = [([], None) for _ in recordings]
    with Decoder(DecoderSettings(how, **settings)) as decoder:
        for decoded in decoder.decode(recordings):
            segments, result = found[decoded.recording]
            assert result is None  # nothing follows a result
            found[decoded.recording] = (segments + decoded.segments, decoded.result)
    return found


def samples_of(segment):
    scale = np.float32(32_768) if segment.waveform.dtype == np.int16 else np.float32(1)
    return segment.waveform / scale


@pytest.mark.parametrize("finer_from", [0, 10, 50_000, 95_999, None])
def test_samples_are_sent_as_16_bits_only_if_all_of_them_are(tmp_path, finer_from):
    samples = np.round(speech_like(6) * 32_768) / np.float32(32_768)
    if finer_from is not None:
        samples[finer_from] += np.float32(2**-20)
    path = write_audio(tmp_path / "x.wav", samples, RATE, subtype="FLOAT")
    (([segment], _),) = decode([Recording(str(path))])
    assert segment.waveform.dtype == (np.int16 if finer_from is None else np.float32)
    np.testing.assert_array_equal(samples_of(segment), samples)


@pytest.fixture(scope="module")
def long_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("long") / "long.flac"
    return str(write_audio(path, speech_like(290.3, 22_050, seed=1), 22_050))


def test_a_long_recording_comes_in_parts(long_file):
    with Decoder(DecoderSettings(ALL)) as decoder:
        parts = list(decoder.decode([Recording(long_file)]))
    assert len(parts) > 1
    assert max(len(part.segments) for part in parts) <= 32
    assert [part.result is None for part in parts] == [True] * (len(parts) - 1) + [False]
    segments = [segment for part in parts for segment in part.segments]
    samples, _ = librosa.load(long_file, sr=RATE)
    assert len(segments) == 49
    np.testing.assert_array_equal(np.concatenate(list(map(samples_of, segments))), samples)
    result = parts[-1].result
    assert (result.duration, result.sampling_rate) == (pytest.approx(290.3), 22_050)


def test_a_decoder_that_nobody_listens_to_any_more_ends(long_file):
    before = threading.active_count()
    with Decoder(DecoderSettings(ALL)) as decoder:
        next(parts := decoder.decode([Recording(long_file)] * 30))
        parts.close()
    assert threading.active_count() == before


@pytest.mark.parametrize(("segments", "longest"), [("first", 6.0), ("all", 20.0)])
def test_stretches_are_those_of_the_whole_file_resampled(long_file, segments, longest):
    bounds = [(0.0, 2.5), (100.25, 3.0), (101.0, 20.0), (280.0, 10.3), (30.0, 0.5)]
    recordings = [Recording(long_file, start=s, duration=d) for s, d in bounds]
    samples, _ = librosa.load(long_file, sr=RATE)
    found = decode(recordings, Segmentation(segments))
    for (start, duration), (parts, result) in zip(bounds, found, strict=True):
        assert isinstance(result, AudioInfo)
        end = start + min(duration, longest)
        expected = samples[round(start * RATE) : round(end * RATE)]
        np.testing.assert_array_equal(np.concatenate(list(map(samples_of, parts))), expected)
        assert (parts[0].start, parts[-1].end) == (start, pytest.approx(end))


@pytest.mark.parametrize("segments", ["first", "all"])
def test_each_stretch_has_its_own_quality(tmp_path, segments):
    loud, quiet = speech_like(10.0, seed=1), 0.03 * speech_like(10.0, seed=1)
    path = str(write_audio(tmp_path / "x.wav", np.concatenate([loud, quiet, loud])))
    bounds = [(0.0, 2.0), (12.0, 4.0), (15.0, 0.3), (14.0, 12.0), (12.0, None)]
    found = decode(
        [Recording(path, start=s, duration=d) for s, d in bounds], Segmentation(segments)
    )
    words = [result.quality for _, result in found]
    # The last two are quiet in their first 6 s, which is all that is decoded for `first`.
    assert words == [
        "",
        "quiet",
        "short quiet",
        *(["quiet"] * 2 if segments == "first" else [""] * 2),
    ]


def test_stretches_of_one_file_are_decoded_in_one_pass(long_file, monkeypatch):
    jobs = []
    original = decoder_module._decode_isolated

    def counted(child, job):
        jobs.append(len(job.recordings))
        return original(child, job)

    monkeypatch.setattr(decoder_module, "_decode_isolated", counted)
    decode([Recording(long_file, start=float(n), duration=1.0) for n in range(40)])
    assert jobs == [40]


@pytest.mark.parametrize("how", [Segmentation("first"), ALL])
def test_a_stretch_behind_the_end_is_a_row(tmp_path, how):
    path = str(write_audio(tmp_path / "x.wav", speech_like(10.0)))
    bounds = [(12.0, 3.0), (10.0, 1.0), (8.0, 4.0), (8.0, 2.05), (8.0, None)]
    bounds += [(11.0, None), (3.0, 0.0)]
    found = decode([Recording(path, start=s, duration=d) for s, d in bounds], how)
    statuses = [getattr(result, "status", Status.OK) for _, result in found]
    assert statuses == ["empty", "empty", "truncated", "ok", "ok", "empty", "empty"]
    assert "begins at 12 s" in str(found[0][1])
    assert "ends at 12 s" in str(found[2][1])


def damaged_flac(path, seconds=240.0, kept=0.8):
    write_audio(path, speech_like(seconds, seed=3))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    return str(path)


def test_a_file_that_ends_early_costs_only_the_stretches_that_it_lacks(tmp_path):
    path = damaged_flac(tmp_path / "x.flac")
    starts = [0.0, 60.0, 220.0]
    found = decode([Recording(path, start=s, duration=4.0) for s in starts])
    statuses = [getattr(result, "status", Status.OK) for _, result in found]
    assert statuses[:2] == ["ok", "ok"]
    assert statuses[2] in {"truncated", "decode_error"}
    ((_, whole),) = decode([Recording(path)])
    assert isinstance(whole, RecordingError)


def flac(seconds, seed):
    file = io.BytesIO()
    soundfile.write(file, speech_like(seconds, seed=seed), RATE, format="FLAC")
    return file.getvalue()


def test_members_of_a_packed_file_are_read_in_one_pass(monkeypatch):
    contents = {"a.flac": flac(2.0, 1), "bad.flac": b"no audio", "c.flac": flac(1.0, 2)}
    passes = []

    def read_members(uri, recordings, _):
        passes.append((uri, [recording.member for recording in recordings]))
        for recording in recordings:
            missing = RecordingError(Status.NOT_FOUND, "gone")
            yield contents.get(recording.member, missing)

    monkeypatch.setattr(decoder_module, "read_members", read_members)
    members = ["a.flac", "bad.flac", "gone.flac", "c.flac"]
    found = decode(
        [Recording("/1.tar", member=m) for m in members]
        + [Recording("/2.tar", member="c.flac", start=0.5, duration=0.25)]
    )
    assert passes == [("/1.tar", members), ("/2.tar", ["c.flac"])]
    statuses = [getattr(result, "status", Status.OK) for _, result in found]
    assert statuses == ["ok", "decode_error", "not_found", "ok", "ok"]
    for (segments, _), name in zip(
        itertools.compress(found, [1, 0, 0, 1]), ["a", "c"], strict=True
    ):
        expected, _ = soundfile.read(io.BytesIO(contents[f"{name}.flac"]), dtype="float32")
        np.testing.assert_array_equal(samples_of(segments[0]), expected)
    assert (found[4][0][0].start, found[4][0][0].end) == (0.5, 0.75)
