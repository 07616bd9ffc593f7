"""Every form of docs/input.md gives the rows of the same recordings as plain files, and resumes."""

import csv
import gzip
import io
import json
import shutil
import tarfile
from pathlib import Path

import datasets
import lhotse
import numpy as np
import pandas as pd
import pytest
import ray
import webdataset
from recordings import speech_like, write_audio

from ser_core.labeling.config import LabelConfig
from ser_core.labeling.job import label_corpus

SECONDS = {"a.wav": 1.5, "b.flac": 2.5, "c.mp3": 7.0, "d.ogg": 3.0, "e.wav": 1.0}
NAMES = [*SECONDS, "bad.wav"]


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
    def run(output, *inputs, **settings):
        config = LabelConfig(
            input=tuple(map(str, inputs)), output=str(output), precision="fp32",
            model=str(small_checkpoint), **settings,
        )  # fmt: skip
        return label_corpus(config)

    return run


@pytest.fixture(scope="module")
def expected(label, corpus, tmp_path_factory) -> pd.DataFrame:
    output = tmp_path_factory.mktemp("expected") / "labels"
    label(output, corpus)
    return by_name(pd.read_parquet(output))


def by_name(rows, name=None):
    name = rows["path"].str.split("/").str[-1].str.split("::").str[-1] if name is None else name
    return rows.assign(name=name).set_index("name").sort_index()


# ---- forms: each makes its input in a folder, and says what follows `--input` --------------------


def pattern(folder, corpus):
    shutil.copytree(corpus, folder / "2026-11-01" / "x")
    return [f"{folder}/2026-11-*/**/*.*"]


def path_list(folder, corpus):
    shutil.copytree(corpus, folder / "files")
    (folder / "calls.txt").write_text("".join(f"files/{name}\r\n" for name in NAMES))
    return [folder / "calls.txt"]


def semicolons(folder, corpus):
    with gzip.open(folder / "m.csv.gz", "wt", newline="") as file:
        rows = csv.writer(file, delimiter=";")
        rows.writerows([["speaker", "wav"], *(["007", corpus / name] for name in NAMES)])
    return [folder / "m.csv.gz"]


def nemo(folder, corpus):
    lines = [{"audio_filepath": str(corpus / name), "duration": 1.0} for name in NAMES]
    (folder / "manifest.json").write_text("\n".join(map(json.dumps, lines)))
    return [folder / "manifest.json"]


def lhotse_recordings(folder, corpus):
    good = [lhotse.Recording.from_file(corpus / name) for name in SECONDS]
    bad = lhotse.utils.fastcopy(good[0], id="bad")
    bad.sources[0].source = str(corpus / "bad.wav")
    bad = lhotse.Recording.from_dict(bad.to_dict())
    good[0] = lhotse.Recording.from_file(corpus / "a.wav")
    lhotse.RecordingSet.from_recordings([*good, bad]).to_file(folder / "recordings.jsonl.gz")
    return [folder / "recordings.jsonl.gz"]


def kaldi(folder, corpus):
    lines = sorted(f"{name.replace('.', '-')} {corpus / name}\n" for name in NAMES)
    (folder / "wav.scp").write_text("".join(lines))
    return [folder]


def shards(folder, corpus, suffix="tar"):
    for number, names in enumerate([NAMES[:4], NAMES[4:]]):
        with webdataset.TarWriter(f"{folder}/calls-{number}.{suffix}") as shard:
            for name in names:
                key, extension = name.split(".")
                content = (corpus / name).read_bytes()
                shard.write({"__key__": key, extension: content, "json": {"speaker": "007"}})
    return [f"{folder}/calls-{{0..1}}.{suffix}"]


def compressed_shards(folder, corpus):
    return shards(folder, corpus, "tar.gz")


def parquet(folder, corpus):
    audio = [{"bytes": (corpus / name).read_bytes(), "path": name} for name in NAMES]
    features = datasets.Features({"audio": datasets.Audio(decode=False)})
    table = datasets.Dataset.from_dict({"audio": audio}).cast(features)
    table.to_parquet(folder / "train.parquet")
    return [f"{folder}/*.parquet"]


def nemo_tar(folder, corpus):
    for shard, names in enumerate([NAMES[:2], NAMES[2:]]):
        with tarfile.open(folder / f"audio_{shard}.tar", "w") as tar:
            for name in names:
                content = (corpus / name).read_bytes()
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    rows = [{"audio_filepath": n, "shard_id": int(i >= 2)} for i, n in enumerate(NAMES)]
    (folder / "tarred_audio_manifest.json").write_text("\n".join(map(json.dumps, rows)))
    return [folder / "tarred_audio_manifest.json"]


FORMS = [
    pattern, path_list, semicolons, nemo, lhotse_recordings, kaldi,
    shards, compressed_shards, parquet, nemo_tar,
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_a_form_has_the_rows_of_the_plain_files(form, label, corpus, expected, tmp_path):
    (tmp_path / "input").mkdir()
    inputs, output = form(tmp_path / "input", corpus), tmp_path / "labels"
    assert label(output, *inputs, limit=2).to_do == 2
    first = pd.read_parquet(output)
    plan = label(output, *inputs)
    assert (plan.listed, plan.done, plan.to_do) == (6, 2, 4)
    rows = by_name(pd.read_parquet(output))
    assert list(rows.index) == sorted(NAMES)
    assert first["file_id"].isin(rows["file_id"]).all()
    assert rows["status"].astype(str).to_dict() == expected["status"].astype(str).to_dict()
    scores = [column for column in rows if column.startswith("score")]
    np.testing.assert_allclose(rows[scores], expected[scores], atol=1e-6)
    assert label(output, *inputs).to_do == 0


@pytest.mark.slow
def test_stretches_have_the_rows_of_segments(label, corpus, tmp_path):
    """The stretches of a manifest are the segments that the whole recording is cut into."""
    label(tmp_path / "segments", corpus / "c.mp3", rows="segment")
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
    label(tmp_path / "stretches", tmp_path / "m.json")
    rows = pd.read_parquet(tmp_path / "stretches").sort_values("start")
    assert list(rows["status"]) == ["ok", "ok", "empty"]
    scores = [column for column in rows if column.startswith("score")]
    np.testing.assert_allclose(rows[scores][:2], segments[scores], atol=1e-6)
    np.testing.assert_allclose(rows["end"][:2], segments["end"])
    assert rows["uri"].is_unique
