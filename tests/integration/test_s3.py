"""Labelling a corpus on a real S3 server: resuming, refusing bad commands, reading by ranges.

The jobs run in separate processes, as users run them, and find the server through the standard
AWS variables only.
"""

import errno
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import fsspec
import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import s3fs
import seaweed
import soundfile
import tenacity
from harness import SABOTAGE
from recordings import speech_like, write_with_ffmpeg
from sabotage.breaking_rates import HANG

from ser_core.audio.decode import decode
from ser_core.errors import RecordingError, Status
from ser_core.labeling.label_store import LabelStore
from ser_core.models.checkpoint import load_checkpoint
from ser_core.models.classifier import Classifier
from ser_core.storage.filesystem import REQUEST_SECONDS, resolve
from ser_core.storage.folder import Folder
from ser_core.storage.listing import list_files, stat_file
from ser_core.storage.protocols import object_store
from ser_core.storage.reading import open_file
from tests.log_lines import error

ROOT = Path(__file__).parents[2]
MIB = 1 << 20
JOB_SECONDS = 300.0  # 25 on two idle cores, mostly for starting Ray


# ---- the corpus ----------------------------------------------------------------------------------


def encoded(samples: np.ndarray, rate: int = 16_000, form: str = "wav", **options: Any) -> bytes:
    """Encodes samples as the bytes of an audio file."""
    buffer = io.BytesIO()
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(buffer, "w", rate, channels, format=form.upper(), **options) as file:
        for start in range(0, len(samples), 4000):  # libsndfile crashes on a long Ogg
            file.write(samples[start : start + 4000])
    return buffer.getvalue()


# Characters with a special meaning in a URL, a shell or a glob.
ODD_NAMES = (
    "中文/你好 世界.wav",
    "a b.wav",
    "a+b.wav",
    "a b+c.wav",
    "a#b.wav",
    "100%.wav",
    "a%20b.wav",
    "what?.wav",
    "[1] *.wav",
    "a&b=c;d.wav",
    "UPPER.WAV",
    "e\u0301.wav",  # é as two code points, as on macOS
    "\u00e9.wav",  # é as one code point
)
FIXED_RATE = {"bitrate_mode": "CONSTANT", "compression_level": 0.0}
# Too large for one request: seconds, rate, channels, options. The short recordings are decoded to
# their end, so that the last read reaches the end of the object.
LARGE = {
    "large/long.wav": (60, 16_000, 1, {}),
    "large/long.flac": (60, 16_000, 1, {}),
    "large/long.ogg": (90, 44_100, 2, {}),
    "large/long.mp3": (60, 16_000, 1, FIXED_RATE),
    "large/short.wav": (2, 96_000, 2, {"subtype": "FLOAT"}),
    "large/short.flac": (4, 96_000, 2, {"subtype": "PCM_24"}),
}
BROKEN = {
    "x.wav": b"this is no audio " * 100,
    "y.wav": b"",
    "large/junk.wav": b"no audio " * 200_000,
}
SKIPPED = ("_hidden/a.wav", "plain/_part/b.wav", ".dot.wav", "plain/.dot.wav", "notes.txt")


def audible(folder: Path) -> dict[str, bytes]:
    """Makes the recordings that get a label, by their key below the corpus."""
    files = {}
    for number in range(16):
        form = ("wav", "flac", "ogg", "mp3")[number % 4]
        samples = speech_like(0.4 + 0.45 * number, seed=number)
        files[f"plain/speaker {number % 3}/{number}.{form}"] = encoded(samples, form=form)
    for number, name in enumerate(ODD_NAMES):
        files[name] = encoded(speech_like(1, seed=50 + number))
    for number, (name, (seconds, rate, channels, options)) in enumerate(LARGE.items()):
        samples = speech_like(seconds, rate, channels, seed=100 + number)
        files[name] = encoded(samples, rate, name.rsplit(".", 1)[-1], **options)
    # By default FFmpeg writes the index at the end of the file.
    m4a = write_with_ffmpeg(folder / "x.m4a", speech_like(90, 44_100, 2), 44_100, "-b:a", "192k")
    files["large/long.m4a"] = m4a.read_bytes()
    assert all(len(data) > MIB for name, data in files.items() if name.startswith("large/"))
    return files


