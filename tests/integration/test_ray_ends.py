"""Which processes Ray starts for a run, and that they end with it and nothing else does."""

import json
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from recordings import speech_like, write_audio

ROOT = Path(__file__).parents[2]

SCRIPT = """
import json, subprocess, sys
import psutil
from ser_core.cluster import join

sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
mine = subprocess.Popen(sleep, stdout=subprocess.DEVNULL)
join(verbose=False)
started = [process.pid for process in psutil.Process().children(recursive=True)]
print(json.dumps([mine.pid, started]), flush=True)
"""


def test_ray_ends_and_other_children_stay():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, check=True, timeout=300
    )
    mine, started = json.loads(done.stdout)
    try:
        assert len(started) > 3
        assert [pid for pid in started if psutil.pid_exists(pid)] == [mine]
    finally:
        psutil.Process(mine).kill()


# What takes a second of a core, or more, to start, and what such a run has no use for.
UNUSED = (
    "monitor.py", "dashboard/dashboard.py", "_StatsActor", "_AutoscalingCoordinator",
    "ActorLocationTracker",
)  # fmt: skip
USED = ("gcs_server", "raylet", "StartCounter", "MapWorker(MapBatches(ClassifierActor))", "_decode")


def processes_of(command, log):
    """The command lines of all processes that a command started while it ran."""
    seen = set()
    with log.open("w") as file, subprocess.Popen(command, cwd=ROOT, stderr=file) as process:
        started = psutil.Process(process.pid)
        while process.poll() is None:
            with suppress(psutil.NoSuchProcess):
                for child in started.children(recursive=True):
                    with suppress(psutil.NoSuchProcess):
                        seen.add(" ".join(child.cmdline()))
            time.sleep(0.05)
        assert process.returncode == 0, log.read_text()
    return "\n".join(seen)


@pytest.mark.parametrize("verbose", [False, True])
def test_a_run_on_one_machine_starts_only_what_it_uses(small_checkpoint, tmp_path, verbose):
    for number in range(3):
        write_audio(tmp_path / "in" / f"{number}.wav", speech_like(1, seed=number), 16000)
    command = [sys.executable, "-m", "jobs.label", "--input", str(tmp_path / "in")]
    command += ["--output", str(tmp_path / "out"), "--model", str(small_checkpoint)]
    seen = processes_of([*command, *["--verbose"] * verbose], tmp_path / "log")
    assert [name for name in USED if name not in seen] == []
    assert [name for name in UNUSED if name in seen] == (list(UNUSED) if verbose else [])
