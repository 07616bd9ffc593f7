"""Ray ends with the process that started it, and with nothing else of that process."""

import json
import subprocess
import sys

import psutil

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