def upload(prefix: str, files: Mapping[str, bytes]) -> None:
    s3fs.S3FileSystem().pipe({f"{prefix}/{name}": data for name, data in files.items()})


def local_scores(checkpoint: Path, files: Mapping[str, bytes]) -> tuple[list[str], np.ndarray]:
    """The labels and scores of the same bytes, computed without storage, Ray or batches."""
    loaded = load_checkpoint(str(checkpoint))
    with mock.patch("torch.cuda.is_available", return_value=False):  # as in the jobs
        classifier = Classifier(loaded, "fp32", batch_size=1)
    waveforms = [decode(io.BytesIO(data)).waveform for data in files.values()]
    scores = classifier.scores(waveforms)
    return [loaded.labels[best] for best in scores.argmax(axis=1)], scores


# ---- the job -------------------------------------------------------------------------------------


def command(**flags: Any) -> list[str]:
    pairs = [(f"--{name.replace('_', '-')}", str(value)) for name, value in flags.items()]
    return [sys.executable, "-m", "jobs.label", *(argument for pair in pairs for argument in pair)]


def environment(**changes: str) -> dict[str, str]:
    """The variables of this process with changes, without a Ray cluster and without GPUs."""
    inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return inherited | {"CUDA_VISIBLE_DEVICES": ""} | changes


def label(changes: Mapping[str, str] | None = None, **flags: Any) -> subprocess.CompletedProcess:
    env = environment(**(changes or {}))
    return subprocess.run(
        command(**flags),
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=JOB_SECONDS,
        check=False,
    )


def names_in(folder: str) -> list[str]:
    fs = s3fs.S3FileSystem()
    fs.invalidate_cache()
    return sorted(name.removeprefix(f"{folder}/".removeprefix("s3://")) for name in fs.find(folder))


def parts_in(output: str) -> list[str]:
    return [name for name in names_in(output) if name.startswith("part-")]


def reports(output: str) -> list[dict[str, Any]]:
    fs = s3fs.S3FileSystem()
    runs = [name for name in names_in(output) if name.startswith("__runs/2")]
    assert all(name.endswith(".json") for name in runs)
    return [json.loads(fs.cat_file(f"{output}/{name}")) for name in runs]


# ---- labelling -----------------------------------------------------------------------------------


class Corpus(NamedTuple):
    uri: str
    files: dict[str, bytes]  # only those that get a label


class Labeled(NamedTuple):
    corpus: str
    files: dict[str, bytes]
    output: str
    rows: pd.DataFrame  # indexed by path


@pytest.fixture(scope="module")
def corpus(bucket, tmp_path_factory) -> Corpus:
    uri, files = f"{bucket}/corpus", audible(tmp_path_factory.mktemp("corpus"))
    upload(uri, files | BROKEN | dict.fromkeys(SKIPPED, files["a b.wav"]))
    upload(f"{bucket}/corpus-2", {"neighbour.wav": files["a b.wav"]})
    return Corpus(uri, files)


@pytest.fixture(scope="module")
def labeled(bucket, corpus, small_checkpoint) -> Labeled:
    output = f"{bucket}/labels"
    done = label(input=corpus.uri, output=output, model=small_checkpoint, precision="fp32")
    assert done.returncode == 0, done.stderr
    return Labeled(*corpus, output, pd.read_parquet(output).set_index("path"))


def test_every_listed_file_has_one_row(labeled):
    listed = [f"{labeled.corpus}/{name}" for name in [*labeled.files, *BROKEN]]
    assert sorted(labeled.rows.index) == sorted(listed)


