"""Classifiers and decoders that abort or are killed, and GPUs that cannot be used."""

import os

import pytest
from harness import SABOTAGE, Job, Output, run, until_done
from ray.cluster_utils import Cluster


@pytest.fixture
def broken(command, make_corpus, faults, tmp_path):
    """A command whose classifiers abort as the files in its folder say, and its recordings."""
    paths = make_corpus(tmp_path / "corpus", 60)
    environment = {"PYTHONPATH": str(SABOTAGE), "CHAOS_FAULTS": str(faults)}
    return command(tmp_path / "corpus", tmp_path / "labels", environment, part_seconds=2), paths


@pytest.mark.parametrize("fault", ["batch-1", pytest.param("loading-1", marks=pytest.mark.chaos)])
def test_one_that_aborts_once_costs_no_row(broken, faults, tmp_path, fault):
    job, paths = broken
    (faults / fault).touch()
    assert run(job).code == 0
    assert not list(faults.iterdir()), "it did not abort"
    assert set(Output(tmp_path / "labels").check(paths)["status"]) == {"ok"}


@pytest.mark.chaos
def test_one_that_aborts_once_costs_no_row_of_a_small_corpus(broken, faults, tmp_path):
    job, paths = broken
    for path in paths[4:]:
        path.unlink()  # so few that each is a block of its own from the start
    (faults / "batch-1").touch()
    assert run(job).code == 0
    assert set(Output(tmp_path / "labels").check(paths[:4])["status"]) == {"ok"}


@pytest.mark.chaos
def test_one_that_never_loads_leaves_its_rows_to_the_other(broken, faults, tmp_path):
    job, paths = broken
    (faults / "always-one").touch()
    assert run(job).code == 0
    assert (faults / "always-one").read_text(), "none was chosen"
    assert set(Output(tmp_path / "labels").check(paths)["status"]) == {"ok"}


@pytest.mark.chaos
@pytest.mark.parametrize("fault", ["batch", "loading"])
def test_if_none_can_run_the_run_ends_with_the_reason(broken, faults, tmp_path, fault):
    job, paths = broken
    (faults / fault).touch()
    ended = run(job)
    assert ended.code == 1, ended.stderr
    assert ended.last_line.startswith("error: ")
    assert "classifier" in ended.last_line
    assert "crashed" not in set(Output(tmp_path / "labels").rows()["status"])
    (faults / fault).unlink()
    until_done(job, rounds=1)
    assert set(Output(tmp_path / "labels").check(paths)["status"]) == {"ok"}


@pytest.mark.chaos
def test_one_that_is_killed_costs_no_row(broken, tmp_path):
    job, paths = broken
    output = Output(tmp_path / "labels")
    with Job(job.with_flags(batch_size=1, part_seconds=0.2)) as running:
        running.until(output.parts, "the first part")
        running.family.classifiers()[0].kill()
        assert running.wait().code == 0
    assert set(output.check(paths)["status"]) == {"ok"}


@pytest.mark.chaos
def test_decoders_that_are_killed_cost_no_label(broken, make_corpus, tmp_path):
    job, _ = broken
    paths = make_corpus(tmp_path / "corpus", 600)
    output = Output(tmp_path / "labels")
    with Job(job.with_flags(part_seconds=0.2)) as running:
        for _ in range(5):
            decoders = running.until(running.family.decoders, "the first decoder")
            decoders[0].kill()
        assert running.wait().code == 0
    assert set(output.check(paths)["status"]) <= {"ok", "unavailable"}
    until_done(job, rounds=1)
    assert set(output.check(paths)["status"]) == {"ok"}


@pytest.mark.chaos
def test_a_fork_server_that_is_killed_costs_no_label(broken, make_corpus, tmp_path):
    job, _ = broken
    paths = make_corpus(tmp_path / "corpus", 600)
    with Job(job.with_flags(part_seconds=0.2)) as running:
        running.until(running.family.decoders, "the first decoder")
        decoders = {process.pid for process in running.family.decoders()}
        servers = [p for p in running.family.named("forkserver") if p.pid not in decoders]
        servers[0].kill()
        assert running.wait().code == 0
    until_done(job, rounds=1)
    assert set(Output(tmp_path / "labels").check(paths)["status"]) == {"ok"}


@pytest.mark.chaos
def test_promised_gpus_that_torch_cannot_use_end_the_run(command, make_corpus, tmp_path):
    make_corpus(tmp_path / "corpus", 4)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 1})
    try:
        environment = {"RAY_ADDRESS": cluster.address}
        ended = run(command(tmp_path / "corpus", tmp_path / "labels", environment))
    finally:
        cluster.shutdown()
    assert ended.code == 1, ended.stderr
    assert ended.last_line.startswith("error: ")
    assert "GPU" in ended.last_line
    assert "Traceback" not in ended.stderr
    assert "part-" not in "".join(os.listdir(tmp_path / "labels"))
