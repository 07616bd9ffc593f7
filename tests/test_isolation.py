"""A function in a child process: what it returns and raises, and how it may fail."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from isolated_functions import call

from ser_core.errors import RecordingError, Status
from ser_core.isolation import (
    ChildCrashedError,
    ChildMemoryError,
    ChildTimeoutError,
    IsolatedFunction,
    Limits,
    PauseTimeoutError,
)

SECONDS = 60.0  # for what takes milliseconds
LIMITS = Limits(seconds=SECONDS, pause_seconds=SECONDS, memory=256 << 20)


@pytest.fixture
def isolated():
    """A function with limits that nothing reaches by being slow; tests lower the one they test."""
    function = IsolatedFunction(call, LIMITS, ["isolated_functions"])
    yield function
    function.close()


def test_one_child_serves_many_calls(isolated):
    processes = {isolated(("id", None)) for _ in range(3)}
    assert len(processes) == 1
    assert os.getpid() not in processes


def test_an_error_raised_on_purpose_comes_back_as_it_is(isolated):
    with pytest.raises(RecordingError, match="half") as error:
        isolated(("refuse", "half of it"))
    assert error.value.status is Status.TRUNCATED


def test_any_other_exception_comes_back_with_its_traceback(isolated):
    child = isolated(("id", None))
    with pytest.raises(RuntimeError, match=r"isolated_functions(.|\n)*KeyError: 'x'"):
        isolated(("raise", KeyError("x")))
    assert isolated(("id", None)) == child


@pytest.mark.parametrize(
    ("number", "killed"), [(signal.SIGSEGV, False), (signal.SIGABRT, False), (signal.SIGKILL, True)]
)
def test_a_crash_is_named_and_the_child_replaced(isolated, number, killed):
    child = isolated(("id", None))
    with pytest.raises(ChildCrashedError, match=number.name) as error:
        isolated(("crash", number))
    assert error.value.killed is killed
    assert isolated(("id", None)) != child
    assert not psutil.pid_exists(child)


def test_a_hanging_call_is_killed(isolated):
    child = isolated(("id", None))
    isolated._limits = LIMITS._replace(seconds=1.0)
    with pytest.raises(ChildTimeoutError, match="1 s"):
        isolated(("hang", 1000))
    assert not psutil.pid_exists(child)


def test_a_pause_does_not_count_but_has_a_limit_of_its_own(isolated):
    isolated(("id", None))
    isolated._limits = LIMITS._replace(seconds=4.0)
    isolated(("pause", 4.5))  # longer than a call may take
    isolated._limits = LIMITS._replace(pause_seconds=1.0)
    with pytest.raises(PauseTimeoutError, match="1 s"):
        isolated(("pause", 1000))


def test_memory_is_limited_for_each_call(isolated):
    child = isolated(("id", None))
    for _ in range(3):
        assert isolated(("allocate", 100 << 20)) == 100 << 20
    with pytest.raises(ChildMemoryError, match=r"0\.25 GiB"):
        isolated(("allocate", 1 << 30))
    assert isolated(("id", None)) == child


def test_the_environment_is_that_of_the_start_of_the_child(isolated, monkeypatch):
    monkeypatch.setenv("SER_TEST_VARIABLE", "1")  # after the fork server has started
    assert isolated(("environment", "SER_TEST_VARIABLE")) == "1"


def test_a_child_loads_nothing_of_its_parent(isolated):
    assert "pytest" in sys.modules
    assert isolated(("modules", ["pytest", "isolated_functions"])) == ["isolated_functions"]


def test_a_killed_fork_server_is_replaced(isolated):
    child = psutil.Process(isolated(("id", None)))
    child.parent().kill()
    assert isolated(("id", None)) == child.pid  # it lives on
    with pytest.raises(ChildCrashedError) as error:
        isolated(("crash", signal.SIGSEGV))
    assert error.value.killed  # which nobody can know any more
    replacement = psutil.Process(isolated(("id", None)))
    assert replacement.parent().is_running()


def test_a_fork_server_that_dies_while_it_is_asked_is_replaced(isolated):
    server = psutil.Process(isolated(("id", None))).parent()
    isolated.close()
    server.suspend()  # connections are accepted, and nobody answers
    kill = threading.Timer(0.5, server.kill)
    kill.start()
    assert psutil.Process(isolated(("id", None))).parent() != server
    kill.join()


@contextmanager
def parent(tmp_path, *lines, seconds=1000.0):
    """A process that runs the lines; they may call ``function``, for so many seconds."""
    script = tmp_path / "parent.py"
    body = "\n".join(f"    {line}" for line in lines)
    script.write_text(
        "import resource\n"
        "from isolated_functions import call\n"
        "from ser_core.isolation import IsolatedFunction, Limits\n"
        "if __name__ == '__main__':\n"
        f"    function = IsolatedFunction(call, Limits({seconds}, 1000.0, 1 << 30))\n"
        f"{body}\n"
    )
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    environment = {**os.environ, "PYTHONPATH": path}
    arguments = [sys.executable, script]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, env=environment, text=True) as process:
        yield process
        process.kill()


def test_children_end_with_a_killed_parent(tmp_path):
    lines = (
        "print(function(('id', None)), flush=True)",
        "function(('hang', 1000))",
    )
    with parent(tmp_path, *lines) as process:
        child = psutil.Process(int(process.stdout.readline()))
        process.kill()
    deadline = time.monotonic() + SECONDS
    while runs(child):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def runs(process):
    with suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def test_the_time_in_which_all_processes_are_paused_does_not_count(tmp_path):
    lines = (
        "print(function(('id', None)), flush=True)",
        "print(function(('hang', 2)), flush=True)",
    )
    with parent(tmp_path, *lines, seconds=8.0) as process:
        pid = process.stdout.readline()
        processes = [psutil.Process(process.pid), psutil.Process(int(pid))]
        for each in processes:
            each.suspend()
        time.sleep(9)  # longer than a call may take
        for each in processes:
            each.resume()
        assert process.stdout.readline() == pid


def test_a_limit_that_the_process_has_is_kept(tmp_path):
    lines = (
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))",
        "print(function(('memory limit', None)), flush=True)",
    )
    with parent(tmp_path, *lines) as process:
        assert process.stdout.readline() == f"{1 << 40}\n"