def test_scores_equal_those_of_the_same_bytes_decoded_locally(labeled, small_checkpoint):
    labels, scores = local_scores(small_checkpoint, labeled.files)
    rows = labeled.rows.loc[[f"{labeled.corpus}/{name}" for name in labeled.files]]
    problems = rows[rows["status"] != "ok"]
    assert problems.empty, problems["error"].to_dict()
    assert rows["label"].tolist() == labels
    columns = [name for name in rows.columns if name.startswith("score_")]
    np.testing.assert_allclose(rows[columns], scores, atol=1e-5)
    np.testing.assert_allclose(rows["score"], scores.max(axis=1), atol=1e-5)
    assert np.ptp(scores, axis=0).max() > 1e-3  # scores differ, so that swapped rows are noticed


def test_status_of_files_that_are_not_audio(labeled):
    status = {name: labeled.rows.loc[f"{labeled.corpus}/{name}", "status"] for name in BROKEN}
    assert status == {"x.wav": "decode_error", "y.wav": "empty", "large/junk.wav": "decode_error"}


def test_the_output_reads_as_one_table(labeled):
    table = ds.dataset(labeled.output.removeprefix("s3://"), filesystem=s3fs.S3FileSystem())
    assert table.count_rows() == len(labeled.rows)
    assert table.schema.field("labeled_at").type == pa.timestamp("us", tz="UTC")


def test_the_report_counts_every_row(labeled):
    (report,) = reports(labeled.output)
    assert report["listed"] == len(labeled.rows)
    assert report["by_status"] == labeled.rows["status"].value_counts().to_dict()
    parts = [name for name in names_in(labeled.output) if not name.startswith("__runs/")]
    assert parts
    assert all(name.startswith("part-") and name.endswith(".parquet") for name in parts)


# ---- checkpoint and manifest in the bucket -------------------------------------------------------


def test_checkpoint_and_manifest_in_the_bucket(bucket, small_checkpoint):
    files = {name: encoded(speech_like(1, seed=n)) for n, name in enumerate(["1.wav", "二 +.wav"])}
    upload(f"{bucket}/calls", files)
    other = encoded(speech_like(2, seed=9), form="flac")
    upload(f"{bucket}/elsewhere", {"3.flac": other})
    upload(f"{bucket}/model", {f.name: f.read_bytes() for f in small_checkpoint.iterdir()})
    paths = [*files, f"{bucket}/elsewhere/3.flac", "gone.wav"]
    extra = {"speaker": ["007", "王", None, "x"], "turn": pa.array([1, 2, 3, None], pa.int64())}
    buffer = io.BytesIO()
    pq.write_table(pa.table({"path": paths, **extra}), buffer)
    upload(f"{bucket}/calls", {"calls.parquet": buffer.getvalue()})

    manifest, output = f"{bucket}/calls/calls.parquet", f"{bucket}/manifest-labels"
    done = label(input=manifest, output=output, model=f"{bucket}/model", precision="fp32")
    assert done.returncode == 0, done.stderr

    rows = ds.dataset(output.removeprefix("s3://"), filesystem=s3fs.S3FileSystem())
    rows = rows.to_table().sort_by("turn").to_pylist()  # nulls last
    assert [row["path"] for row in rows] == paths
    assert [row["speaker"] for row in rows] == extra["speaker"]
    assert [row["status"] for row in rows] == ["ok", "ok", "ok", "not_found"]
    assert {row["model"] for row in rows} == {f"{bucket}/model"}
    labels, scores = local_scores(small_checkpoint, {**files, "3.flac": other})
    assert [row["label"] for row in rows[:3]] == labels
    np.testing.assert_allclose([r["score"] for r in rows[:3]], scores.max(axis=1), atol=1e-5)


# ---- killed and resumed --------------------------------------------------------------------------


