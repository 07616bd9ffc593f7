"""`verify` passes what the card's script would say, and finds what it would not."""

import importlib.util
import json
import re
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from labelled_rows import permuted_head, with_column
from recordings import speech_like, write_audio, write_manifest

from jobs.command import run
from jobs.ser_batch import JOBS
from ser_core.errors import CheckError, CorpusError, OutputError, RunError, UsageError
from ser_core.log import logged
from ser_core.verification.config import VerifyConfig
from ser_core.verification.job import verify_labels


def verify(labels, **settings):
    return verify_labels(VerifyConfig(labels=labels, **settings))


def test_an_honest_run_in_fp32(label, corpus, tmp_path, capsys):
    found = verify(label(corpus), output=str(tmp_path / "out"))
    assert len(found.compared) == 12
    assert not found.skipped
    assert max(row.difference for row in found.compared) < 1e-4
    assert len({row.card_label for row in found.compared}) > 1
    printed = capsys.readouterr().out
    assert "12 of 12 labels compared with the model card's script" in printed
    assert " 100.0 % " in printed
    written = json.loads((tmp_path / "out" / "verification.json").read_text())
    assert written["passed"]
    assert written["compared"] == len(written["rows_compared"]) == 12
    assert written["by_precision"]["fp32"]["equal_labels"] == 1


def test_an_honest_run_in_bf16(label, corpus):
    found = verify(label(corpus, precision="bf16"))
    assert {row.precision for row in found.compared} == {"bf16"}
    assert 1e-3 < max(row.difference for row in found.compared) < 0.4
    with pytest.raises(CheckError, match="by more than the tolerance"):
        verify(found.labels, tolerance=1e-4)


def test_rows_of_bf16_that_claim_to_be_of_fp32(label, corpus):
    def claim(rows):
        return with_column(rows, "precision", ["fp32"] * len(rows))

    with pytest.raises(CheckError, match=r"^\d+ of 12 labels differ"):
        verify(label(corpus, precision="bf16", change=claim))


def test_a_run_in_bf16_that_computes_too_coarsely(label, corpus, changed_checkpoint):
    def coarse(weights):  # with one bit of mantissa, where bf16 has seven
        power = {n: 2 ** np.floor(np.log2(np.abs(w) + 1e-30)) for n, w in weights.items()}
        return {n: (np.round(w / power[n] * 2) / 2 * power[n]).astype(w.dtype)
                for n, w in weights.items()}  # fmt: skip

    labels = label(corpus, precision="bf16", network=changed_checkpoint(coarse))
    with pytest.raises(CheckError, match="by more than the tolerance"):
        verify(labels)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_permuted_head_behind_the_right_digest(
    label, corpus, changed_checkpoint, precision, capsys
):
    labels = label(corpus, network=changed_checkpoint(permuted_head), precision=precision)
    assert run(VerifyConfig, JOBS["verify"], ["--labels", labels]) == 3
    captured = capsys.readouterr()
    assert "of 12 labels differ from the model card's script" in captured.err
    assert re.search(rf"^{corpus}/0.wav: \w+ 0\.\d+, card \w+ 0\.\d+, diff", captured.out, re.M)


def test_labels_of_another_checkpoint(label, corpus, changed_checkpoint, capsys):
    permuted = changed_checkpoint(permuted_head)
    labels = label(corpus)
    assert run(VerifyConfig, JOBS["verify"], ["--labels", labels, "--model", str(permuted)]) == 3
    *_, line = capsys.readouterr().err.splitlines()
    digest = pd.read_parquet(labels)["model_digest"][0]
    assert (
        f"another checkpoint made the 12 current labels in {labels}: their model_digest is {digest}"
        in line
    )


def test_labels_that_another_checkpoint_has_replaced(
    label, corpus, small_checkpoint, changed_checkpoint, capsys
):
    """Both sets of rows are there after a run that did not complete, or ended with 3."""
    recordings = corpus / "0.wav", corpus / "1.flac"
    label(*recordings)
    other = str(changed_checkpoint(temperature=2.0))
    labels = label(*recordings[:1], model=other)
    assert len(verify(labels, model=str(small_checkpoint)).compared) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "1 of 1 label compared" in printed
    assert "not compared: 1 label of other checkpoints" in printed
    label(*recordings, model=other)
    with pytest.raises(CheckError, match=r"another checkpoint made the 2 current labels in"):
        verify(labels, model=str(small_checkpoint))


def test_a_label_that_is_not_that_of_the_scores(label, corpus):
    def relabel(rows):
        labels = np.array(rows["label"].to_pylist(), object)
        scores = np.stack([rows[n].to_numpy() for n in rows.column_names if n.startswith("score_")])
        names = [n[6:] for n in rows.column_names if n.startswith("score_")]
        labels[3] = names[scores[:, 3].argmin()]
        return with_column(rows, "label", labels)

    with pytest.raises(CheckError, match=r"^1 of 12 labels differ"):
        verify(label(corpus, change=relabel))


CUTTINGS = [
    {"segments": "all"},
    {"segments": "all", "hop": 2.5},
    {"rows": "segment"},
    {"rows": "segment", "hop": 4.0},
    {"channels": "each"},
    {"channels": "each", "rows": "segment"},
    {"channels": "each", "segments": "all"},
    {"rows": "segment", "segments": "speech"},
]


