"""SIGKILL and Ctrl-C at any moment: the same command goes on and loses nothing."""

import random
import signal
import time

import pytest
from bad_recordings import HANG, silent_at
from harness import SABOTAGE, Command, Job, Output, until_done

RECORDINGS = 400
MOMENTS = 20
LATEST_SECONDS = 16.0  # a run takes about 20 on two idle cores


@pytest.fixture
def long_run(command, make_corpus, tmp_path):
    """A command that takes some seconds after its first part, and its recordings."""
    paths = make_corpus(tmp_path / "corpus", RECORDINGS)
    job = command(tmp_path / "corpus", tmp_path / "labels", part_seconds=0.3, batch_size=1)
    return job, paths


def labelled(output: Output) -> set[tuple[str, str]]:
    rows = output.rows()
    return set(zip(rows["uri"], rows["label"].astype(str), strict=True))


def kill_at(job: Command, output: Output, moment: float | None) -> set[tuple[str, str]]:
    """Kills a run at a moment, or after its first part; returns the labels that it left."""
    before, parts = labelled(output), set(output.parts())
    with Job(job) as running:
        if moment is None:
            running.until(lambda: set(output.parts()) - parts, "the next part")
        else:
            time.sleep(moment)
        running.kill()
        running.wait()
    after = labelled(output)
    assert before <= after, "a label was lost"
    return after


@pytest.mark.timeout(1200)
def test_killed_three_times(long_run, tmp_path):
    """A recording hangs for as long as runs are killed, so that none can be done before."""
    job, paths = long_run
    output = Output(tmp_path / "labels")
    hanging = Command(job.flags, {"PYTHONPATH": str(SABOTAGE)})
    paths[0].write_bytes(silent_at(HANG))
    for moment in (3.0, None, None):
        paths.append(paths[1].with_name(f"new-{len(paths)}.wav"))
        paths[-1].write_bytes(paths[1].read_bytes())  # so that there is a next part
        kept = kill_at(hanging, output, moment)
    assert 0 < len(kept) < len(paths)
    until_done(job, rounds=1)
    rows = output.check(paths)
    assert set(rows["status"]) == {"ok"}
    assert kept <= labelled(output)
    assert output.reports()[-1]["done_before"] == len(kept)


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_killed_at_random_moments(long_run, tmp_path):
    job, paths = long_run
    output, moments = Output(tmp_path / "labels"), random.Random(12)
    for _ in range(MOMENTS):
        if output.reports():  # that run was done before it could be killed
            output.check(paths)
            for name in output.names():
                (tmp_path / "labels" / name).unlink()
        kill_at(job, output, moments.uniform(0, LATEST_SECONDS))
    until_done(job, rounds=1)
    assert set(output.check(paths)["status"]) == {"ok"}


@pytest.mark.chaos
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", [0.5, 2.0, 4.0, 7.0, 10.0, None])
def test_stopped(long_run, tmp_path, moment, sent):
    """As by Ctrl-C or `ray job stop`: one line, also while Ray is starting."""
    job, paths = long_run
    output = Output(tmp_path / "labels")
    with Job(job) as running:
        if moment is None:
            running.until(output.parts, "the first part")
        else:
            time.sleep(moment)
        running.process.send_signal(sent)
        ended = running.wait(running.elapsed + 60)
    assert ended.code == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "run the same command again" in ended.last_line
    until_done(job, rounds=1)
    assert set(output.check(paths)["status"]) == {"ok"}


@pytest.mark.chaos
def test_ray_ends_after_its_driver_was_killed(long_run, tmp_path):
    job, _ = long_run
    with Job(job) as running:
        running.until(Output(tmp_path / "labels").parts, "the first part")
        running.kill()
        assert not running.family.left_after(120)