def kill_after_the_first_part(job: subprocess.Popen, output: str) -> None:
    """Kills the driver, then the processes that Ray started for it."""
    started: list[psutil.Process] = []
    deadline = time.monotonic() + JOB_SECONDS
    try:
        while not parts_in(output):
            assert job.poll() is None, "the job ended before it could be killed"
            assert time.monotonic() < deadline, "no part appeared"
            started = psutil.Process(job.pid).children(recursive=True)
            time.sleep(0.02)
    finally:
        job.kill()
        job.wait()
        for process in started:  # Ray's agents would take a minute to exit
            with suppress(psutil.NoSuchProcess):
                process.kill()


MANY = 400


def test_a_killed_run_is_resumed(bucket, small_checkpoint, tmp_path):
    corpus, output = f"{bucket}/many", f"{bucket}/many-labels"
    upload(corpus, {f"{n:03}.wav": encoded(speech_like(0.05, seed=n)) for n in range(1, MANY)})
    upload(corpus, {"hangs.wav": encoded(speech_like(0.05), HANG)})  # until the job is killed
    flags = {"input": corpus, "output": output, "model": small_checkpoint, "part_seconds": 1}
    flags |= {"batch_size": 1, "precision": "fp32"}
    with (tmp_path / "log").open("wb") as log:
        env = environment(PYTHONPATH=str(SABOTAGE))
        job = subprocess.Popen(command(**flags), cwd=ROOT, env=env, stdout=log, stderr=log)
        kill_after_the_first_part(job, output)

    fs = s3fs.S3FileSystem()
    parts = {name: fs.cat_file(f"{output}/{name}") for name in parts_in(output)}
    kept = pd.concat([pd.read_parquet(io.BytesIO(part)) for part in parts.values()])
    assert not reports(output)
    assert 0 < len(kept) < MANY

    done = label(**flags)
    assert done.returncode == 0, done.stderr
    rows = pd.read_parquet(output).set_index("path")
    assert len(rows) == MANY
    assert rows.index.is_unique
    assert (rows["status"] == "ok").all()
    (report,) = reports(output)
    assert report["done_before"] == len(kept)
    assert report["recordings"] == MANY - len(kept)
    assert (rows.loc[kept["path"], "labeled_at"].to_numpy() == kept["labeled_at"].to_numpy()).all()


# ---- commands that are refused -------------------------------------------------------------------

# The flag that the error message names, "--" where it may be any, and the exit code.
WRONG = {
    "wrong secret": ("--", 2),
    "no such bucket": ("--input", 2),
    "no recordings": ("--input", 2),
    "no bucket for the output": ("--output", 2),
    "no server": ("--", 1),  # the same command may succeed later
}


@pytest.fixture(scope="module")
def refused(bucket, small_checkpoint) -> dict[str, subprocess.CompletedProcess]:
    """The results of commands that cannot run as written, run two at a time."""
    upload(f"{bucket}/one", {"1.wav": encoded(speech_like(1))})
    upload(f"{bucket}/texts", {"1.txt": b"text"})
    corpus, output, missing = f"{bucket}/one", f"{bucket}/refused", "s3://no-such-bucket"
    no_server = f"http://{seaweed.HOST}:{seaweed.free_block()}"
    wrong_secret = seaweed.environment(os.environ["AWS_ENDPOINT_URL"], secret="another")
    calls = [
        (wrong_secret, corpus, output),
        ({}, f"{missing}/one", output),
        ({}, f"{bucket}/texts", output),
        ({}, corpus, f"{missing}/labels"),
        ({"AWS_ENDPOINT_URL": no_server}, corpus, output),
    ]
    with ThreadPoolExecutor(2) as pool:
        results = pool.map(
            lambda call: label(call[0], input=call[1], output=call[2], model=small_checkpoint),
            calls,
        )
        return dict(zip(WRONG, results, strict=True))


@pytest.mark.parametrize("mistake", WRONG)
def test_a_refusal_is_one_line(refused, mistake):
    done, (flag, code) = refused[mistake], WRONG[mistake]
    assert done.returncode == code, done.stderr
    assert flag in error(done.stderr)


def test_refused_commands_write_nothing(refused, bucket):
    assert refused
    assert not names_in(f"{bucket}/refused")
    assert not s3fs.S3FileSystem().exists("no-such-bucket")