@pytest.mark.parametrize("settings", CUTTINGS, ids=str)
def test_segments_rows_and_channels(label, corpus, settings):
    found = verify(label(corpus, **settings))
    assert len(found.compared) >= 12
    assert not found.skipped
    assert max(row.difference for row in found.compared) < 1e-4


def test_the_labels_are_no_place_for_the_result(label, corpus):
    labels = label(corpus / "0.wav")
    for output in (labels, f"{labels}/verification"):
        with pytest.raises(OutputError, match="lies in a folder of labels; choose another one"):
            verify(labels, output=output)


def test_progress_is_said(label, corpus, caplog):
    labels = label(corpus)
    with logged([caplog.handler]):
        verify(labels)
    assert "7 of 12 rows compared" in caplog.messages


def test_a_run_without_a_report(label, corpus):
    found = verify(label(corpus, rows="segment", report=False))
    assert len(found.compared) > 12


def test_means_of_speech_cannot_be_compared(label, corpus):
    with pytest.raises(CorpusError, match="label with --rows segment"):
        verify(label(corpus, segments="speech"))


def test_shards_tables_and_stretches(label, corpus, tmp_path):
    files = sorted(corpus.iterdir())
    with tarfile.open(tmp_path / "calls.tar", "w") as shard:
        for file in files[:4]:
            shard.add(file, f"monday/{file.name}")
    audio = [{"bytes": file.read_bytes(), "path": file.name} for file in files[4:8]]
    pd.DataFrame({"audio": audio}).to_parquet(tmp_path / "calls.parquet")
    stretches = pd.DataFrame(
        {"path": [str(corpus / "11.mp3")] * 3, "offset": [1.5, 4.25, 5], "duration": [2, 7, None]}
    )
    manifest = write_manifest(stretches, tmp_path / "calls.csv")
    inputs = [tmp_path / "calls.tar", tmp_path / "calls.parquet", manifest]
    found = verify(label(*inputs, allow_outside=True))
    assert len(found.compared) == 11
    assert max(row.difference for row in found.compared) < 1e-4
    assert sorted(row.start for row in found.compared if row.start is not None) == [1.5, 4.25, 5]


def test_files_that_have_changed_or_gone(label, corpus, tmp_path):
    folder = shutil.copytree(corpus, tmp_path / "copy")
    labels = label(folder)
    write_audio(folder / "0.wav", speech_like(2.0, seed=99))
    (folder / "1.flac").unlink()
    found = verify(labels)
    assert len(found.compared) == 10
    assert {(row.path.rsplit("/", 1)[1], row.reason) for row in found.skipped} == {
        ("0.wav", "the file has changed since it was labelled"),
        ("1.flac", "cannot be read now"),
    }
    shutil.rmtree(folder)
    with pytest.raises(RunError, match="none of the 12 rows drawn can be compared"):
        verify(labels)


def test_what_librosa_cannot_read(label, corpus, monkeypatch):
    import librosa

    def load(path, **how):
        if path.suffix == ".flac":
            raise RuntimeError("unknown format")
        return original(path, **how)

    original = librosa.load
    monkeypatch.setattr(librosa, "load", load)
    found = verify(label(corpus))
    assert {row.reason for row in found.skipped} == {"librosa cannot read it"}
    assert {row.path[-5:] for row in found.skipped} == {".flac"}


def test_a_long_recording_is_read_only_as_far_as_it_is_used(label, tmp_path, monkeypatch):
    monkeypatch.setattr("ser_core.verification.rows._MOST_SECONDS", 20.0)
    write_audio(tmp_path / "in" / "long.wav", speech_like(40.0, seed=1))
    assert len(verify(label(tmp_path / "in")).compared) == 1
    with pytest.raises(RunError, match="would hold more than"):
        verify(label(tmp_path / "in", segments="all"), seed=1)


def test_librosa_is_required(label, corpus, monkeypatch):
    labels = label(corpus)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name != "librosa" or None)
    with pytest.raises(UsageError, match=r"librosa is required .* 'ser-batch\[verify\]'"):
        verify(labels)


def test_a_temperature(label, corpus, changed_checkpoint):
    calibrated = changed_checkpoint(temperature=2.5)
    found = verify(label(corpus, model=str(calibrated)))
    assert max(row.difference for row in found.compared) < 1e-4


def test_nothing_is_labelled(tmp_path):
    with pytest.raises(CorpusError, match="it has no Parquet files"):
        verify(str(tmp_path))


DOCUMENT = Path(__file__).parents[2] / "docs" / "verification.md"
COMMANDS = re.findall(r"^ser-batch verify (.*)$", DOCUMENT.read_text(), re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_documented_commands(label, corpus, small_checkpoint, tmp_path, monkeypatch, command):
    """As printed; what stands for the reader's own data is what this test has."""
    (tmp_path / "runs" / "casia").mkdir(parents=True)
    (tmp_path / "runs" / "casia" / "best").symlink_to(small_checkpoint)
    labels = label(*sorted(corpus.glob("*.wav")))
    monkeypatch.chdir(tmp_path)
    arguments = command.replace("s3://bucket/labels", labels).split()
    assert run(VerifyConfig, JOBS["verify"], arguments) == 0
    assert (tmp_path / "verification" / "verification.json").is_file() == ("--output" in arguments)
