"""What travels between decoders and classifiers, and what each stage took."""

import fsspec
import numpy as np
import pyarrow as pa
import pytest
from recordings import speech_like, write_audio

from ser_core.audio.decode import decode
from ser_core.labeling.stages import Blocks
from ser_core.schema import plan_schema
from ser_core.storage.reading import open_recording

NONE = pa.schema([])
BLOCKS = Blocks("", False, ("sad", "happy"), NONE)


class Recorder:
    """Stands for a classifier: keeps what it is given."""

    transfer_seconds = 0.0
    description = "cpu fp32"

    def scores(self, waveforms):
        self.waveforms = waveforms
        self.transfer_seconds += 0.5
        return np.tile(np.float32([0.25, 0.75]), (len(waveforms), 1))


def plan(*paths):
    columns = {"_index": range(len(paths)), "path": map(str, paths), "file_id": map(str, paths)}
    columns |= {"_size": [None] * len(paths)}
    return pa.table({k: list(v) for k, v in columns.items()}).cast(plan_schema(NONE))


@pytest.fixture
def corpus(tmp_path):
    pcm = write_audio(tmp_path / "pcm16.wav", speech_like(1, seed=1))
    resampled = write_audio(tmp_path / "48k.wav", speech_like(1, 48000, seed=2), 48000)
    loud = write_audio(tmp_path / "loud.wav", 3 * speech_like(1, seed=3), subtype="FLOAT")
    (tmp_path / "bad.wav").write_text("not audio")
    return [pcm, resampled, tmp_path / "bad.wav", loud]


def test_samples_travel_in_the_fewest_bytes_that_lose_none(corpus):
    decoded = BLOCKS.decode(plan(*corpus))
    assert decoded["_sample_type"].to_pylist() == ["<i2", "<f4", None, "<f4"]
    sizes = [None if w is None else len(w) for w in decoded["_waveform"].to_pylist()]
    assert sizes == [32000, 64000, None, 64000]


def test_the_classifier_hears_what_was_decoded(corpus):
    recorder = Recorder()
    labeled = BLOCKS.classify(BLOCKS.decode(plan(*corpus)), recorder, 0.0)
    readable = [path for path in corpus if path.name != "bad.wav"]
    for waveform, path in zip(recorder.waveforms, readable, strict=True):
        with open_recording(str(path), None) as handle:
            expected = decode(handle).waveform
        scale = 32768 if waveform.dtype == np.int16 else 1
        np.testing.assert_array_equal(waveform / np.float32(scale), expected)
    assert labeled["score_happy"].to_pylist() == [0.75, 0.75, None, 0.75]


def test_each_stage_says_how_long_it_took(corpus):
    for path in corpus:
        fsspec.filesystem("memory").pipe_file(f"/blocks/{path.name}", path.read_bytes())
    labeled = BLOCKS.classify(
        BLOCKS.decode(plan(*(f"memory://blocks/{path.name}" for path in corpus))), Recorder(), 8.0
    )
    assert labeled["_idle_seconds"].to_pylist() == [2.0] * 4
    assert labeled["_transfer_seconds"].to_pylist() == [0.125] * 4
    assert all(seconds > 0 for seconds in labeled["_fetch_seconds"].to_pylist())
    assert all(seconds > 0 for seconds in labeled["_decode_seconds"].to_pylist())
    from_disk = BLOCKS.decode(plan(*corpus))
    assert from_disk["_fetch_seconds"].to_pylist() == [0.0] * 4  # those bytes come while decoding
