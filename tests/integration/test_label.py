"""jobs.label in one Ray session: parity with the card, bad files, resuming, crashes, bugs."""

import json
import os
import socket
import subprocess
import sys
import time

import librosa
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from harness import SABOTAGE
from recordings import speech_like, write_audio
from sabotage.breaking_rates import CRASH, EAT, HANG

import ser_core
from ser_core.errors import CheckError, CorpusError, RunError
from ser_core.labeling.config import LabelConfig
from ser_core.labeling.job import label_corpus
from ser_core.sources.forms import open_source
from ser_core.storage.claim import Claim
from tests.log_lines import error, messages

BUG_RATE = 16_010  # Hz; our code raises for a recording of this rate


@pytest.fixture(scope="module", autouse=True)
def ray_session():
    def sabotage():
        """Makes our own code raise, outside the decoder."""
        import ser_core.labeling.stages

        result_columns = ser_core.labeling.stages._result_columns

        def sabotaged(decoded, status):
            if getattr(decoded.result, "sampling_rate", None) == 16_010:
                raise ZeroDivisionError("a bug")
            return result_columns(decoded, status)

        ser_core.labeling.stages._result_columns = sabotaged

    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={
            "worker_process_setup_hook": sabotage,
            "env_vars": {"PYTHONPATH": f"{SABOTAGE}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
        },
    )
    yield
    ray.shutdown()


@pytest.fixture
def label(small_checkpoint, tmp_path):
    def run(source, **settings):
        settings = {"precision": "fp32", "model": str(small_checkpoint)} | settings
        config = LabelConfig(input=str(source), output=str(tmp_path / "labels"), **settings)
        return label_corpus(config)

    run.output = tmp_path / "labels"
    return run


def table(label):
    return pd.read_parquet(label.output).set_index("path").sort_index()


def reports(label):
    paths = sorted((label.output / "__runs").glob("2*.json"), key=os.path.getmtime)
    return [json.loads(path.read_text()) for path in paths]


def write_speech(folder, names):
    for number, name in enumerate(names):
        write_audio(folder / name, speech_like(1 + number % 3, seed=number))
    return folder


def test_real_recordings_get_the_scores_of_the_card(label, small_card, shared_data):
    plan = label(shared_data)
    result = table(label)
    assert plan.to_do == len(result) == 1135
    assert set(result["status"]) == {"ok"}
    sample = result.sample(100, random_state=1)
    scores = sample.filter(like="score_").to_numpy()
    expected = np.stack([small_card.scores(path) for path in sample.index])
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    labels = [name.removeprefix("score_") for name in sample.filter(like="score_")]
    assert list(sample["label"]) == [labels[i] for i in expected.argmax(axis=1)]
    np.testing.assert_allclose(sample["score"], scores.max(axis=1))
    (report,) = reports(label)
    assert report["by_status"] == {"ok": 1135}
    assert sum(report["by_label"].values()) == 1135
    assert report["by_device"] == {"cpu fp32": 1135}
    assert report["audio_hours"] == pytest.approx(result["duration"].sum() / 3600)
    assert report["elapsed_seconds"] > report["seconds_to_first_row"] > 0


def assert_same_rows(rows, expected):
    """Whether rows are equal in every column; scores up to the order of additions."""
    for frame in (rows, expected):
        words = frame.select_dtypes("category").columns
        frame[words] = frame[words].astype(object)
    dated = "labeled_at"
    assert rows[dated].notna().all()
    pd.testing.assert_frame_equal(rows.drop(columns=dated), expected.drop(columns=dated), atol=1e-5)


