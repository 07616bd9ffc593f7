"""Files are read from a path on this machine, wherever they lie, and only as far as is needed."""

import tarfile

import numpy as np
import pytest
from misbehaving_store import BUCKET
from recordings import speech_like, write_audio

from ser_core.errors import RecordingError, Status
from ser_core.sources.lookup import look_up
from ser_core.sources.recording import Recording
from ser_core.verification.recordings import load, local_files


def contents(recordings):
    """The suffix and the bytes of each file, or its status, with the names of its recordings."""
    found = []
    for names, path in local_files(recordings):
        failed = isinstance(path, RecordingError)
        found.append((names, path.status if failed else (path.suffix, path.read_bytes())))
    return found


def test_each_file_once(tmp_path):
    path = tmp_path / "1.wav"
    path.write_bytes(b"1")
    stretches = {f"{start}": Recording(str(path), start=start, duration=1.0) for start in (1, 2)}
    assert contents(stretches) == [(["1", "2"], (".wav", b"1"))]


def test_objects_are_copied(store):
    store.objects = {"a.mp3": b"a", "b.wav": bytes(3 << 20)}
    names = [f"s3://{BUCKET}/{name}" for name in ("a.mp3", "b.wav")]
    recordings = look_up(names) | {"gone": Recording(f"s3://{BUCKET}/gone.wav", 5)}
    assert contents(recordings) == [
        ([names[0]], (".mp3", b"a")),
        ([names[1]], (".wav", bytes(3 << 20))),
        (["gone"], Status.NOT_FOUND),
    ]


def test_members_are_copied(tmp_path):
    (tmp_path / "a.flac").write_bytes(b"a")
    with tarfile.open(tmp_path / "calls.tar", "w") as shard:
        shard.add(tmp_path / "a.flac", "x/a.flac")
    uri = f"{tmp_path}/calls.tar"
    found = look_up([f"{uri}::x/a.flac"]) | {"gone": Recording(uri, None, member="b.flac")}
    assert contents(found) == [
        ([f"{uri}::x/a.flac"], (".flac", b"a")),
        (["gone"], Status.NOT_FOUND),
    ]


def test_the_beginning_of_a_long_file_is_that_of_all_of_it(tmp_path):
    path = write_audio(tmp_path / "x.flac", speech_like(90.0, 44100), 44100)
    whole, beginning = load(path, True, None), load(path, True, 6.0)
    assert whole.shape == (1, 90 * 16000)
    assert beginning.shape == (1, 66 * 16000)
    np.testing.assert_array_equal(beginning[0, : 6 * 16000], whole[0, : 6 * 16000])


def test_channels(tmp_path):
    samples = speech_like(1.0, 16000, channels=2)
    path = write_audio(tmp_path / "x.wav", samples, subtype="FLOAT")
    np.testing.assert_array_equal(load(path, False, None), samples.T)
    np.testing.assert_allclose(load(path, True, None)[0], samples.mean(axis=1), atol=1e-6)


def test_what_is_no_audio(tmp_path):
    (tmp_path / "x.wav").write_bytes(b"no audio")
    with pytest.raises(RecordingError) as caught:
        load(tmp_path / "x.wav", True, None)
    assert str(caught.value)
