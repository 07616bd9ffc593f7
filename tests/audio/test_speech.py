"""Speech is found where it is, however the stream is cut, as silero-vad's own function finds it."""

import importlib.util
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from ser_core.audio import speech
from ser_core.audio.decode import decode
from ser_core.audio.speech import SpeechDetector, check_installed
from ser_core.errors import UsageError
from ser_core.storage.reading import open_file

CORPUS = Path(__file__).parents[2] / "examples/corpus"
SPOKEN = "angry/weather-m1.wav neutral/train-f5.flac sad/letter-f5.opus happy/train-m7.wav".split()
FRAME = 512
SECOND = 16000
OPTIONS = {"min_speech_duration_ms": 100, "min_silence_duration_ms": 300}


def recording(path: Path) -> np.ndarray:
    with open_file(str(path)) as handle:
        return decode(handle, whole=True).waveform


def spoken() -> list[np.ndarray]:
    """The examples, without the silence at their ends."""
    recordings = [recording(CORPUS / name) for name in SPOKEN]
    loud = [np.flatnonzero(np.abs(audio) > 0.02 * np.abs(audio).max()) for audio in recordings]
    return [audio[i[0] : i[-1] + 1] for audio, i in zip(recordings, loud, strict=True)]


def noise(seconds: float, level: float = 0.001) -> np.ndarray:
    random = np.random.default_rng(0)
    return (level * random.standard_normal(int(seconds * SECOND))).astype(np.float32)


def find(samples: np.ndarray, block: int | None = None) -> list[tuple[int, int]]:
    detector = SpeechDetector()
    segments = []
    for start in range(0, len(samples), block or len(samples) or 1):
        segments += detector.add(samples[start : start + (block or len(samples))])
    segments += detector.finish()
    assert detector.speech_samples == sum(end - start for start, end in segments)
    return segments


def join(segments: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Takes back the cuts of long speech: only there does a segment begin where another ends."""
    joined: list[tuple[int, int]] = []
    for start, end in segments:
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


@pytest.fixture(scope="module")
def silero_vad():
    """The library, which has torch use one thread for the rest of the process."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    threads = torch.get_num_threads()
    library = importlib.import_module("silero_vad")
    torch.set_num_threads(1)
    yield library
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=["torch", "onnx"])
def silero(silero_vad, request):
    """The library's own function, on either of its networks."""
    model = silero_vad.load_silero_vad(onnx=request.param == "onnx")

    def stretches(samples: np.ndarray) -> list[tuple[int, int]]:
        found = silero_vad.get_speech_timestamps(torch.from_numpy(samples), model, **OPTIONS)
        return [(stretch["start"], stretch["end"]) for stretch in found]

    return stretches


