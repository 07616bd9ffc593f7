"""No label is lost to unmounted storage, another manifest, a wrong clock or a broken model."""

import os
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from harness import Output, unchanged
from safetensors.numpy import load_file, save_file

from jobs.ser_batch import run_job
from tests import log_lines


@pytest.fixture(scope="module", autouse=True)
def ray_session():
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def label(small_checkpoint, tmp_path, capsys):
    """Runs the command in this process: its exit code and its stderr."""

    def run(*inputs, output=tmp_path / "labels", model=small_checkpoint, **flags):
        flags = {"output": output, "model": model, "precision": "fp32"} | flags
        argv = ["--input", *map(str, inputs)]
        for name, value in flags.items():
            argv += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
        capsys.readouterr()
        code = run_job("label", argv, prog="python -m jobs.label")
        return code, capsys.readouterr().err

    run.output = Output(tmp_path / "labels")
    return run


def write_manifest(path, names):
    pd.DataFrame({"path": names}).to_csv(path, index=False)
    return path


@pytest.fixture
def mounted(tmp_path, make_corpus):
    """A manifest, and the folder with its recordings."""
    paths = make_corpus(tmp_path / "mounted", 8)
    manifest = write_manifest(tmp_path / "all.csv", [f"mounted/{path.name}" for path in paths])
    return manifest, paths


@pytest.mark.parametrize("flags", [{}, {"max_failed_fraction": 0.1}], ids=["", "max-failed"])
def test_an_unmounted_folder_costs_no_label(label, mounted, tmp_path, flags):
    manifest, paths = mounted
    code, message = label(manifest, **flags)
    assert code == 0, message
    before = label.output.check(paths)
    (tmp_path / "mounted").rename(tmp_path / "elsewhere")
    (tmp_path / "mounted").mkdir()  # the empty mount point
    code, message = label(manifest, **flags)
    assert code == 1, message
    assert "reached" in message
    after = label.output.rows().set_index(before.index.name or "uri", drop=False)
    unchanged(before.set_index("uri", drop=False), after, before["uri"])
    (tmp_path / "mounted").rmdir()
    (tmp_path / "elsewhere").rename(tmp_path / "mounted")
    code, message = label(manifest, **flags)
    assert code == 0, message
    unchanged(before, label.output.check(paths), before.index)


def test_a_folder_that_is_unmounted_in_part_costs_no_label(label, mounted):
    manifest, paths = mounted
    code, message = label(manifest)
    assert code == 0, message
    before = label.output.check(paths)
    for path in paths[:3]:
        path.rename(path.with_suffix(".away"))
    code, message = label(manifest)
    assert code == 0, message
    assert "unreachable" in message or "reached" in message
    unchanged(before, label.output.check(paths), before.index)


def test_recordings_that_were_never_reached_are_tried_again(label, mounted):
    manifest, paths = mounted
    paths[0].rename(paths[0].with_suffix(".away"))
    code, message = label(manifest)
    assert code == 0, message
    assert label.output.check(paths)["status"].value_counts().to_dict() == {"ok": 7, "not_found": 1}
    paths[0].with_suffix(".away").rename(paths[0])
    code, message = label(manifest)
    assert code == 0, message
    assert set(label.output.check(paths)["status"]) == {"ok"}


def test_an_input_folder_that_is_unmounted_costs_no_label(label, tmp_path, make_corpus):
    paths = make_corpus(tmp_path / "corpus", 4)
    code, message = label(tmp_path / "corpus")
    assert code == 0, message
    before = label.output.check(paths)
    (tmp_path / "corpus").rename(tmp_path / "elsewhere")
    (tmp_path / "corpus").mkdir()
    code, message = label(tmp_path / "corpus")
    assert code in (1, 2), message
    assert log_lines.error(message).startswith("error: --input")
    unchanged(before, label.output.check(paths), before.index)


