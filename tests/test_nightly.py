"""The nightly script, the DAG and the SLURM job: their commands parse, and exit codes are kept."""

import os
import re
import runpy
import shlex
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from jobs.command import parse
from jobs.ser_batch import JOBS

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
PLACES = {"INPUT": "s3://b/calls", "LABELS": "s3://b/labels", "REPORTS": "s3://b/reports"}


def executable(path, text):
    path.write_text(text)
    path.chmod(0o755)


@pytest.mark.parametrize("script", ["again.sh", "nightly.sh", "slurm.sbatch"])
def test_scripts_are_bash(script):
    subprocess.run(["bash", "-n", DEPLOY / script], check=True)


# ---- nightly.sh ----------------------------------------------------------------------------------


@pytest.fixture
def night(tmp_path):
    """Runs nightly.sh with a `python` that ends with the codes of the jobs, one an attempt."""
    executable(
        tmp_path / "python",
        f'#!/bin/bash\necho "$@" >> {tmp_path}/calls\njob=${{2#jobs.}}\n'
        f"code=$(head -n 1 {tmp_path}/$job); sed -i 1d {tmp_path}/$job; exit $code\n",
    )

    def run(*flags, label=(0,), report=(0,), **environment):
        (tmp_path / "label").write_text("".join(f"{code}\n" for code in label))
        (tmp_path / "report").write_text("".join(f"{code}\n" for code in report))
        (tmp_path / "calls").write_text("")
        path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
        dates = {"DATE": "2026-11-27", "SINCE": "2026-11-28T00:10:00Z"}
        env = {"PATH": path, "PAUSE": "0.01", **dates, **PLACES, **environment}
        command = ["bash", DEPLOY / "nightly.sh", *flags]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        calls = (tmp_path / "calls").read_text().splitlines()
        return done, [shlex.split(call)[1:] for call in calls]

    return run


def jobs(calls):
    return [module.removeprefix("jobs.") for module, *_ in calls]


@pytest.mark.parametrize(
    ("label", "report", "code", "ran"),
    [
        ([0], [0], 0, ["label", "report"]),
        ([0], [3], 3, ["label", "report"]),  # the labels drifted
        ([3], [0], 3, ["label", "report"]),  # too many failed: the report says which
        ([2], [0], 2, ["label"]),
        ([1, 0], [1, 3], 3, ["label", "label", "report", "report"]),
        ([1, 1, 1], [0], 1, ["label"] * 3),  # nothing to report on yet
        ([3], [1, 1, 1], 1, ["label", *["report"] * 3]),  # the same night again, to finish
        ([3], [2], 2, ["label", "report"]),
    ],
)
def test_the_exit_code_of_a_night(night, label, report, code, ran):
    done, calls = night(label=label, report=report)
    assert (done.returncode, jobs(calls)) == (code, ran)


def test_the_commands_of_a_night(night):
    _, calls = night("--rows", "segment", "--max-failed-fraction", "0.2")
    (_, *label), (_, *report) = calls
    config = parse(JOBS["label"].config, label)
    assert (config.input, config.output) == (("s3://b/calls",), "s3://b/labels")
    assert (config.rows, config.max_failed_fraction) == ("segment", 0.2)  # arguments win
    assert report == shlex.split(
        "--date 2026-11-27 --labels s3://b/labels --output s3://b/reports/{date}"
        " --since 2026-11-28T00:10:00Z --fail-on-drift"
    )
    config = parse(JOBS["report"].config, report)
    assert (config.output, config.fail_on_drift) == ("s3://b/reports/2026-11-27", True)


def test_the_date_of_a_night_is_that_of_utc(night):
    before = subprocess.run(["date", "-u", "+%F"], capture_output=True, text=True, check=True)
    _, calls = night(DATE="", TZ="Pacific/Kiritimati")  # 14 hours ahead
    after = subprocess.run(["date", "-u", "+%F"], capture_output=True, text=True, check=True)
    for _, *flags in calls:
        assert flags[flags.index("--date") + 1] in (before.stdout.strip(), after.stdout.strip())


def test_after_drift_no_night_begins_until_the_file_is_removed(night, tmp_path):
    stop_file = tmp_path / "stopped"
    done, _ = night(report=[3], STOP_FILE=str(stop_file))
    assert (done.returncode, stop_file.exists()) == (3, True)
    done, calls = night(STOP_FILE=str(stop_file))
    assert (done.returncode, calls) == (3, [])
    assert f"on 2026-11-27, a check failed. Look at the report, then remove {stop_file}" in (
        done.stderr
    )
    stop_file.unlink()
    done, calls = night(label=[1, 1, 1], STOP_FILE=str(stop_file))
    assert (done.returncode, stop_file.exists()) == (1, False)  # it has only not finished


