"""Claims allow one run at a time: live claims are respected, dead ones are taken over."""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event, Semaphore

import pytest

from ser_core.errors import OutputError, RunError
from ser_core.storage import claim as claim_module
from ser_core.storage.claim import Claim
from ser_core.storage.folder import Folder

NAME = "__runs/claim.json"
FRESH, STALE = 0.05, 0.5  # s

HOLD = """
import sys, time
from ser_core.storage.claim import Claim
from ser_core.storage.folder import Folder
with Claim(Folder(sys.argv[1]), sys.argv[2], float(sys.argv[3]), 60.0):
    print("claimed", flush=True)
    time.sleep(600)
"""


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path):
    if request.param == "local":
        return Folder(str(tmp_path))
    return Folder(f"memory://claims-{tmp_path.name}")


def hold(folder, fresh_seconds=FRESH):
    """Starts a process that holds the claim until it is killed."""
    command = [sys.executable, "-c", HOLD, folder.uri, NAME, str(fresh_seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "claimed\n"
    return process


def test_a_claim_is_released_after_an_error(folder):
    with pytest.raises(ZeroDivisionError), Claim(folder, NAME):
        assert folder.names("__runs") == ["claim.json"]
        raise ZeroDivisionError
    assert folder.names("__runs") == []


def test_a_live_claim_is_respected(folder):
    with Claim(folder, NAME, FRESH, STALE) as first:
        second = Claim(folder, NAME, FRESH, stale_seconds=60)
        with pytest.raises(OutputError, match="another run is writing there"), second:
            pass
        first.check()
    assert folder.names("__runs") == []


def test_the_claim_of_a_run_killed_on_this_machine_is_taken_over_at_once(tmp_path):
    folder = Folder(str(tmp_path))
    process = hold(folder)
    process.kill()
    process.wait()
    started = time.monotonic()
    with Claim(folder, NAME, stale_seconds=60):
        assert time.monotonic() - started < 30


def test_a_stale_claim_from_another_machine_is_taken_over(folder):
    claim = {"token": "t", "host": "elsewhere", "machine": "another", "pid": 1}
    folder.write(NAME, json.dumps(claim | {"process_started": "1"}).encode())
    started = time.monotonic()
    with Claim(folder, NAME, FRESH, STALE):
        assert time.monotonic() - started >= STALE


@pytest.mark.parametrize(
    "content",
    [b"", b'{"token"', b"null", b"[1]", b"5", b"\xff", b"[" * 100_000],
    ids=lambda content: repr(content[:8]),
)
def test_a_claim_that_is_not_one_is_taken_over(folder, content, capsys):
    folder.write(NAME, content)
    with Claim(folder, NAME, FRESH, STALE) as claim:
        claim.check()
    assert "claimed by a run (an unreadable claim)" in capsys.readouterr().err


@pytest.mark.parametrize("rest", [{}, {"pid": "x"}, {"pid": None, "process_started": "1"}])
def test_a_claim_of_this_machine_without_a_process_is_taken_over(folder, rest):
    folder.write(NAME, json.dumps({"machine": claim_module._machine()} | rest).encode())
    with Claim(folder, NAME, FRESH, STALE) as claim:
        claim.check()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_claim_that_is_no_longer_renewed_is_lost(folder, monkeypatch):
    """Whatever ended its thread: another run may take the folder over."""
    asked = Event()

    def end_thread(_):
        asked.set()
        raise SystemExit

    with Claim(folder, NAME, FRESH, STALE) as claim:
        claim.check()
        monkeypatch.setattr(folder, "read", end_thread)
        assert asked.wait(30)
        claim._heartbeat.join(30)
        with pytest.raises(RunError, match="or may do so: the claim is not renewed"):
            claim.check()


def test_a_lost_claim_is_an_error_and_the_new_one_is_kept(folder):
    with Claim(folder, NAME, FRESH, STALE) as claim:
        claim.check()
        new_claim = json.loads(folder.read(NAME)) | {"token": "another"}
        while claim._heartbeat.is_alive():  # the thread ends when it notices
            folder.write(NAME, json.dumps(new_claim).encode())  # again if a heartbeat crossed it
            claim._heartbeat.join(1)
        with pytest.raises(RunError, match="took the folder over"):
            claim.check()
    assert json.loads(folder.read(NAME))["token"] == "another"


def test_only_one_of_many_concurrent_claims_succeeds(tmp_path):
    folder, barrier = Folder(str(tmp_path)), Barrier(8)

    def create(number):
        barrier.wait()
        return folder.create(NAME, str(number).encode())

    for round_ in range(20):
        with ThreadPoolExecutor(8) as pool:
            created = list(pool.map(create, range(8)))
        assert created.count(True) == 1, f"round {round_}"
        assert folder.read(NAME) == str(created.index(True)).encode()
        folder.remove(NAME)


def test_a_claim_that_was_written_although_the_store_said_no(folder, monkeypatch):
    """A retried PUT meets the object that its first try wrote."""
    create = folder.create
    monkeypatch.setattr(folder, "create", lambda *args: create(*args) and False)
    with Claim(folder, NAME, FRESH, STALE) as claim:
        claim.check()


def test_of_two_runs_that_take_a_claim_over_one_gives_way(folder, monkeypatch):
    folder.write(NAME, b"{}")
    sleep = time.sleep

    def another_is_quicker(seconds):
        if json.loads(folder.read(NAME)).get("beats") == 0:  # ours has just been written
            folder.write(NAME, b'{"token": "another"}')
        sleep(min(seconds, 0.01))

    monkeypatch.setattr(time, "sleep", another_is_quicker)
    with pytest.raises(OutputError, match="another run has just started"):
        Claim(folder, NAME, FRESH, STALE).__enter__()
    assert json.loads(folder.read(NAME)) == {"token": "another"}


def test_a_claim_that_cannot_be_released_does_not_hide_how_the_run_ended(folder, monkeypatch):
    def refuse(_):
        raise OSError("storage is away")

    with pytest.raises(ZeroDivisionError), Claim(folder, NAME):
        monkeypatch.setattr(folder, "read", refuse)
        raise ZeroDivisionError


@pytest.mark.parametrize("method", ["read", "remove"])
def test_storage_that_hangs_does_not_hold_up_the_end_of_a_run(folder, monkeypatch, capsys, method):
    monkeypatch.setattr(claim_module, "_RELEASE_SECONDS", 0.1)
    ended = Event()
    with Claim(folder, NAME) as claim:
        monkeypatch.setattr(folder, method, lambda _: ended.wait())
    ended.set()
    claim._heartbeat.join(30)
    assert "could not be released (no answer within 0.1 s)" in capsys.readouterr().err


def test_an_outage_is_told_once(folder, monkeypatch, capsys):
    failed = Semaphore(0)

    def refuse(_):
        failed.release()
        raise OSError("storage is away")

    with Claim(folder, NAME, 0.01, STALE) as claim:
        with monkeypatch.context() as patch:
            patch.setattr(folder, "read", refuse)
            for _ in range(3):
                assert failed.acquire(timeout=30)
        claim.check()
    printed = capsys.readouterr().err
    assert printed.count("\n") == printed.count("the claim could not be renewed") == 1


def test_a_claim_that_cannot_be_read_is_a_one_line_error(folder, monkeypatch):
    def refuse(_):
        raise TimeoutError("no answer")

    folder.write(NAME, b"{}")
    monkeypatch.setattr(folder, "read", refuse)
    with pytest.raises(RunError, match=r"claim.json could not be read \(no answer\)"):
        Claim(folder, NAME, FRESH, STALE).__enter__()


def test_a_run_in_another_container_is_not_considered_dead(monkeypatch):
    holder = {"machine": claim_module._machine(), "pid": 2**22 + 1, "process_started": "1"}
    assert claim_module._died_on_this_machine(holder)
    monkeypatch.setattr(claim_module, "_machine", lambda: "another")
    assert not claim_module._died_on_this_machine(holder)
    monkeypatch.setattr(claim_module, "_machine", lambda: None)
    assert not claim_module._died_on_this_machine(holder | {"machine": None})