# ---- restricted permissions ----------------------------------------------------------------------


@pytest.fixture
def guest(bucket, monkeypatch) -> Iterator[str]:  # noqa: ARG001
    """A prefix outside which the credentials have no permission, not even to see the bucket."""
    s3fs.S3FileSystem().mkdir(seaweed.GUEST_PREFIX.split("/")[0])
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweed.GUEST_KEY)
    s3fs.S3FileSystem.clear_instance_cache()
    object_store.cache_clear()
    yield f"s3://{seaweed.GUEST_PREFIX}"
    s3fs.S3FileSystem.clear_instance_cache()
    object_store.cache_clear()


def test_permissions_for_a_prefix_are_enough(guest):
    upload(f"{guest}/corpus", {"1.wav": b"x"})
    (entry,) = list_files(f"{guest}/corpus", bool)
    assert entry.path == f"{guest}/corpus/1.wav"
    store = LabelStore(f"{guest}/labels", ["sad"], pa.schema([]))
    with store.claimed():
        assert not store.index("digest", "auto").is_done.any()
        store.write_report("run", {})
    with pytest.raises(PermissionError):
        s3fs.S3FileSystem().ls(guest.rsplit("/", 1)[0])


# ---- writing -------------------------------------------------------------------------------------


def test_only_one_of_many_creates_an_object(bucket):
    folder = Folder(f"{bucket}/claims")
    for number in range(5):
        with ThreadPoolExecutor(8) as pool:
            created = list(pool.map(lambda n: folder.create("claim", b"%d" % n), range(8)))
        assert created.count(True) == 1, number
        assert folder.read("claim") == b"%d" % created.index(True)
        folder.remove("claim")


def test_an_object_of_several_parts(bucket, tmp_path):
    folder, content = Folder(f"{bucket}/parts"), os.urandom(20 * MIB + 1)
    (tmp_path / "local").write_bytes(content)
    folder.write("written", content)
    folder.fs.put_file(str(tmp_path / "local"), folder.path("uploaded"))
    folder.fs.cp_file(folder.path("written"), folder.path("copied"))
    assert folder.names() == ["copied", "uploaded", "written"]
    for name in folder.names():
        assert s3fs.S3FileSystem().cat_file(f"{bucket}/parts/{name}") == content
        with folder.fs.open(folder.path(name), cache_type="none") as file:
            file.seek(-5, os.SEEK_END)
            assert file.read() == content[-5:]


def test_versions_are_those_that_s3fs_gives(bucket):
    upload(f"{bucket}/versions", {"a.wav": b"x", "b c.wav": bytes(12 * MIB)})
    for entry in list_files(f"{bucket}/versions", bool):
        info = s3fs.S3FileSystem().info(entry.path)
        assert entry == stat_file(entry.path) == (entry.path, info["size"], info["ETag"])


def test_a_name_with_a_control_character(bucket):
    names = ["a.wav", "b\tc.wav", "d.wav"]
    upload(f"{bucket}/odd", {name: name.encode() for name in names})
    entries = list(list_files(f"{bucket}/odd", bool))
    assert [entry.path for entry in entries] == [f"{bucket}/odd/{name}" for name in names]
    for name, entry in zip(names, entries, strict=True):
        with open_file(entry.path, entry.size) as handle:
            assert handle.read() == name.encode()


# ---- reading a recording -------------------------------------------------------------------------


@pytest.mark.parametrize("size", [None, 1000, 2 * MIB])
def test_a_deleted_object_is_not_found(bucket, size):
    uri = f"{bucket}/deleted.wav"
    upload(bucket, {"deleted.wav": encoded(speech_like(1))})
    s3fs.S3FileSystem().rm_file(uri)
    with pytest.raises(RecordingError) as caught, open_file(uri, size) as handle:
        decode(handle)
    assert caught.value.status is Status.NOT_FOUND