def test_new_is_what_is_labelled_from_now_on(night):
    before = datetime.now(UTC).replace(microsecond=0)
    _, calls = night(SINCE="")
    (_, report) = calls
    since = datetime.fromisoformat(report[report.index("--since") + 1])
    assert before <= since <= datetime.now(UTC)


def test_a_stop_file_that_cannot_be_written_is_known_before_the_night(night, tmp_path):
    done, calls = night(STOP_FILE=str(tmp_path / "nowhere" / "stopped"))
    assert (done.returncode, calls) == (2, [])
    assert "its folder cannot be written" in done.stderr


@pytest.mark.parametrize("missing", PLACES)
def test_a_night_without_a_place_says_which(night, missing):
    done, calls = night(**{missing: ""})
    assert (done.returncode, done.stderr) == (2, f"error: {missing} is not set\n")
    assert not calls


@pytest.mark.parametrize(("code", "of_the_night"), [(1, 1), (0, 1), (3, 3)])
def test_stopping_a_night_stops_its_command_and_begins_no_other(tmp_path, code, of_the_night):
    script = f"trap 'kill $!; exit {code}' TERM; echo started $2; sleep 60 & wait"
    executable(tmp_path / "python", f"#!/bin/bash\n{script}\n")
    env = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", **PLACES}
    command = ["bash", DEPLOY / "nightly.sh"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as night:
        assert night.stdout.readline() == "started jobs.label\n"
        night.terminate()
        assert night.wait(60) == of_the_night
        assert night.stdout.read() == ""


# ---- Airflow -------------------------------------------------------------------------------------


class AirflowException(Exception):  # noqa: N818
    """As Airflow's: the task is tried again."""


class AirflowFailException(AirflowException):
    """As Airflow's: the task is not tried again."""


class BashOperator:
    """What the DAG uses of Airflow's; its command ends with `code`."""

    code = 0

    def __init__(self, task_id, bash_command, **settings):
        self.task_id, self.bash_command, self.settings = task_id, bash_command, settings
        self.upstream_task_ids, self.downstream_task_ids = set(), set()
        self.subprocess_hook = self

    def run_command(self, command, env):
        assert (command, env) == (["bash", "-c", self.bash_command], {})
        return SimpleNamespace(exit_code=self.code)

    def get_env(self, context):
        assert "ti" in context
        return {}

    def __rshift__(self, other):
        self.downstream_task_ids.add(other.task_id)
        other.upstream_task_ids.add(self.task_id)


@pytest.fixture
def dag(monkeypatch):
    """The module of the DAG, without Airflow, which this project does not require."""
    contents = {
        "airflow.exceptions": (AirflowException, AirflowFailException),
        "airflow.providers.standard.operators.bash": (BashOperator,),
        "airflow.sdk": (MagicMock(__name__="DAG"),),
        "airflow.timetables.trigger": (MagicMock(__name__="CronTriggerTimetable"),),
    }
    for name, names in contents.items():
        module = SimpleNamespace(**{each.__name__: each for each in names})
        monkeypatch.setitem(sys.modules, name, module)
    return SimpleNamespace(**runpy.run_path(DEPLOY / "airflow_dag.py"))


def test_the_commands_of_the_dag(dag):
    """With Airflow's template of the date filled in."""
    for task in (dag.label, dag.report):
        program, job, *flags = shlex.split(
            task.bash_command.replace("{{ ds }}", "2026-11-27").replace(
                "{{ ts }}", "2026-11-27T01:30:00+00:00"
            )
        )
        assert (program, job) == ("ser-batch", task.task_id)
        parse(JOBS[job].config, flags)


@pytest.mark.parametrize(
    ("label", "report", "ends"),
    [
        (0, 0, ["done", "done"]),
        (0, 3, ["done", "failed"]),
        (3, 0, ["done", "failed"]),  # the report is there when the night fails
        (3, 3, ["done", "failed"]),
        (0, 1, ["done", "again"]),
        (3, 2, ["done", "failed"]),
        (1, 0, ["again"]),
        (137, 0, ["again"]),
        (2, 0, ["failed"]),
    ],
)
def test_how_the_tasks_of_the_dag_end(dag, label, report, ends):
    dag.label.code, dag.report.code = label, report
    returned, found = {}, []
    context = {"ti": MagicMock()}
    context["ti"].xcom_pull = lambda *, task_ids: returned[task_ids]
    for task in (dag.label, dag.report):
        try:
            returned[task.task_id] = task.execute(context)
        except AirflowException as error:
            found.append("failed" if isinstance(error, AirflowFailException) else "again")
            break
        found.append("done")
    assert found == ends


def test_a_night_that_somebody_has_approved_can_be_reported_on_again(dag):
    """Airflow knows no exit code of a task that was marked as successful."""
    ti = MagicMock()
    ti.xcom_pull.return_value = None
    assert dag.report.execute({"ti": ti}) == 0


# ---- by hand -------------------------------------------------------------------------------------


def test_by_hand_both_commands_have_the_same_date():
    """A run that crosses midnight would otherwise report on a day on which nothing is new."""
    page = (ROOT / "docs" / "nightly.md").read_text()
    commands = page.split("## By hand first")[1].split("```bash\n")[1].split("```")[0]
    words = [shlex.split(command) for command in commands.splitlines()]
    assert [job for _, job, *_ in words] == ["label", "report"]
    assert len({flags[flags.index("--date") + 1] for flags in words}) == 1


# ---- SLURM ---------------------------------------------------------------------------------------


@pytest.fixture
def slurm(tmp_path):
    """Runs slurm.sbatch as SLURM does, with programs of SLURM and Ray that only write calls."""
    listen = "import os, socket; s = socket.create_server(('127.0.0.1', int(os.environ['PORT'])))"
    executable(
        tmp_path / "python",
        '#!/bin/bash\ncase "$2" in *secrets*) echo token;; *) echo 127.0.0.1;; esac\n',
    )
    note = f'echo "${{0##*/}} $*" >> {tmp_path}/calls\n'
    executable(
        tmp_path / "ray",
        f"#!/bin/bash\n{note}[[ $BROKEN ]] && exit 1\n"
        f'exec {sys.executable} -c "{listen}; s.accept(); [s.accept() for _ in iter(int, 1)]"\n',
    )
    for name in ("scontrol", "scancel", "srun"):
        executable(tmp_path / name, f"#!/bin/bash\n{note}")

    def run(*command, nodes=1, **environment):
        (tmp_path / "calls").write_text("")
        env = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "BROKEN": "", **environment}
        env |= {"SLURM_JOB_ID": str(job_of_a_free_port()), "SLURM_JOB_NUM_NODES": str(nodes)}
        env |= {"SLURM_CPUS_ON_NODE": "4", "SLURM_MEM_PER_NODE": "1000"}
        script = ["bash", DEPLOY / "slurm.sbatch", *command]
        done = subprocess.run(
            script, env=env, capture_output=True, text=True, check=False, timeout=60
        )
        return done, (tmp_path / "calls").read_text().splitlines()

    return run