def test_bad_files_get_rows_and_do_not_affect_their_neighbours(label, small_checkpoint, tmp_path):
    corpus = write_speech(tmp_path / "corpus", [f"{n}.wav" for n in range(6)])
    good = sorted(str(path) for path in corpus.iterdir())
    (corpus / "text.wav").write_text("not audio " * 99)
    (corpus / "zero.wav").touch()
    write_audio(corpus / "header.wav", np.zeros(0, np.float32))
    whole = write_audio(corpus / "cut.wav", speech_like(3)).read_bytes()
    (corpus / "cut.wav").write_bytes(whole[: len(whole) // 2])
    (corpus / "0.wav").rename(corpus / "0.mp3")  # a wrong extension is not an error
    good[0] = good[0].replace(".wav", ".mp3")
    (corpus / "dangling.wav").symlink_to(corpus / "nowhere.wav")
    os.mkfifo(corpus / "pipe.wav")
    label(corpus)
    result = table(label)
    in_python = ser_core.label(list(result.index), small_checkpoint, precision="fp32")
    assert_same_rows(in_python.set_index("path"), result)
    assert list(result.loc[good, "status"].unique()) == ["ok"]
    bad = result.drop(good)
    assert {os.path.basename(path): status for path, status in bad["status"].items()} == {
        "text.wav": "decode_error",
        "zero.wav": "empty",
        "header.wav": "empty",
        "cut.wav": "truncated",
        "dangling.wav": "not_found",
        "pipe.wav": "decode_error",
    }
    assert bad["error"].str.len().min() > 10
    assert bad[["label", "score", "score_angry"]].isna().all(axis=None)
    assert result.loc[good, "error"].isna().all()


def test_a_file_deleted_after_listing_is_not_found(label, tmp_path, monkeypatch):
    from ser_core.labeling import preparation

    corpus = write_speech(tmp_path / "corpus", ["a.wav", "b.wav"])
    plan = preparation.Run.plan

    def plan_and_delete(*args):
        planned = plan(*args)
        (corpus / "a.wav").unlink()
        return planned

    monkeypatch.setattr(preparation.Run, "plan", plan_and_delete)
    label(corpus)
    assert list(table(label)["status"]) == ["not_found", "ok"]


def test_a_rerun_labels_new_and_changed_files(label, tmp_path):
    corpus = write_speech(tmp_path / "corpus", ["a.wav", "b.wav", "c.wav"])
    (corpus / "d.wav").symlink_to(corpus / "later.wav")
    assert label(corpus).to_do == 4
    first = table(label)
    write_audio(corpus / "b.wav", speech_like(2.5, seed=9))
    write_audio(corpus / "later.wav", speech_like(1))
    write_audio(corpus / "e.wav", speech_like(1, seed=4))
    plan = label(corpus)
    assert (plan.listed, plan.done, plan.to_do) == (6, 2, 4)  # a and c are done
    second = table(label)
    assert second.index.is_unique
    assert set(second["status"]) == {"ok"}
    same = [str(corpus / "a.wav"), str(corpus / "c.wav")]
    columns = ["file_id", "duration", "score", "labeled_at"]  # not labelled again
    pd.testing.assert_frame_equal(second.loc[same, columns], first.loc[same, columns])
    assert second.loc[str(corpus / "b.wav"), "duration"] == 2.5
    assert reports(label)[1]["superseded_rows"] == 2  # the old b and d
    assert label(corpus).to_do == 0
    assert [report["recordings"] for report in reports(label)] == [4, 4, 0]
    assert reports(label)[2]["output"]["rows"] == 6


def test_another_checkpoint_labels_every_recording_again(label, tmp_path, small_checkpoint):
    import shutil

    corpus = write_speech(tmp_path / "corpus", ["a.wav", "b.wav"])
    label(corpus)
    other = shutil.copytree(small_checkpoint, tmp_path / "other")
    config = json.loads((other / "config.json").read_text()) | {"layer_norm_eps": 1e-4}
    (other / "config.json").write_text(json.dumps(config))
    assert label(corpus, model=str(other)).to_do == 2
    result = table(label)
    assert result.index.is_unique
    assert set(result["model"]) == {str(other)}


def test_manifest_columns_are_kept(label, tmp_path):
    write_speech(tmp_path / "audio", ["a.wav", "b.wav"])
    manifest = tmp_path / "calls.csv"
    manifest.write_text("agent,path\n007,audio/a.wav\n九,audio/b.wav\n")
    label(manifest)
    assert list(table(label)["agent"].items()) == [("audio/a.wav", "007"), ("audio/b.wav", "九")]
    assert set(table(label)["status"]) == {"ok"}


def test_manifests_with_equal_relative_paths_have_separate_rows(label, tmp_path):
    for number, day in enumerate(("monday", "tuesday")):
        write_audio(tmp_path / day / "1.wav", speech_like(1 + number, seed=number))
        (tmp_path / day / "calls.csv").write_text("path\n1.wav\n")
        label(tmp_path / day / "calls.csv")
    rows = pd.read_parquet(label.output).sort_values("uri")
    assert list(rows["path"]) == ["1.wav", "1.wav"]
    assert list(rows["uri"]) == [str(tmp_path / day / "1.wav") for day in ("monday", "tuesday")]
    assert list(rows["duration"]) == [1.0, 2.0]
    assert label(tmp_path / "monday" / "calls.csv").to_do == 0


def test_an_unreachable_corpus_keeps_its_labels(label, tmp_path, capsys):
    corpus = write_speech(tmp_path / "corpus", ["a.wav", "b.wav"])
    manifest = tmp_path / "calls.csv"
    manifest.write_text("path\ncorpus/a.wav\ncorpus/b.wav\n")
    label(manifest)
    before = table(label)
    assert set(before["status"]) == {"ok"}
    corpus.rename(tmp_path / "unmounted")
    with pytest.raises(RunError, match="0 of 2 recordings could be reached"):
        label(manifest)
    pd.testing.assert_frame_equal(table(label), before)
    (tmp_path / "unmounted").rename(corpus)
    (corpus / "b.wav").unlink()
    label(manifest)
    pd.testing.assert_frame_equal(table(label), before)
    assert "warning: 1 recording could not be reached" in capsys.readouterr().err
    assert reports(label)[-1]["unreachable"] == 1


def test_rows_of_lower_precision_are_labelled_again(label, tmp_path):
    corpus = write_speech(tmp_path / "corpus", ["a.wav", "b.wav"])
    label(corpus, precision="bf16")
    assert set(table(label)["precision"]) == {"bf16"}
    assert label(corpus, precision="auto").to_do == 0
    assert label(corpus, precision="fp32").to_do == 2
    assert set(table(label)["precision"]) == {"fp32"}
    assert label(corpus, precision="auto").to_do == 0


def test_a_run_interrupted_before_its_checks_is_completed(label, tmp_path, monkeypatch):
    from ser_core.labeling import job

    def interrupt(*_):
        raise KeyboardInterrupt

    corpus = write_speech(tmp_path / "corpus", ["a.wav", "b.wav"])
    with monkeypatch.context() as patch:
        patch.setattr(job, "finish", interrupt)
        with pytest.raises(KeyboardInterrupt):
            label(corpus)
    assert [report["outcome"] for report in reports(label)] == ["incomplete"]
    assert label(corpus).to_do == 0
    report = reports(label)[-1]
    assert report["outcome"] == "nothing_to_do"
    assert (report["listed"], report["done_before"], report["output"]["rows"]) == (2, 2, 2)


def test_a_run_that_lost_its_claim_stops(label, tmp_path, monkeypatch):
    corpus = write_speech(tmp_path / "corpus", ["a.wav", "b.wav"])
    monkeypatch.setattr(Claim, "_is_ours", lambda _: False)
    monkeypatch.setattr(Claim.__init__, "__defaults__", (0.01, 60.0))
    with pytest.raises(RunError, match="another run took the folder over"):
        label(corpus)
    assert [report["outcome"] for report in reports(label)] == ["incomplete"]


def test_an_output_of_release_0_1_is_continued(label, tmp_path):
    """Its parts lack `uri` and `precision`, and its file_ids come from the manifest's paths."""
    write_speech(tmp_path / "audio", ["a.wav", "b.wav"])
    manifest = tmp_path / "calls.csv"
    manifest.write_text("path\naudio/a.wav\naudio/b.wav\n")
    label(manifest)
    (part,) = label.output.glob("*.parquet")
    rows = pq.read_table(part).drop_columns(["uri", "precision"])
    recordings = [r for page in open_source([str(manifest)]).pages() for r in page.recordings]
    old_ids = {recording.path: recording.file_id_of_0_1 for recording in recordings}
    ids = pa.array([old_ids[path] for path in rows["path"].to_pylist()])
    rows = rows.set_column(rows.schema.get_field_index("file_id"), "file_id", ids)
    pq.write_table(rows, part)
    (label.output / "__runs").rename(label.output / "_runs")
    assert label(manifest, precision="fp32").to_do == 0
    result = table(label)
    assert set(result["uri"]) == {recording.uri for recording in recordings}
    assert set(result["file_id"]) == {recording.file_id for recording in recordings}
    assert set(result["precision"]) == {"fp32"}


def test_all_segments_are_averaged_by_length(label, tmp_path, small_card):
    path = write_audio(tmp_path / "corpus" / "long.wav", speech_like(14, seed=3))
    label(tmp_path / "corpus", segments="all")
    samples, _ = librosa.load(path, sr=16000)
    parts = [samples[:96000], samples[96000:192000], samples[192000:]]
    expected = np.average(
        [small_card.scores_of(part) for part in parts],
        axis=0,
        weights=[len(part) for part in parts],
    )
    scores = table(label).filter(like="score_").to_numpy()[0]
    np.testing.assert_allclose(scores, expected, atol=1e-4)


def test_a_file_that_crashes_the_worker_does_not_affect_its_neighbours(label, tmp_path):
    corpus = write_speech(tmp_path / "corpus", [f"{n}.wav" for n in range(20)])
    for name, rate in {"crash.wav": CRASH, "hang.wav": HANG, "eat.wav": EAT}.items():
        write_audio(corpus / name, speech_like(1.0), rate)
    label(corpus, decode_timeout=20.0, decode_memory=1.0)
    result = table(label)
    result.index = result.index.map(os.path.basename)
    assert len(result) == 23
    broken = result[result["status"] != "ok"]["status"]
    expected = {"crash.wav": "crashed", "hang.wav": "timeout", "eat.wav": "too_large"}
    assert broken.to_dict() == expected
    assert label(corpus).to_do == 0  # not tried again until the file changes


def test_a_bug_stops_the_run(label, tmp_path):
    corpus = write_speech(tmp_path / "corpus", [f"{n}.wav" for n in range(8)])
    write_audio(corpus / "bug.wav", speech_like(1.0), BUG_RATE)
    with pytest.raises(RunError, match="ZeroDivisionError: a bug"):
        label(corpus)
    assert [(report["outcome"], report["exit_code"]) for report in reports(label)] == [
        ("incomplete", 1)
    ]


def test_max_failed_fraction(label, tmp_path):
    corpus = write_speech(tmp_path / "corpus", ["a.wav", "b.wav"])
    (corpus / "c.wav").touch()
    label(corpus, max_failed_fraction=0.34)
    for _ in range(2):  # also when there is nothing left to do
        with pytest.raises(CheckError, match="1 of 3 recordings have no label"):
            label(corpus, max_failed_fraction=0.33)
    assert len(table(label)) == 3


def test_an_empty_corpus_is_refused(label, tmp_path):
    (tmp_path / "corpus").mkdir()
    with pytest.raises(CorpusError, match="no recordings"):
        label(tmp_path / "corpus")
    assert not label.output.exists()


def command(corpus, output, checkpoint, *extra):
    flags = ["--input", corpus, "--output", output, "--model", checkpoint, "--precision", "fp32"]
    return [sys.executable, "-m", "jobs.label", *map(str, flags), *extra]


def test_sigterm_stops_the_run(tmp_path, small_checkpoint):
    """`ray job stop` and the preemption of a machine send SIGTERM."""
    corpus = write_speech(tmp_path / "corpus", [f"{n:03}.wav" for n in range(300)])
    write_audio(corpus / "000.wav", speech_like(1.0), HANG)  # it cannot be done before it is told
    output = tmp_path / "labels"
    argv = command(corpus, output, small_checkpoint, "--part-seconds", "0.2", "--batch-size", "1")
    job = subprocess.Popen(
        argv,
        env=os.environ | {"PYTHONPATH": str(SABOTAGE)},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    deadline = time.monotonic() + 300
    while not list(output.glob("*.parquet")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    job.terminate()
    _, message = job.communicate(timeout=120)
    assert job.returncode == 1
    assert "stopped; run the same command again to continue" in message
    assert 0 < len(pd.read_parquet(output)) < 300


def test_an_unreachable_cluster_is_refused(tmp_path, small_checkpoint):
    corpus = write_speech(tmp_path / "corpus", ["a.wav"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"  # bound, but not listening
        done = subprocess.run(
            command(corpus, tmp_path / "labels", small_checkpoint),
            env=os.environ | {"RAY_ADDRESS": address},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    assert done.returncode == 2
    assert f"error: RAY_ADDRESS {address}: no Ray cluster answers there" in done.stderr
    assert not (tmp_path / "labels").exists()


def test_messages_of_the_command(tmp_path, small_checkpoint):
    corpus = write_speech(tmp_path / "corpus", ["a.wav"])
    done = subprocess.run(
        command(corpus, tmp_path / "labels", small_checkpoint),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "1 recording, " in done.stdout
    said = messages(done.stderr)
    assert said[:3] == ["loading libraries", "loading the checkpoint", "listing the input"]
    phases = ("starting Ray", "starting classifiers", "removing replaced rows and merging parts")
    assert [line for line in said if line in phases] == [*phases]
    assert any("cpu fp32: 1 of 1 recording (100%), 0 not ok" in line for line in said)
    assert "\x1b" not in done.stderr + done.stdout
    assert "ray" not in done.stderr.lower().replace("starting ray", ""), "Ray's own messages"
    bad = subprocess.run(
        command(tmp_path / "nowhere", tmp_path / "other", small_checkpoint),
        capture_output=True,
        text=True,
        check=False,
    )
    assert bad.returncode == 2
    assert error(bad.stderr).startswith(f"error: --input {tmp_path}/nowhere: there is no such")
    assert not (tmp_path / "other").exists()
