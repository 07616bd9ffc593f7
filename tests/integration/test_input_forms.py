"""The command of every form in docs/input.md gives the rows of the same files, and resumes."""

import json
from pathlib import Path

import form_inputs
import numpy as np
import pandas as pd
import pytest
import ray
from recordings import speech_like, write_audio

from jobs.command import parse
from ser_core.labeling.config import LabelConfig
from ser_core.labeling.job import label_corpus

SECONDS = {"a.wav": 1.5, "b.flac": 2.5, "c.mp3": 7.0, "d.ogg": 3.0, "e.wav": 1.0}


@pytest.fixture(scope="module", autouse=True)
def ray_session():
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("plain") / "corpus"
    for seed, (name, seconds) in enumerate(SECONDS.items()):
        write_audio(folder / name, speech_like(seconds, seed=seed))
    (folder / "bad.wav").write_bytes(b"not audio")
    return folder


@pytest.fixture(scope="module")
def label(small_checkpoint):
    def run(output, *arguments):
        flags = ["--output", str(output), "--model", str(small_checkpoint), "--precision", "fp32"]
        return label_corpus(parse(LabelConfig, [*map(str, arguments), *flags]))

    return run


@pytest.fixture(scope="module")
def expected(label, corpus, tmp_path_factory) -> pd.DataFrame:
    output = tmp_path_factory.mktemp("expected") / "labels"
    label(output, "--input", corpus)
    return in_order(pd.read_parquet(output))


def in_order(rows):
    """In an order that does not depend on names, which differ from form to form."""
    return rows.sort_values(["status", "duration"], ignore_index=True)


def check_form(make, arguments, label, corpus, expected, root):
    """Labels two recordings, then the others, then nothing."""
    make(root, sorted(corpus.iterdir()))
    assert label("labels", *arguments, "--limit", "1").to_do == 1
    first = pd.read_parquet("labels")
    count = 2 if make is form_inputs.recordings else len(expected)
    plan = label("labels", *arguments)
    assert (plan.listed, plan.done, plan.to_do) == (count, 1, count - 1)
    rows = in_order(pd.read_parquet("labels"))
    assert first["file_id"].isin(rows["file_id"]).all()
    assert rows["uri"].is_unique
    if count < len(expected):
        expected = expected[expected["path"].str.endswith(("/a.wav", "/b.flac"))].reset_index()
    assert list(rows["status"]) == list(expected["status"])
    scores = [column for column in rows if column.startswith("score")]
    np.testing.assert_allclose(rows[scores], expected[scores], atol=1e-6)
    assert label("labels", *arguments).to_do == 0


def test_every_form_of_the_table_is_tried():
    for row in form_inputs.documented_forms():
        assert sum(row.startswith(f"| {form}") for form in form_inputs.FORMS) == 1, row


@pytest.mark.slow
@pytest.mark.parametrize("form", form_inputs.FORMS)
def test_a_command_of_the_table_has_the_rows_of_the_plain_files(
    form, label, corpus, expected, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    make = form_inputs.FORMS[form]
    check_form(make, form_inputs.arguments(form), label, corpus, expected, tmp_path)


@pytest.mark.slow
def test_compressed_shards_have_the_rows_of_the_plain_files(
    label, corpus, expected, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    arguments = ["--input", "shard-*.tar.gz"]
    check_form(form_inputs.compressed_shards, arguments, label, corpus, expected, tmp_path)


@pytest.mark.slow
def test_stretches_have_the_rows_of_segments(label, corpus, tmp_path):
    """The stretches of a manifest are the segments that the whole recording is cut into."""
    label(tmp_path / "segments", "--input", corpus / "c.mp3", "--rows", "segment")
    segments = pd.read_parquet(tmp_path / "segments")
    assert list(segments["end"]) == [6.0, pytest.approx(7.0, abs=0.1)]
    lines = [
        {
            "audio_filepath": str(corpus / "c.mp3"),
            "offset": row.start,
            "duration": row.end - row.start,
        }
        for row in segments.itertuples()
    ]
    lines += [{"audio_filepath": str(corpus / "c.mp3"), "offset": 60.0, "duration": 1.0}]
    (tmp_path / "m.json").write_text("\n".join(map(json.dumps, lines)))
    label(tmp_path / "stretches", "--input", tmp_path / "m.json")
    rows = pd.read_parquet(tmp_path / "stretches").sort_values("start")
    assert list(rows["status"]) == ["ok", "ok", "empty"]
    scores = [column for column in rows if column.startswith("score")]
    np.testing.assert_allclose(rows[scores][:2], segments[scores], atol=1e-6)
    np.testing.assert_allclose(rows["end"][:2], segments["end"])
    assert rows["uri"].is_unique