def job_of_a_free_port():
    for job in range(1, 6000):
        with socket.socket() as candidate:
            if candidate.connect_ex(("127.0.0.1", 20_000 + 2 * job)):
                return job
    raise AssertionError("no free port")


@pytest.mark.parametrize(
    ("code", "restarts", "requeued"),
    [
        (0, 0, False),
        (1, 0, True),
        (1, 1, True),
        (1, 2, False),
        (2, 0, False),
        (3, 0, False),
        (127, 0, False),
        (137, 0, True),
        (137, 2, False),
    ],
)
def test_only_a_job_that_did_not_finish_is_queued_again(slurm, code, restarts, requeued):
    environment = {"SLURM_RESTART_COUNT": str(restarts)} if restarts else {}
    done, calls = slurm("bash", "-c", f"exit {code}", **environment)
    assert done.returncode == code
    assert any(call.startswith("scontrol requeue ") for call in calls) == requeued


def test_the_command_gets_the_cluster_and_ray_what_slurm_allows(slurm):
    done, calls = slurm("bash", "-c", "echo $RAY_ADDRESS $RAY_AUTH_MODE $RAY_AUTH_TOKEN")
    head, mode, token = done.stdout.split()
    assert (mode, token) == ("token", "token")
    (start,) = [call for call in calls if call.startswith("ray start")]
    assert f"--port={head.rpartition(':')[2]} " in start
    assert "--num-cpus=4 --object-store-memory=300000000 " in start
    assert not [call for call in calls if call.startswith(("srun", "ray stop"))]


def test_further_nodes_join_and_are_ended_first(slurm):
    _, calls = slurm("true", nodes=3)
    (step,) = [call for call in calls if call.startswith("srun")]
    assert "--relative=1 --nodes=2 --ntasks=2 " in step
    assert re.fullmatch(r"scancel --signal=TERM \d+\.0", calls[-1])


def test_a_job_in_which_ray_does_not_start_is_queued_again(slurm):
    done, calls = slurm("true", BROKEN="1")
    assert done.returncode == 1
    assert "Ray does not start on 127.0.0.1" in done.stderr
    assert calls[-1].startswith("scontrol requeue ")
