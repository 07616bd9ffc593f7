"""Airflow: labels what is new every night, then reports on it against the labels from before.

Put it in the DAGs folder. The workers need `ser-batch` in their PATH.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.exceptions import AirflowException, AirflowFailException
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG
from airflow.timetables.trigger import CronTriggerTimetable

INPUT = "s3://my-bucket/calls"
LABELS = "s3://my-bucket/labels"
REPORTS = "s3://my-bucket/reports"
ENVIRONMENT: dict[str, str] = {}  # RAY_ADDRESS, for one; without it, Ray runs on the worker


class SerBatchOperator(BashOperator):
    """Runs a command whose exit codes mean one thing each; only 1 is tried again."""

    def execute(self, context: Any) -> int:
        """Runs the command, and returns its exit code to the tasks after it.

        Raises:
            AirflowFailException: it ended with 2, which another try does not change; or it is the
                last task, and this one or one before it ended with 3.
            AirflowException: it did not finish; the same command continues.
        """
        command = ["bash", "-c", self.bash_command]
        code: int = self.subprocess_hook.run_command(command, env=self.get_env(context)).exit_code
        if code == 2:
            raise AirflowFailException(f"exit code 2: {self.bash_command}")
        if code not in (0, 3):
            raise AirflowException(f"exit code {code}: the same command continues")
        if self.downstream_task_ids:  # also where too many recordings failed, a report is made
            return code
        codes = {each: context["ti"].xcom_pull(task_ids=each) for each in self.upstream_task_ids}
        failed = [task for task, each in {**codes, self.task_id: code}.items() if each == 3]
        if failed:
            raise AirflowFailException(f"exit code 3 of {', '.join(failed)}: look at the report")
        return code


with DAG(
    "ser_batch",
    schedule=CronTriggerTimetable("30 1 * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,  # one run at a time may write to a folder
    default_args={
        "retries": 2,
        "retry_delay": timedelta(minutes=1),
        "env": ENVIRONMENT,
        "append_env": True,
    },
) as dag:
    label = SerBatchOperator(
        task_id="label",
        bash_command=f"ser-batch label --date {{{{ ds }}}} --input '{INPUT}' --output '{LABELS}'"
        " --max-failed-fraction 0.05",
        depends_on_past=True,
        wait_for_downstream=True,  # after exit code 3, no night begins until somebody has looked
    )
    report = SerBatchOperator(
        task_id="report",
        bash_command=f"ser-batch report --date {{{{ ds }}}} --labels '{LABELS}'"
        f" --output '{REPORTS}/{{date}}' --since {{{{ ts }}}} --fail-on-drift",
    )
    label >> report