@pytest.mark.parametrize("name", [*LARGE, "large/long.m4a"])
def test_a_large_recording_is_read_to_its_end(corpus, name):
    uri, data = f"{corpus.uri}/{name}", corpus.files[name]
    with open_file(uri, len(data)) as handle:
        remote = decode(handle, whole=True)
    local = decode(io.BytesIO(data), whole=True)
    assert remote.duration == local.duration
    np.testing.assert_array_equal(remote.waveform, local.waveform)


@pytest.mark.parametrize(
    ("form", "options"), [("wav", {}), ("mp3", FIXED_RATE)], ids=["wav", "mp3"]
)
def test_a_long_recording_needs_few_small_requests(bucket, form, options, monkeypatch):
    data = encoded(np.tile(speech_like(60), 10), form=form, **options)
    upload(bucket, {f"long.{form}": data})
    uri = f"{bucket}/long.{form}"
    fetched: list[int] = []
    fs = resolve(uri)[0]
    cat_file = fs.cat_file

    def counted(*args: Any, **kwargs: Any) -> bytes:
        content = cat_file(*args, **kwargs)
        fetched.append(len(content))
        return content

    monkeypatch.setattr(fs, "cat_file", counted)
    with open_file(uri, len(data)) as handle:
        recording = decode(handle)
    assert recording.duration == pytest.approx(600, abs=0.2)
    assert len(recording.waveform) == 96_000
    assert 1 <= len(fetched) <= 6
    assert sum(fetched) < 0.05 * len(data)


class Busy(fsspec.AbstractFileSystem):
    """A store that fails a number of times before it returns data."""

    protocol = "busy"
    data = encoded(speech_like(1))
    error: Exception
    failures: float = 0
    calls: int = 0

    def cat_file(self, path, start=None, end=None, **_):  # noqa: ARG002
        Busy.calls += 1
        if Busy.calls <= Busy.failures:
            raise Busy.error
        return self.data[start:end]


@pytest.fixture(
    params=[OSError(errno.EBUSY, "Please reduce your request rate."), RuntimeError("no route")],
    ids=["OSError", "error of the client library"],
)
def busy(request, monkeypatch) -> list[float]:
    """Registers the busy store; returns the pauses between retries, which take no time here."""
    fsspec.register_implementation("busy", Busy, clobber=True)
    pauses: list[float] = []
    Busy.data, Busy.error, Busy.calls = encoded(speech_like(1)), request.param, 0
    now = time.monotonic()
    monkeypatch.setattr(tenacity.nap.time, "sleep", pauses.append)
    monkeypatch.setattr(tenacity.nap.time, "monotonic", lambda: now + sum(pauses))
    return pauses


def test_transient_errors_are_retried(busy):
    Busy.failures = 2
    with open_file("busy://x.wav", len(Busy.data)) as handle:
        assert decode(handle).duration == 1.0
    assert Busy.calls == 3
    assert len(busy) == 2
    assert min(busy) > 0


def test_a_persistent_error_is_unavailable(busy):
    Busy.failures = np.inf
    with pytest.raises(RecordingError) as caught, open_file("busy://x.wav", 10):
        pass
    assert caught.value.status is Status.UNAVAILABLE
    assert str(Busy.error.args[-1]) in str(caught.value)
    assert len(busy) == Busy.calls - 1 >= 1
    assert REQUEST_SECONDS - 8 < sum(busy) < REQUEST_SECONDS


# ---- listing -------------------------------------------------------------------------------------


def test_all_pages_are_listed_and_none_cached(bucket):
    names = {f"{n % 7}/{n:04}.wav" for n in range(1100)}
    upload(f"{bucket}/pages", dict.fromkeys(names, b"x"))
    s3fs.S3FileSystem.clear_instance_cache()
    entries = list(list_files(f"{bucket}/pages", lambda path: path.endswith(".wav")))
    assert sorted(entry.path for entry in entries) == sorted(f"{bucket}/pages/{n}" for n in names)
    assert {entry.size for entry in entries} == {1}
    assert not list(resolve(bucket)[0].dircache)
