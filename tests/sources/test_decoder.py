"""Recordings decoded in child processes, and what becomes of one that breaks them."""

import signal

import librosa
import numpy as np
import pytest
from recordings import speech_like, write_audio

import ser_core.sources.decoder as decoder_module
from ser_core.audio.segments import Segmentation
from ser_core.errors import RecordingError, RunError, Status
from ser_core.isolation import (
    ChildCrashedError,
    ChildMemoryError,
    ChildTimeoutError,
    PauseTimeoutError,
)
from ser_core.sources.decoder import Decoder, DecoderSettings, _decode_isolated
from ser_core.sources.file_decoder import Decoded, FileJob
from ser_core.sources.recording import Recording

SEGFAULT, KILLED = (ChildCrashedError(-number) for number in (signal.SIGSEGV, signal.SIGKILL))

TOO_LARGE = Decoded(0, [], RecordingError(Status.TOO_LARGE, ""))
EMPTY = Decoded(0, [], RecordingError(Status.EMPTY, ""))
JOB = FileJob(0, [Recording("/a.wav")], None, Segmentation())


class Child:
    """A child process that gives these answers, or raises them."""

    def __init__(self, answers):
        self.answers = list(answers)
        self.closed = 0

    def stream(self, _):
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        yield answer

    def close(self):
        self.closed += 1


def test_waveforms_and_failures_come_in_the_order_of_the_recordings(tmp_path):
    lengths = [0.5, 7.0, 1.5, 2.0, 0.25, 3.0, 1.0]
    paths = [
        write_audio(tmp_path / f"{number}.wav", speech_like(seconds, rate, seed=number), rate)
        for number, (seconds, rate) in enumerate(zip(lengths, [16_000, 44_100] * 4, strict=False))
    ]
    (tmp_path / "text.wav").write_text("no audio")
    recordings = [Recording(str(path)) for path in [*paths, tmp_path / "text.wav"]]
    with Decoder(DecoderSettings()) as decoder:
        *decoded, text = decoder.decode(recordings)
    for path, seconds, item in zip(paths, lengths, decoded, strict=True):
        (segment,) = item.segments
        samples = segment.waveform
        if samples.dtype == np.int16:
            samples = samples / np.float32(32_768)
        expected = librosa.load(path, sr=16_000)[0][:96_000]
        np.testing.assert_array_equal(samples, expected)
        assert item.result.duration == pytest.approx(seconds)
        assert item.decode_seconds > 0 <= item.fetch_seconds
    assert text.result.status is Status.DECODE_ERROR


def test_samples_of_16_bits_at_16_khz_stay_16_bits(tmp_path):
    whole = write_audio(tmp_path / "16.wav", speech_like(1.0))
    floats = write_audio(tmp_path / "float.wav", speech_like(1.0), subtype="FLOAT")
    recordings = [Recording(str(path)) for path in (whole, floats)]
    with Decoder(DecoderSettings()) as decoder:
        types = [d.segments[0].waveform.dtype.str for d in decoder.decode(recordings)]
    assert types == ["<i2", "<f4"]


@pytest.mark.parametrize(
    ("raised", "status", "words"),
    [
        ([SEGFAULT, SEGFAULT], Status.CRASHED, "SIGSEGV"),
        ([KILLED, KILLED], Status.UNAVAILABLE, "out of memory"),  # not the recording's fault
        ([ChildTimeoutError("4 s")], Status.TIMEOUT, r"4 s \(--decode-timeout\)"),
        ([ChildMemoryError("2 GiB")] * 2, Status.TOO_LARGE, r"2 GiB \(--decode-memory\)"),
        ([PauseTimeoutError("180 s")], Status.UNAVAILABLE, "did not answer for 180 s"),
        ([SEGFAULT, ChildTimeoutError("4 s")], Status.TIMEOUT, "4 s"),
    ],
)
def test_what_breaks_the_child_is_the_row_of_the_recording(raised, status, words):
    child = Child(raised)
    with pytest.raises(RecordingError, match=words) as error:
        list(_decode_isolated(child, JOB))
    assert error.value.status is status
    assert not child.answers  # tried as often as that, and no more


@pytest.mark.parametrize("first", [SEGFAULT, ChildMemoryError("2 GiB"), TOO_LARGE])
def test_what_does_not_repeat_itself_in_a_new_process_is_forgotten(first):
    child = Child([first, EMPTY])
    assert list(_decode_isolated(child, JOB)) == [EMPTY]
    assert child.closed == 1


def test_a_whole_recording_has_more_time():
    first, whole = DecoderSettings(), DecoderSettings(Segmentation("all"))
    seconds = [settings.limits.seconds for settings in (first, whole)]
    assert seconds == [60.0, 600.0]
    assert DecoderSettings(Segmentation("all"), timeout=5.0, memory=0.5).limits[::2] == (
        5.0,
        1 << 29,
    )


def test_once_the_storage_is_down_the_rest_of_a_block_does_not_wait_for_it(monkeypatch):
    tried = []

    def unreachable(_, job):
        tried.append(job)
        raise RecordingError(Status.UNAVAILABLE, "no answer")

    monkeypatch.setattr(decoder_module, "_decode_isolated", unreachable)
    recordings = [Recording(f"/{number}.wav") for number in range(256)]
    with Decoder(DecoderSettings()) as decoder:
        for _ in range(2):  # each block tries again
            tried.clear()
            decoded = list(decoder.decode(recordings))
            assert {item.result.status for item in decoded} == {Status.UNAVAILABLE}
            assert 12 <= len(tried) < 20  # four at once


def test_decoders_that_are_killed_are_no_outage_of_the_storage(monkeypatch):
    def killed(*_):
        raise ChildCrashedError(-signal.SIGKILL)

    monkeypatch.setattr(decoder_module, "_decode_up_to_twice", killed)
    recordings = [Recording(f"/{number}.wav") for number in range(100)]
    with Decoder(DecoderSettings()) as decoder:
        reasons = {str(item.result) for item in decoder.decode(recordings)}
    assert reasons == {"another process killed the decoder twice; the machine may be out of memory"}


def test_a_recording_out_of_reach_now_and_then_is_no_outage(monkeypatch):
    def decode(_, job):
        number = int(job.recordings[0].uri[1:-4])
        status = Status.UNAVAILABLE if number % 11 else Status.EMPTY
        raise RecordingError(status, "")

    monkeypatch.setattr(decoder_module, "_decode_isolated", decode)
    recordings = [Recording(f"/{number}.wav") for number in range(110)]
    with Decoder(DecoderSettings(), concurrent=1) as decoder:
        statuses = [item.result.status for item in decoder.decode(recordings)]
    assert statuses.count(Status.EMPTY) == 10


def test_a_machine_on_which_nothing_can_be_decoded_is_told_from_bad_recordings():
    with Decoder(DecoderSettings()) as decoder:
        decoder.check()
    with (
        Decoder(DecoderSettings(memory=1e-5)) as decoder,
        pytest.raises(RunError, match="no recording can be decoded"),
    ):
        decoder.check()
