"""Runs the labelling job as users do, until it ends well, and checks what it promises."""

import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import fsspec
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from processes import Family

from tests.log_lines import messages

ROOT = Path(__file__).parents[2]
SABOTAGE = Path(__file__).with_name("sabotage")
JOB_SECONDS = 300.0  # 16 on two idle cores, mostly for starting Ray
_END_SECONDS = 45.0  # in which the processes of a run are gone
# These two notice that a driver was killed only a minute later; they hold neither model nor file.
_RAYS_AGENTS = ("DashboardAgent", "RuntimeEnvAgent", "dashboard/agent.py", "runtime_env/agent")


class Ended(NamedTuple):
    """How a run ended."""

    code: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def last_line(self) -> str:
        """The last line that it wrote to stderr, without its time."""
        return (messages(self.stderr.strip()) or [""])[-1]


@dataclass
class Command:
    """``python -m jobs.label`` with its flags and the changes of its environment."""

    flags: dict[str, Any]
    environment: dict[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()  # what runs it, such as `ip netns exec NAME`

    def argv(self) -> list[str]:
        """The command line; a flag that is True has no value, one of several values is repeated."""
        arguments: list[str] = []
        for name, value in self.flags.items():
            values = value if isinstance(value, list | tuple) else [value]
            arguments.append(f"--{name.replace('_', '-')}")
            arguments += [] if value is True else [str(each) for each in values]
        return [*self.prefix, sys.executable, "-m", "jobs.label", *arguments]

    def with_flags(self, **flags: Any) -> "Command":
        """The same command with other flags."""
        return Command(self.flags | flags, self.environment, self.prefix)


class Job:
    """One run of a command, with all processes that it starts.

    ::

        with Job(command) as job:
            ...
            ended = job.wait()
    """

    def __init__(self, command: Command) -> None:
        mark = f"chaos-{uuid.uuid4().hex}"
        inherited = {n: v for n, v in os.environ.items() if n not in ("RAY_ADDRESS", "PYTHONPATH")}
        inherited |= {"CUDA_VISIBLE_DEVICES": "", "CHAOS_MARK": mark}
        self._logs = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115
        self._started = time.monotonic()
        self.process = subprocess.Popen(
            command.argv(),
            cwd=ROOT,
            env=inherited | command.environment,
            stdout=self._logs[0],
            stderr=self._logs[1],
        )
        self.family = Family(psutil.Process(self.process.pid), mark)
        self.killed = False

    def __enter__(self) -> Self:
        self.family.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.family.__exit__()
        self.family.kill()

    def kill(self) -> None:
        """Kills the driver, and nothing else."""
        self.killed = True
        self.process.kill()
        self.process.wait()

    def wait(self, seconds: float = JOB_SECONDS) -> Ended:
        """Waits for the end of the run and of its processes.

        Raises:
            AssertionError: it ran longer, or processes outlived it.
        """
        try:
            code = self.process.wait(max(0.0, seconds - self.elapsed))
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the run did not end in {seconds} s:\n{self.stderr()}") from None
        ended = Ended(code, self._read(0), self.stderr(), self.elapsed)
        left = self.family.left_after(_END_SECONDS, _RAYS_AGENTS if self.killed else ())
        assert not left, f"processes outlived the run: {left}\n{ended.stderr[-2000:]}"
        return ended

    @property
    def elapsed(self) -> float:
        """Seconds since its start."""
        return time.monotonic() - self._started

    def stderr(self) -> str:
        """What it wrote to stderr so far."""
        return self._read(1)

    def _read(self, log: int) -> str:
        self._logs[log].seek(0)
        return self._logs[log].read().decode(errors="replace")

    def until(self, condition: Any, what: str, seconds: float = JOB_SECONDS) -> Any:
        """Waits for a condition while the run goes on, and returns its value.

        Raises:
            AssertionError: the run ended before, or it took too long.
        """
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            assert self.process.poll() is None, f"the run ended before {what}:\n{self.stderr()}"
            assert time.monotonic() < deadline, f"{what}: not in {seconds} s:\n{self.stderr()}"
            time.sleep(0.02)
        return value


def run(command: Command, seconds: float = JOB_SECONDS) -> Ended:
    """Runs a command to its end."""
    with Job(command) as job:
        return job.wait(seconds)


def until_done(command: Command, rounds: int = 3, seconds: float = JOB_SECONDS) -> list[Ended]:
    """Repeats the same command until it ends with 0.

    Raises:
        AssertionError: it did not within so many rounds, or ended with something other than 1.
    """
    runs: list[Ended] = []
    while not runs or runs[-1].code:
        assert len(runs) < rounds, f"not done after {rounds} rounds:\n{runs[-1].stderr}"
        runs.append(run(command, seconds))
        assert runs[-1].code in (0, 1), runs[-1].stderr
    return runs


# ---- the output ----------------------------------------------------------------------------------


class Output:
    """What a job has left in its output folder, read without the code of the project."""

    def __init__(self, uri: str | os.PathLike[str]) -> None:
        self.uri = str(uri)
        self._fs, self._root = fsspec.url_to_fs(self.uri)

    def names(self) -> list[str]:
        """All files, relative to the folder."""
        self._fs.invalidate_cache()
        if not self._fs.exists(self._root):
            return []
        return sorted(name.removeprefix(f"{self._root}/") for name in self._fs.find(self._root))

    def parts(self) -> list[str]:
        """The names of the parts."""
        return [name for name in self.names() if name.startswith("part-")]

    def rows(self) -> pd.DataFrame:
        """All rows of all parts; each part is opened by itself."""
        tables = []
        for name in self.parts():
            with self._fs.open(f"{self._root}/{name}") as file:
                tables.append(pq.read_table(file))
        if not tables:
            return pd.DataFrame(columns=["uri", "path", "status", "error", "label"])
        return pa.concat_tables(tables, promote_options="permissive").to_pandas()

    def reports(self) -> list[dict[str, Any]]:
        """The run reports, the oldest first."""
        names = [name for name in self.names() if name.startswith("__runs/2")]
        paths = sorted((f"{self._root}/{name}" for name in names), key=self._fs.modified)
        return [json.loads(self._fs.cat_file(path)) for path in paths]

    def statuses(self) -> dict[str, str]:
        """The status of each recording, by the name of its file."""
        rows = self.rows()
        return dict(zip(rows["uri"].map(os.path.basename), rows["status"].astype(str), strict=True))

    def check(self, listed: Iterable[str | os.PathLike[str]]) -> pd.DataFrame:
        """Checks what holds after a run that ended with 0; returns the rows by file name.

        Args:
            listed: the URIs of the recordings.
        """
        rows = self.rows()
        assert rows["uri"].is_unique, rows[rows["uri"].duplicated(keep=False)]
        assert set(rows["uri"]) == set(map(str, listed))
        foreign = [n for n in self.names() if not n.startswith(("part-", "__runs/2"))]
        assert not foreign, f"left in the output: {foreign}"
        report = self.reports()[-1]
        assert report["listed"] == report["output"]["rows"] == len(rows)
        assert report["output"]["by_status"] == _counts(rows["status"])
        assert report["output"]["by_label"] == _counts(rows["label"])
        labelled = rows[rows["status"] == "ok"]
        scores = labelled.filter(like="score")
        assert scores.notna().all(axis=None)
        assert ((scores >= 0) & (scores <= 1)).all(axis=None)
        assert rows[rows["status"] != "ok"]["label"].isna().all()
        return rows.set_index(rows["uri"].map(os.path.basename))


def _counts(column: pd.Series) -> dict[str, int]:
    return {str(value): count for value, count in column.value_counts().items() if count}


def unchanged(before: pd.DataFrame, after: pd.DataFrame, names: Collection[str]) -> None:
    """Checks that rows are the same ones, not labels made anew."""
    columns = ["uri", "status", "label", "score", "labeled_at"]
    pd.testing.assert_frame_equal(
        before.loc[list(names), columns], after.loc[list(names), columns], check_categorical=False
    )
