"""Two runs at once, corpora that change under a run, stuck recordings, and what a run leaves."""

import time

import pytest
from bad_recordings import BREAKING, slow
from harness import SABOTAGE, Job, Output, run, until_done
from recordings import speech_like, write_audio
from sabotage.breaking_rates import SLOW


@pytest.mark.chaos
def test_a_second_run_is_refused(command, make_corpus, tmp_path):
    paths = make_corpus(tmp_path / "corpus", 10)
    for number in range(17):  # 20 s each, 8 at once: the first run lasts longer than it takes
        path = tmp_path / "corpus" / f"slow-{number}.wav"  # to see whether it is alive
        paths.append(write_audio(path, speech_like(0.5), SLOW))
    environment = {"PYTHONPATH": str(SABOTAGE)}
    job = command(tmp_path / "corpus", tmp_path / "labels", environment)
    claim = tmp_path / "labels" / "__runs" / "claim.json"
    with Job(job) as first:
        first.until(claim.exists, "its claim")
        second = run(job)
        assert first.wait().code == 0
    assert second.code == 2, second.stderr
    assert second.last_line.startswith("error: --output")
    assert "Traceback" not in second.stderr
    assert set(Output(tmp_path / "labels").check(paths)["status"]) == {"ok"}


@pytest.mark.chaos
@pytest.mark.parametrize("delay", [0.0, 0.05, 0.5])
def test_two_runs_that_start_together(command, make_corpus, tmp_path, delay):
    paths = make_corpus(tmp_path / "corpus", 100)
    job = command(tmp_path / "corpus", tmp_path / "labels")
    with Job(job) as first:
        time.sleep(delay)
        with Job(job) as second:
            ended = [first.wait(), second.wait()]
    assert 0 in [each.code for each in ended], [each.stderr for each in ended]
    assert all("Traceback" not in each.stderr for each in ended)
    report = Output(tmp_path / "labels").reports()[0]
    assert report["recordings"] == len(paths), "labelled by both"
    until_done(job, rounds=1)
    assert set(Output(tmp_path / "labels").check(paths)["status"]) == {"ok"}


@pytest.mark.chaos
def test_files_that_change_vanish_and_appear_while_the_run_works(command, make_corpus, tmp_path):
    paths = make_corpus(tmp_path / "corpus", 300)
    job = command(tmp_path / "corpus", tmp_path / "labels", batch_size=1, part_seconds=0.3)
    output = Output(tmp_path / "labels")
    with Job(job) as running:
        running.until(output.parts, "the first part")
        for number in range(0, 300, 20):
            paths[number].unlink()
            paths[number + 1].write_bytes(paths[number + 2].read_bytes())
        new = make_corpus(tmp_path / "corpus" / "new", 10)
        ended = running.wait()
    assert ended.code == 0, ended.stderr
    until_done(job.with_flags(prune=True), rounds=2)
    rows = output.check([path for path in [*paths, *new] if path.exists()])
    assert set(rows["status"]) == {"ok"}
    for number in range(0, 300, 20):
        changed, source = (rows.loc[paths[number + n].name] for n in (1, 2))
        columns = list(rows.filter(like="score"))
        assert list(changed[columns]) == pytest.approx(list(source[columns]), abs=1e-5)


@pytest.mark.chaos
def test_a_stuck_recording_holds_neither_the_others_nor_the_parts(command, make_corpus, tmp_path):
    paths = make_corpus(tmp_path / "corpus", 60)
    (hanging,) = [case for case in BREAKING if case.name == "hangs.wav"]
    stuck = tmp_path / "corpus" / "0000-hangs.wav"
    stuck.write_bytes(hanging.make())
    flags = {"part_seconds": 2, "decode_timeout": 45}
    environment = {"PYTHONPATH": str(SABOTAGE)}
    job = command(tmp_path / "corpus", tmp_path / "labels", environment, **flags)
    output = Output(tmp_path / "labels")
    with Job(job) as running:
        running.until(output.parts, "the first part")
        running.until(lambda: len(output.rows()) >= 50, "nearly all rows", seconds=25)
        assert running.wait().code == 0
    statuses = output.check([*paths, stuck])["status"]
    assert statuses[stuck.name] == "timeout"
    assert set(statuses.drop(stuck.name)) == {"ok"}


@pytest.mark.chaos
def test_slow_decoders_are_not_taken_for_stuck_ones(command, make_corpus, tmp_path):
    paths = make_corpus(tmp_path / "corpus", 8)
    paths[0].write_bytes(slow())
    environment = {"PYTHONPATH": str(SABOTAGE)}
    until_done(command(tmp_path / "corpus", tmp_path / "labels", environment), rounds=1)
    assert set(Output(tmp_path / "labels").check(paths)["status"]) == {"ok"}


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_no_run_leaves_a_process(command, make_corpus, tmp_path):
    """One in fifteen left a classifier behind; `Job.wait` finds it."""
    paths = make_corpus(tmp_path / "corpus", 20)
    for number in range(30):
        output = tmp_path / f"labels-{number}"
        assert run(command(tmp_path / "corpus", output)).code == 0
        Output(output).check(paths)
