"""Interrupting a command is one line and exit code 1, whatever it is doing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.ser_batch import Job, run_job
from jobs.start import STOPPED
from ser_core.evaluation.config import EvaluateConfig
from tests.log_lines import messages

ROOT = Path(__file__).parents[2]
MODULE = ["-m", "jobs.label"]
SCRIPT = ["-c", "import sys; from jobs.start import main; sys.exit(main())", "label"]
FLAGS = ["--input", "in", "--output", "out"]
SLOW_MODULE = "import time; print('importing', flush=True); time.sleep(600)"


def interrupted(argv, number, **environment):
    """Starts a command, interrupts it after its first line, and returns how it ended."""
    process = subprocess.Popen(
        [sys.executable, *argv],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "importing\n", process.stderr.read()
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    return process.returncode, error


@pytest.mark.parametrize("command", [MODULE, SCRIPT], ids=["module", "script"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("module", ["pydantic", "ray"])
def test_interrupting_an_import(command, number, module, tmp_path):
    (tmp_path / f"{module}.py").write_text(SLOW_MODULE)
    ended = interrupted([*command, *FLAGS], number, PYTHONPATH=str(tmp_path))
    loading = ["loading libraries"] if module == "ray" else []
    assert (ended[0], messages(ended[1])) == (1, [*loading, STOPPED])


EXITING = """
import atexit, sys, time
import jobs.ser_batch
from jobs.start import main
jobs.ser_batch.main = lambda: 0
def end():
    print("importing", flush=True)
    time.sleep(0.5)
atexit.register(end)
sys.exit(main())
"""


def test_interrupting_what_python_does_at_exit_changes_nothing():
    assert interrupted(["-c", EXITING], signal.SIGINT) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupting_a_job_lets_it_end_as_after_an_exception(number, monkeypatch, capsys):
    ended = []

    def work(_):
        try:
            signal.raise_signal(number)
            pytest.fail("it goes on")
        finally:
            ended.append(True)

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("jobs.ser_batch.pkgutil.resolve_name", lambda _: work)
    monkeypatch.setitem(run_job.__globals__["JOBS"], "label", Job("", EvaluateConfig, ""))
    assert run_job("label", ["--labels", "in", "--output", "out"], "") == 1
    assert ended == [True]
    assert messages(capsys.readouterr().err) == ["loading libraries", STOPPED]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("command", [MODULE, SCRIPT], ids=["module", "script"])
def test_a_log_on_a_full_disk_changes_no_exit_code(command, stream, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("print('to standard output')")
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, *command, "--output", "out"],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONUNBUFFERED": ""},
            check=False,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: full},
        )
    assert ended.returncode == 2
