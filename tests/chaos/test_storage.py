"""Faults of an S3 server while a run lists, reads and writes."""

import threading
import time

import pytest
from faulty_proxy import Cut, Reply, Silent, Slow
from harness import Job, Output, run, until_done
from seaweed import environment

from tests.log_lines import error

STAGES = {
    "listing": {"method": "GET", "path": r"list-type=2.*corpus|corpus.*list-type=2"},
    "reading": {"method": "GET|HEAD", "path": r"corpus/\d+\.wav"},
    "writing": {"method": "PUT|POST", "path": r"labels/part-"},
}
KINDS = {
    "slow": Slow(20_000),
    "500": Reply(500, "InternalError"),
    "503": Reply(503, "SlowDown"),
    "403": Reply(403, "AccessDenied"),
    "cut": Cut(100),
    "silent": Silent(),
}
OUTAGE_SECONDS = 30.0
# Longer than any deadline of the job.
ENDLESS_SECONDS = 900.0


@pytest.fixture
def job(bucket, command, speech):
    """A command on a bucket behind the proxy, its output, and the URIs of its recordings."""
    files = {f"{n:03}.wav": speech[n % len(speech)].read_bytes() for n in range(60)}
    uris = bucket.upload("corpus", files)
    output = f"{bucket.uri}/labels"
    built = command(f"{bucket.uri}/corpus", output, bucket.environment, part_seconds=1)
    return built, Output(output), uris


def check_all_labelled(job):
    _, output, uris = job
    assert set(output.check(uris)["status"]) == {"ok"}


@pytest.mark.parametrize("stage", ["reading", pytest.param("writing", marks=pytest.mark.chaos)])
def test_a_busy_server(job, bucket, stage):
    with bucket.proxy.fault(Reply(503, "SlowDown"), times=6, **STAGES[stage]) as fault:
        until_done(job[0], rounds=1)
    assert fault.hits == 6 if stage == "reading" else fault.hits
    check_all_labelled(job)


@pytest.mark.chaos
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_an_outage_of_half_a_minute(job, bucket, kind, stage):
    """It begins with the run, or when the run first reaches that stage."""
    fault = bucket.proxy.add(KINDS[kind], **STAGES[stage])
    ended = threading.Event()

    def end() -> None:
        while not fault.hits and not ended.wait(0.1):
            pass
        ended.wait(OUTAGE_SECONDS)
        bucket.proxy.remove(fault)

    thread = threading.Thread(target=end)
    thread.start()
    first = run(job[0], ENDLESS_SECONDS)
    ended.set()
    thread.join()
    assert fault.hits, "the fault was never met"
    refused = {("403", "listing"): 2, ("403", "reading"): 1}  # what is refused is not waited for
    assert first.code == refused.get((kind, stage), 0), first.stderr
    assert "Traceback" not in first.stderr
    until_done(job[0], rounds=2)
    check_all_labelled(job)


@pytest.mark.chaos
@pytest.mark.parametrize("moment", ["at the first part", "while starting"])
def test_the_bucket_is_down_for_half_a_minute(job, bucket, moment):
    command, output, _ = job
    with Job(command) as running:
        if moment == "at the first part":
            running.until(output.parts, "the first part")
        else:
            running.until(lambda: "to label" in running.stderr(), "the plan")
        with bucket.proxy.down():
            time.sleep(OUTAGE_SECONDS)
        ended = running.wait(ENDLESS_SECONDS)
    assert ended.code == 0, ended.stderr
    check_all_labelled(job)


@pytest.mark.chaos
@pytest.mark.timeout(2000)
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("kind", ["silent", "503"])
def test_an_outage_without_end(job, bucket, kind, stage):
    """The run ends by itself, costs no label, and the same command goes on."""
    with bucket.proxy.fault(KINDS[kind], **STAGES[stage]):
        ended = run(job[0], ENDLESS_SECONDS)
    assert ended.code == 1, ended.stderr
    assert ended.last_line.startswith("error: ")
    assert "Traceback" not in ended.stderr
    until_done(job[0], rounds=2)
    check_all_labelled(job)


@pytest.mark.chaos
def test_an_object_that_never_answers_holds_neither_the_others_nor_the_parts(job, bucket):
    command, output, uris = job
    with (
        bucket.proxy.fault(Silent(), method="GET", path=r"corpus/007\.wav") as fault,
        Job(command.with_flags(part_seconds=2)) as running,
    ):
        running.until(output.parts, "the first part")
        running.until(lambda: len(output.rows()) >= 50, "nearly all rows", seconds=25)
        ended = running.wait(ENDLESS_SECONDS)
    assert fault.hits
    assert ended.code == 0, ended.stderr
    statuses = output.check(uris)["status"]
    assert statuses["007.wav"] == "unavailable"
    assert set(statuses.drop("007.wav")) == {"ok"}
    until_done(command, rounds=1)
    check_all_labelled(job)


@pytest.mark.chaos
@pytest.mark.timeout(1500)
def test_credentials_that_expire(job, bucket):
    command, output, uris = job
    with Job(command.with_flags(batch_size=1, part_seconds=0.2)) as running:
        running.until(output.parts, "the first part")
        with bucket.proxy.fault(Reply(400, "ExpiredToken")):
            ended = running.wait(ENDLESS_SECONDS)
    kept = output.rows()
    assert len(kept)
    assert ended.code == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    wrong = environment(bucket.proxy.url, secret="another")
    refused = run(command.__class__(command.flags, command.environment | wrong))
    assert refused.code == 2, refused.stderr
    assert error(refused.stderr)
    assert "another" not in refused.stderr
    assert set(kept["uri"]) <= set(output.rows()["uri"])
    until_done(command, rounds=2)
    assert set(output.check(uris)["status"]) == {"ok"}


@pytest.mark.chaos
def test_labels_stay_when_the_corpus_cannot_be_reached(job, bucket):
    command, output, uris = job
    until_done(command, rounds=1)
    before = output.check(uris)
    with bucket.proxy.fault(Reply(403, "AccessDenied"), path=r"corpus"):
        assert run(command, ENDLESS_SECONDS).code == 2
    after = output.check(uris)
    assert list(before["labeled_at"]) == list(after.loc[before.index, "labeled_at"])
