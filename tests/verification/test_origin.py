"""The checkpoint is that of the newest rows, and run reports say how recordings were cut."""

import json
import shutil
from pathlib import Path

import pytest

from ser_core.errors import CheckError
from ser_core.labeling.current_rows import open_labels
from ser_core.verification import origin
from ser_core.verification.origin import Cutting, find_origin
from ser_core.verification.sample import origins


def test_how_recordings_were_cut(label, corpus):
    labels = label(corpus / "0.wav", rows="segment", hop=4.5)
    for name, content in {"a": "[]", "b": "{", "c": '{"config": 3}', "claim": "{}"}.items():
        (Path(labels) / "__runs" / f"{name}.json").write_text(content)
    found = find_origin(open_labels(labels), None, None)
    (digest,) = origins(open_labels(labels))["model_digest"]
    assert found.cuttings[digest] == Cutting("all", "segment", 4.5, "mix")
    assert (found.rows, found.rows_of_others, found.rows_without_stretches) == (1, 0, 0)


def test_settings_that_no_report_states(label, corpus):
    labels = label(corpus / "0.wav", rows="segment", hop=4.5, report=False)
    with pytest.raises(CheckError, match="another checkpoint made the 1 current label in"):
        find_origin(open_labels(labels), None, None)


def test_labels_of_several_checkpoints(label, corpus, changed_checkpoint, tmp_path):
    label(corpus / "0.wav", corpus / "1.flac")
    labels = label(corpus / "2.ogg", model=str(changed_checkpoint(temperature=2.0)))
    newest = find_origin(open_labels(labels), None, None)
    assert newest.model == f"{tmp_path}/changed"
    assert (newest.rows, newest.rows_of_others) == (1, 2)


def test_superseded_rows_do_not_count(label, corpus, small_checkpoint, changed_checkpoint):
    """As a run of another checkpoint leaves them that did not complete."""
    label(corpus / "0.wav", corpus / "1.flac", corpus / "2.ogg")
    labels = label(
        corpus / "0.wav", corpus / "1.flac", model=str(changed_checkpoint(temperature=2.0))
    )
    newest = find_origin(open_labels(labels), None, None)
    assert (newest.rows, newest.rows_of_others) == (2, 1)
    before = find_origin(open_labels(labels), str(small_checkpoint), None)
    assert (before.rows, before.rows_of_others) == (1, 2)


def test_the_revision_of_the_newest_run(label, corpus, small_checkpoint, monkeypatch):
    labels = label(corpus / "0.wav")
    report = json.loads((Path(labels) / "__runs" / "run.json").read_text())
    for name, revision in {"run1": "old", "run2": "new"}.items():
        text = json.dumps(report | {"revision": revision})
        (Path(labels) / "__runs" / f"{name}.json").write_text(text)
    asked = []
    load = origin.load_checkpoint
    monkeypatch.setattr(
        origin, "load_checkpoint", lambda name, revision: asked.append(revision) or load(name)
    )
    find_origin(open_labels(labels), None, None)
    find_origin(open_labels(labels), None, "mine")
    find_origin(open_labels(labels), str(small_checkpoint), None)
    assert asked == ["new", "mine", None]


def test_a_run_that_wrote_no_row_does_not_name_the_revision(label, corpus, monkeypatch):
    """The repository has a new commit, and tonight's run ended before its first row."""
    labels = label(corpus / "0.wav")
    runs = Path(labels) / "__runs"
    report = json.loads((runs / "run.json").read_text())
    for name, digest in {"run1": report["model_digest"], "run2": "another"}.items():
        changes = {"revision": name, "model_digest": digest}
        (runs / f"{name}.json").write_text(json.dumps(report | changes))
    asked = []
    load = origin.load_checkpoint
    monkeypatch.setattr(
        origin, "load_checkpoint", lambda name, revision: asked.append(revision) or load(name)
    )
    find_origin(open_labels(labels), None, None)
    assert asked == ["run1"]


def test_a_checkpoint_that_moved(label, corpus, small_checkpoint, tmp_path):
    labels = label(corpus / "0.wav")
    moved = shutil.copytree(small_checkpoint, tmp_path / "moved")
    assert find_origin(open_labels(labels), str(moved), None).rows == 1