@pytest.fixture(scope="module")
def scene() -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Four recordings with quiet noise before, between and after them, and where they lie."""
    parts, places, position = [noise(2.5)], [], int(2.5 * SECOND)
    for samples in spoken():
        places.append((position, position + len(samples)))
        parts += [samples, noise(1.7)]
        position += len(samples) + len(parts[-1])
    return np.concatenate(parts), places


class FakeSession:
    """A network for which the probability of speech in a frame is its last sample."""

    def run(self, _outputs, inputs):
        return inputs["input"][:, -1], inputs["h"], inputs["c"]


@pytest.fixture
def probabilities(monkeypatch):
    """Finds speech by given probabilities, one a frame."""
    monkeypatch.setattr(speech, "_session", FakeSession)
    return lambda values: find(np.repeat(np.asarray(values, np.float32), FRAME))


def test_speech_is_found_where_it_is(scene):
    samples, places = scene
    found = find(samples)
    assert len(found) == len(places)
    assert np.abs(np.array(found) - places).max() < 0.2 * SECOND


@pytest.mark.parametrize(
    "samples",
    [np.zeros(0), np.zeros(1), np.zeros(20 * SECOND), noise(20, 0.1), np.full(5 * SECOND, 0.5)],
    ids=["nothing", "one sample", "silence", "noise", "constant"],
)
def test_no_speech(samples):
    assert find(samples.astype(np.float32)) == []


@pytest.mark.parametrize("block", [100, 511, 512, 16383, 16384, 50_001])
def test_block_size_does_not_matter(scene, block):
    samples = np.tile(scene[0], 2)
    assert find(samples, block) == find(samples)


def test_recordings_do_not_influence_each_other(scene):
    one, other = SpeechDetector(), SpeechDetector()
    segments = []
    for start in range(0, len(scene[0]), 20_000):
        segments += one.add(scene[0][start : start + 20_000])
        other.add(noise(2, 0.1))
    assert segments + one.finish() == find(scene[0])


def test_equals_silero_vad(scene, silero):
    for samples in scene[0], scene[0][:100_001], np.concatenate(spoken()):
        np.testing.assert_allclose(join(find(samples)), silero(samples), atol=FRAME)


def test_equals_silero_vad_on_real_recordings(shared_data, silero):
    recordings = [recording(path) for path in sorted(shared_data.glob("emodb/*.wav"))[::20]]
    for samples in [*recordings, np.concatenate(recordings)]:
        np.testing.assert_allclose(join(find(samples)), silero(samples), atol=FRAME)


def test_short_words_are_found(shared_data):
    words = sorted((shared_data / "mandarin_words").iterdir())[::20]
    assert [len(find(recording(path))) for path in words] == [1] * len(words)


def test_equals_silero_vad_for_any_probabilities(probabilities, silero_vad):
    expect = silero_vad.utils_vad.get_speech_timestamps_from_probs
    random = np.random.default_rng(1)
    for _ in range(300):
        steps = random.normal(0, random.uniform(0.05, 0.6), 800).cumsum() + random.normal()
        values = (1 / (1 + np.exp(-np.sin(steps) * random.uniform(1, 8)))).astype(np.float32)
        expected = expect(values.tolist(), **OPTIONS)
        assert join(probabilities(values)) == [(s["start"], s["end"]) for s in expected]


@pytest.mark.parametrize(
    ("frames", "found"), [(3, []), (4, [(100 * FRAME - 480, 104 * FRAME + 480)])]
)
def test_shortest_speech(probabilities, frames, found):
    assert probabilities([0] * 100 + [1] * frames + [0] * 100) == found


@pytest.mark.parametrize(("frames", "stretches"), [(10, 1), (11, 2)])
def test_short_pauses_are_part_of_speech(probabilities, frames, stretches):
    values = [1] * 30 + [0] * frames + [1] * 30 + [0] * 30
    assert len(probabilities(values)) == stretches  # the eleventh frame begins after 320 ms


@pytest.mark.parametrize("shape", ["random", "falling", "rising"])
@pytest.mark.parametrize("seconds", [6.1, 7.8, 7.9, 8, 8.1, 12, 13, 61])
def test_long_speech_is_cut_into_segments_of_2_to_6_s(probabilities, seconds, shape):
    values = np.linspace(0.6, 1, int(seconds * SECOND / FRAME))
    if shape == "random":
        values = np.random.default_rng(int(seconds)).permutation(values)
    if shape == "falling":
        values = values[::-1]
    segments = probabilities([0] * 20 + list(values) + [0] * 20)
    lengths = np.array([end - start for start, end in segments]) / SECOND
    assert len(segments) > 1
    assert lengths.min() >= 2
    assert lengths.max() <= 6
    assert len(join(segments)) == 1


def test_long_speech_is_cut_in_its_pauses(probabilities):
    pauses = (120, 290, 370)  # the frames in which they begin
    values = np.ones(550)
    for pause in pauses:
        values[pause : pause + 6] = 0.1
    values[[80, 250, 480]] = 0.1  # as weak, but shorter
    segments = probabilities([*values, *[0] * 30])
    cuts = [end // FRAME for _, end in segments[:-1]]
    assert cuts == pytest.approx([pause + 3 for pause in pauses], abs=1)


def test_speech_of_6_s_is_not_cut(probabilities):
    frames = (6 * SECOND - 2 * 480) // FRAME
    assert len(probabilities([0] * 20 + [1] * frames + [0] * 20)) == 1
    assert len(probabilities([0] * 20 + [1] * (frames + 1) + [0] * 20)) == 2


def test_speech_until_the_end_of_the_recording(monkeypatch):
    monkeypatch.setattr(speech, "_session", FakeSession)
    samples = np.ones(10 * FRAME + 7, np.float32)
    assert find(samples) == [(0, 10 * FRAME + 7)]


def test_a_pause_at_the_end_of_the_recording_is_part_of_speech(probabilities):
    assert probabilities([1] * 30 + [0] * 10) == [(0, 40 * FRAME)]
    assert probabilities([1] * 30 + [0] * 11) == [(0, 30 * FRAME + 480)]


def test_a_pause_ends_though_it_stays_between_the_thresholds(probabilities):
    values = [1] * 30 + [0.3] + [0.4] * 200 + [1] * 30 + [0] * 30
    assert probabilities(values)[0] == (0, 30 * FRAME + 480)


@pytest.mark.parametrize(
    "values",
    [[0], [1], [0.34], [0.4], [0.6], [1, 0.3, *[0.4] * 3000], [0] * 31 + [1] * 32, [1] * 9 + [0]],
)
def test_only_what_is_undecided_has_to_be_kept(monkeypatch, values):
    monkeypatch.setattr(speech, "_session", FakeSession)
    samples = np.repeat(np.resize([1, *values], 5000), FRAME).astype(np.float32)
    detector = SpeechDetector()
    kept_from = 0
    for start in range(0, len(samples), 8 * FRAME):
        segments = detector.add(samples[start : start + 8 * FRAME])
        assert all(start >= kept_from for start, _ in segments)
        assert detector.undecided_from >= kept_from
        kept_from = detector.undecided_from
        assert min(start + 8 * FRAME, len(samples)) - kept_from < 12 * SECOND
    assert all(start >= kept_from for start, _ in detector.finish())


def test_memory_does_not_grow(scene):
    samples, detector = scene[0], SpeechDetector()
    detector.add(samples)  # loads the network
    tracemalloc.start()
    for _ in range(20):  # five minutes, of which a second are 64 kB
        detector.add(samples)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 100_000


@pytest.mark.parametrize("missing", ["silero_vad", "onnxruntime"])
def test_a_missing_library_is_one_line(monkeypatch, missing):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == missing else find_spec(name)
    )
    with pytest.raises(UsageError) as caught:
        check_installed()
    assert str(caught.value) == (
        "silero-vad and onnxruntime are required to find speech: pip install 'ser-batch[speech]'"
    )


def test_an_old_silero_vad_is_refused(monkeypatch):
    monkeypatch.setattr(speech, "_MODEL", Path("data", "of-a-later-release.onnx"))
    with pytest.raises(UsageError, match=r"pip install 'ser-batch\[speech\]'"):
        check_installed()


def test_process_stays_small_and_silent(tmp_path):
    """Neither torch is imported nor a thread started, and onnxruntime reports to nobody."""
    code = """if True:
        import os, sys
        import numpy as np
        from ser_core.audio.speech import SpeechDetector, check_installed
        check_installed()
        assert not {"onnxruntime", "silero_vad", "torch"} & set(sys.modules)
        threads = len(os.listdir("/proc/self/task"))
        SpeechDetector().add(np.zeros(100_000, np.float32))
        assert not {"silero_vad", "torch"} & set(sys.modules)
        assert len(os.listdir("/proc/self/task")) == threads
    """
    # onnxruntime keeps the reports that it has yet to send in the user's cache.
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert list(tmp_path.iterdir()) == []