def test_two_manifests_with_the_same_names_share_an_output(label, tmp_path, make_corpus):
    paths, manifests = [], []
    for folder in ("monday", "tuesday"):
        paths += make_corpus(tmp_path / folder, 1)
        manifests.append(write_manifest(tmp_path / folder / "all.csv", [paths[-1].name]))
    assert paths[0].name == paths[1].name
    for manifest in [*manifests, *manifests]:
        code, message = label(manifest)
        assert code == 0, message
    rows = label.output.rows()
    assert sorted(rows["uri"]) == sorted(map(str, paths))
    assert set(rows["status"]) == {"ok"}


def test_rows_of_what_is_no_longer_listed_stay_until_they_are_pruned(label, tmp_path, make_corpus):
    paths = make_corpus(tmp_path / "corpus", 4)
    code, message = label(tmp_path / "corpus")
    assert code == 0, message
    paths[0].unlink()
    code, message = label(tmp_path / "corpus")
    assert code == 0, message
    assert sorted(label.output.rows()["uri"]) == sorted(map(str, paths))
    assert "no longer" in message
    assert "--prune" in message
    code, message = label(tmp_path / "corpus", prune=True)
    assert code == 0, message
    label.output.check(paths[1:])


def test_a_clock_that_was_ahead_does_not_keep_an_old_label(label, tmp_path, make_corpus):
    paths = make_corpus(tmp_path / "corpus", 4)
    code, message = label(tmp_path / "corpus")
    assert code == 0, message
    (part,) = (tmp_path / "labels").glob("part-*.parquet")
    rows = pq.read_table(part)
    ahead = [each + pd.Timedelta(days=1) for each in rows["labeled_at"].to_pandas()]
    at = rows.schema.get_field_index("labeled_at")
    pq.write_table(rows.set_column(at, rows.field(at), pa.array(ahead, rows.field(at).type)), part)
    before = label.output.check(paths)
    paths[0].write_bytes(paths[3].read_bytes())
    os.utime(paths[0], (1, 1))
    code, message = label(tmp_path / "corpus")
    assert code == 0, message
    after = label.output.check(paths)
    assert after.loc[paths[0].name, "score"] == pytest.approx(after.loc[paths[3].name, "score"])
    assert after.loc[paths[0].name, "file_id"] != before.loc[paths[0].name, "file_id"]
    unchanged(before, after, [path.name for path in paths[1:]])
    code, message = label(tmp_path / "corpus")
    assert code == 0
    assert "nothing to do" in message


@pytest.mark.parametrize("value", [np.nan, 3e38], ids=["NaN", "overflow"])
def test_a_model_whose_scores_are_not_finite(label, tmp_path, small_checkpoint, make_corpus, value):
    make_corpus(tmp_path / "corpus", 20)
    broken = tmp_path / "broken"
    shutil.copytree(small_checkpoint, broken)
    weights = load_file(broken / "model.safetensors")
    name = "classifier.out_proj.weight"
    random = np.random.default_rng(0).choice([-1, 1], weights[name].shape)
    weights[name] = (random * value).astype(np.float32)
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    code, message = label(tmp_path / "corpus", model=broken)
    assert code == 2, message  # running it again would change nothing
    assert "not finite" in message
    assert "checkpoint" in message or "--precision" in message
    assert not len(label.output.rows())


def test_more_failures_than_allowed_lose_nothing(label, tmp_path, make_corpus):
    paths = make_corpus(tmp_path / "corpus", 4)
    code, message = label(tmp_path / "corpus")
    assert code == 0, message
    before = label.output.check(paths)
    paths[0].write_bytes(b"no audio")
    for _ in range(2):
        code, message = label(tmp_path / "corpus", max_failed_fraction=0.1)
        assert code == 3, message
        assert "--max-failed-fraction" in message
        assert set(before["labeled_at"]) <= set(label.output.rows()["labeled_at"])
    code, message = label(tmp_path / "corpus")
    assert code == 0, message
    rows = label.output.check(paths)
    assert rows["status"].value_counts().to_dict() == {"ok": 3, "decode_error": 1}
    unchanged(before, rows, [path.name for path in paths[1:]])
