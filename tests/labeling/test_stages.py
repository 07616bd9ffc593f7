"""The stages of labelling: samples sent to the classifier, times, and output rows."""

import gc
import weakref
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import partial
from types import SimpleNamespace

import fsspec
import numpy as np
import pyarrow as pa
import pytest
from recordings import speech_like, write_audio

from ser_core.audio.decode import AudioInfo, decode
from ser_core.audio.segments import Segment, Segmentation
from ser_core.errors import (
    CheckpointError,
    CorpusError,
    RecordingError,
    RunError,
    Status,
    UsageError,
)
from ser_core.labeling.output_rows import output_rows
from ser_core.labeling.stages import (
    StageSettings,
    classify_block,
    decode_block,
    failed_rows,
    run_stage,
)
from ser_core.labeling.stopping import raise_reason_to_stop, reason_to_stop
from ser_core.models.outputs import Outputs, as_float16
from ser_core.schema import output_schema, plan_schema
from ser_core.sources.file_decoder import Decoded, FileJob, decode_file
from ser_core.storage.reading import open_file

NONE = pa.schema([])
SETTINGS = StageSettings(("sad", "happy"), NONE)


class Recorder:
    """A fake classifier that records its waveforms."""

    precision = "fp32"
    description = "cpu fp32"

    def prepare(self, waveforms):
        self.waveforms = waveforms
        return waveforms

    def compute(self, waveforms):
        return Outputs(np.tile(np.float32([0.25, 0.75]), (len(waveforms), 1)))


def at_once():
    """The turn of a block that need not wait."""
    return nullcontext(0.0)


class InThisProcess:
    """A decoder without a child process, which would not see what is in memory here."""

    pause = nullcontext

    def __init__(self):
        self.sent = []

    def send(self, decoded):
        self.sent.append(decoded)

    def decode(self, recordings):
        for position, recording in enumerate(recordings):
            last = decode_file(FileJob(position, [recording], None, Segmentation()), self)
            yield from [*self.sent, last]
            self.sent.clear()


def decoded_block(planned, decoder=None):
    return pa.concat_tables(decode_block(planned, SETTINGS, decoder or InThisProcess(), 4 << 20))


def plan(*uris, names=None, members=None):
    nulls = [None] * len(uris)
    columns = {
        "_index": range(len(uris)),
        "_has_final": nulls,
        "path": names or nulls,
        "uri": map(str, uris),
        "file_id": map(str, uris),
        "_member": members or nulls,
        **dict.fromkeys(("_size", "_offset", "_start", "_duration"), nulls),
    }
    return pa.table({k: list(v) for k, v in columns.items()}).cast(plan_schema(NONE))


@pytest.fixture
def corpus(tmp_path):
    pcm = write_audio(tmp_path / "pcm16.wav", speech_like(1, seed=1))
    resampled = write_audio(tmp_path / "48k.wav", speech_like(1, 48000, seed=2), 48000)
    loud = write_audio(tmp_path / "loud.wav", 3 * speech_like(1, seed=3), subtype="FLOAT")
    (tmp_path / "bad.wav").write_text("not audio")
    return [pcm, resampled, tmp_path / "bad.wav", loud]


def test_samples_are_sent_in_the_smallest_lossless_type(corpus):
    decoded = decoded_block(plan(*corpus))
    assert decoded["_sample_type"].to_pylist() == ["<i2", "<f4", None, "<f4"]
    sizes = [None if w is None else len(w) for w in decoded["_waveform"].to_pylist()]
    assert sizes == [32000, 64000, None, 64000]


class Holding:
    """A decoder that knows which of its waveforms are still in memory."""

    def __init__(self):
        self.waveforms = weakref.WeakSet()

    def decode(self, recordings):
        for position, _ in enumerate(recordings):
            waveform = np.zeros(16_000, np.int16).view(Waveform)
            self.waveforms.add(waveform)
            segment = Segment(0.0, 1.0, None, waveform)
            yield Decoded(position, [segment], AudioInfo(1.0, 16_000))


