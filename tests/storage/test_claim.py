"""One run at a time: a claim is refused while its run lives, and taken over when it is dead."""

import json
import subprocess
import sys
import time

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
    """A process that holds the claim until it is killed."""
    command = [sys.executable, "-c", HOLD, folder.uri, NAME, str(fresh_seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "claimed\n"
    return process


def test_a_claim_is_released_also_after_an_error(folder):
    with pytest.raises(ZeroDivisionError), Claim(folder, NAME):
        assert folder.names("__runs") == ["claim.json"]
        raise ZeroDivisionError
    assert folder.names("__runs") == []


def test_a_run_that_lives_is_not_disturbed(folder):
    with Claim(folder, NAME, FRESH, STALE) as first:
        second = Claim(folder, NAME, FRESH, STALE)
        with pytest.raises(OutputError, match="another run is writing there"), second:
            pass
        first.check()
    assert folder.names("__runs") == []


def test_a_run_killed_on_this_machine_is_replaced_at_once(tmp_path):
    folder = Folder(str(tmp_path))
    process = hold(folder)
    process.kill()
    process.wait()
    started = time.monotonic()
    with Claim(folder, NAME, stale_seconds=60):
        assert time.monotonic() - started < 30


def test_a_run_elsewhere_is_replaced_after_silence_whatever_its_clock(folder):
    claim = {"token": "t", "host": "elsewhere", "machine": "another", "pid": 1}
    folder.write(NAME, json.dumps(claim | {"process_started": "1"}).encode())
    started = time.monotonic()
    with Claim(folder, NAME, FRESH, STALE):
        assert time.monotonic() - started >= STALE


def test_half_a_claim_is_taken_over(folder):
    folder.write(NAME, b'{"token"')
    with Claim(folder, NAME, FRESH, STALE) as claim:
        claim.check()


def test_who_lost_the_claim_is_told_and_leaves_the_new_one(folder):
    with Claim(folder, NAME, FRESH, STALE) as claim:
        claim.check()
        taken = json.loads(folder.read(NAME)) | {"token": "another"}
        folder.write(NAME, json.dumps(taken).encode())
        claim._keeper.join(30)  # it ends when it sees that
        with pytest.raises(RunError, match="took the folder over"):
            claim.check()
    assert json.loads(folder.read(NAME))["token"] == "another"


def test_one_of_many_at_once_has_it(folder):
    assert [folder.create(NAME, b"{}") for _ in range(5)] == [True] + [False] * 4


def test_another_container_with_the_same_name_is_not_taken_for_dead(monkeypatch):
    holder = {"machine": claim_module._machine(), "pid": 2**22 + 1, "process_started": "1"}
    assert claim_module._died_on_this_machine(holder)
    monkeypatch.setattr(claim_module, "_machine", lambda: "another")
    assert not claim_module._died_on_this_machine(holder)
    monkeypatch.setattr(claim_module, "_machine", lambda: None)
    assert not claim_module._died_on_this_machine(holder | {"machine": None})