class Waveform(np.ndarray):
    """An array to which weak references are possible, and that is hashed by its identity."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__


def test_a_block_that_is_done_leaves_no_waveform_in_memory(corpus):
    decoder = Holding()
    decoded_block(plan(*corpus), decoder)
    gc.collect()
    assert not len(decoder.waveforms)


class Broken:
    """A decoder with which nearly every recording breaks."""

    def __init__(self, works):
        self.works = works

    def decode(self, recordings):
        crashed = RecordingError(Status.CRASHED, "SIGILL")
        return [Decoded(position, [], crashed) for position in range(len(recordings))]

    def check(self):
        if not self.works:
            raise RunError("no recording can be decoded")


def test_a_machine_that_decodes_nothing_stops_the_run_and_a_bad_folder_does_not(corpus):
    planned = plan(*corpus)
    for works, reason in [(True, None), (False, "1 no recording can be decoded")]:
        block = partial(decode_block, settings=SETTINGS, decoder=Broken(works), bytes_per_table=1)
        (rows,) = run_stage(block, planned, SETTINGS)
        assert reason_to_stop(rows) == reason


@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (CorpusError("--input a.csv: line 9"), UsageError, "--input a.csv: line 9"),
        (CheckpointError("not finite"), UsageError, "not finite"),
        (RunError("away"), RunError, "away"),
        (ZeroDivisionError("x"), RunError, "a bug, not a bad recording, stopped the run (ZeroDi"),
    ],
)
def test_an_error_of_a_stage_keeps_its_exit_code(corpus, error, raised, message):
    def stage(_):
        raise error
        yield

    (rows,) = run_stage(stage, plan(*corpus), SETTINGS)
    with pytest.raises(raised) as caught:
        raise_reason_to_stop(rows)
    assert str(caught.value).startswith(message)


def test_the_classifier_gets_the_decoded_samples(corpus):
    recorder = Recorder()
    labeled = classify_block(decoded_block(plan(*corpus)), SETTINGS, recorder, at_once)
    readable = [path for path in corpus if path.name != "bad.wav"]
    for waveform, path in zip(recorder.waveforms, readable, strict=True):
        with open_file(str(path)) as handle:
            expected = decode(handle).waveform
        scale = 32768 if waveform.dtype == np.int16 else 1
        np.testing.assert_array_equal(waveform / np.float32(scale), expected)
    assert labeled["score_happy"].to_pylist() == [0.75, 0.75, None, 0.75]


def test_rows_contain_the_seconds_of_each_stage(corpus, monkeypatch):
    clock = SimpleNamespace(now=0.0, perf_counter=lambda: clock.now)

    class Timed(Recorder):
        def prepare(self, waveforms):
            clock.now += 0.5
            return super().prepare(waveforms)

        def compute(self, waveforms):
            clock.now += 3.0
            return super().compute(waveforms)

    for path in corpus:
        fsspec.filesystem("memory").pipe_file(f"/blocks/{path.name}", path.read_bytes())
    planned = plan(*(f"memory://blocks/{path.name}" for path in corpus))
    decoded = decoded_block(planned)
    monkeypatch.setattr("ser_core.labeling.stages.time", clock)
    labeled = classify_block(decoded, SETTINGS, Timed(), lambda: nullcontext(8.5))
    assert labeled["_idle_seconds"].to_pylist() == [2.0] * 4  # without preparing
    assert labeled["_transfer_seconds"].to_pylist() == [0.125] * 4
    assert labeled["_compute_seconds"].to_pylist() == [0.75] * 4
    assert all(seconds > 0 for seconds in labeled["_fetch_seconds"].to_pylist())
    assert all(seconds > 0 for seconds in labeled["_decode_seconds"].to_pylist())


def test_rows_have_the_path_as_the_user_gave_it():
    planned = plan("/c/a.wav", "/c/b.wav", "/c/t.tar", names=[None, "b.wav", None])
    planned = planned.set_column(
        planned.schema.get_field_index("_member"), "_member", pa.array([None, None, "x.wav"])
    )
    for rows in (
        decoded_block(planned.slice(0, 2)),
        failed_rows(planned, SETTINGS, Status.CRASHED, "why").slice(0, 2),
    ):
        assert rows["path"].to_pylist() == ["/c/a.wav", "b.wav"]
        assert rows["uri"].to_pylist() == ["/c/a.wav", "/c/b.wav"]
    member = failed_rows(planned, SETTINGS, Status.CRASHED, "why").slice(2)
    assert member["path"].to_pylist() == member["uri"].to_pylist() == ["/c/t.tar::x.wav"]


def test_output_rows_follow_the_schema(corpus):
    labeled = classify_block(decoded_block(plan(*corpus)), SETTINGS, Recorder(), at_once)
    schema = output_schema(SETTINGS.labels, NONE)
    now = datetime.now(UTC)
    rows = output_rows(labeled, SETTINGS, schema, {"model": "m", "model_digest": "d"}, now)
    assert rows.schema.equals(schema)
    assert rows["label"].to_pylist() == ["happy", "happy", None, "happy"]
    assert rows["score"].to_pylist() == [0.75, 0.75, None, 0.75]
    assert rows["precision"].to_pylist() == ["fp32", "fp32", None, "fp32"]
    assert rows["model"].to_pylist() == ["m"] * 4
    assert rows["labeled_at"].to_pylist() == [now] * 4
    assert rows["status"].to_pylist() == ["ok", "ok", "decode_error", "ok"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_the_row_of_one_recording_or_stop_the_run(corpus, value):
    class Broken(Recorder):
        def compute(self, waveforms):
            outputs = super().compute(waveforms)
            outputs.scores[: self.broken] = value
            return outputs

    scorer, schema = Broken(), output_schema(SETTINGS.labels, NONE)
    decoded = decoded_block(plan(*[corpus[0]] * 20))

    def rows(broken):
        scorer.broken = broken
        labeled = classify_block(decoded, SETTINGS, scorer, at_once)
        return output_rows(labeled, SETTINGS, schema, {}, datetime.now(UTC))

    few = rows(2)
    assert few["status"].to_pylist() == ["not_finite"] * 2 + ["ok"] * 18
    for name in ("label", "score", "score_sad", "score_happy"):
        assert few[name].null_count == 2
    assert few["score_happy"].to_pylist()[2:] == [0.75] * 18
    assert few["precision"].to_pylist() == ["fp32"] * 20
    with pytest.raises(UsageError, match=r"not finite numbers \(cpu fp32\); try precision fp32"):
        rows(11)


def rows_of(paths, settings, scorer):
    labeled = classify_block(decoded_block(plan(*paths)), settings, scorer, at_once)
    schema = output_schema(settings.labels, NONE, settings.embedding_size)
    return output_rows(labeled, settings, schema, {}, datetime.now(UTC))


def test_rows_have_the_quality_of_what_was_decoded(tmp_path, corpus):
    quiet = write_audio(tmp_path / "quiet.wav", 0.03 * speech_like(1, seed=1))
    rows = rows_of([corpus[0], quiet, tmp_path / "bad.wav"], SETTINGS, Recorder())
    assert rows["quality"].to_pylist() == ["", "quiet", None]
    loud, soft, failed = rows["rms_db"].to_pylist()
    assert loud - soft == pytest.approx(-20 * np.log10(0.03), abs=0.1)
    assert failed is None
    for name in ("peak", "clipped_share", "level_range_db"):
        assert [value is None for value in rows[name].to_pylist()] == [False, False, True]


@pytest.mark.parametrize(("least", "word"), [(None, ""), (0.75, ""), (0.76, "low_score")])
def test_scores_that_are_too_low_are_marked_and_keep_their_label(tmp_path, corpus, least, word):
    quiet = write_audio(tmp_path / "quiet.wav", 0.03 * speech_like(1, seed=1))
    settings = StageSettings(SETTINGS.labels, NONE, min_score=least)
    rows = rows_of([corpus[0], quiet, tmp_path / "bad.wav"], settings, Recorder())
    assert rows["quality"].to_pylist() == [word, f"quiet {word}".strip(), None]
    assert rows["label"].to_pylist() == ["happy", "happy", None]


class Embedding(Recorder):
    """Its embeddings are the first samples, or far too large."""

    scores = (0.25, 0.75)

    def compute(self, waveforms):
        scores = np.tile(np.float32(self.scores), (len(waveforms), 1))
        return Outputs(scores, as_float16(np.stack([w[:3] for w in waveforms]) * 1.0))


def test_rows_with_a_label_have_an_embedding(corpus):
    settings = StageSettings(SETTINGS.labels, NONE, embedding_size=3)
    scorer = Embedding()
    rows = rows_of(corpus, settings, scorer)
    assert rows["embedding_size"].to_pylist() == [3, 3, None, 3]
    embeddings = rows["embedding"].to_pylist()
    assert embeddings[2] is None
    for found, waveform in zip([*embeddings[:2], embeddings[3]], scorer.waveforms, strict=True):
        assert found == as_float16(waveform[:3]).tolist()
    scorer.scores = (np.nan, 0.5)
    rows = rows_of(corpus[:1], settings, scorer)
    assert rows["status"].to_pylist() == ["not_finite"]
    assert rows["embedding"].to_pylist() == rows["embedding_size"].to_pylist() == [None]


def test_without_embeddings_there_is_no_column():
    names = output_schema(SETTINGS.labels, NONE).names + SETTINGS.labeled_schema.names
    assert not [name for name in names if name.startswith("embedding")]
