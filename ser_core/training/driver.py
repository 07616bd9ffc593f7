"""Runs the workers on Ray Train and follows them; however a run goes wrong, it comes to an end.

Ray Train stores a checkpoint of each epoch in the output folder, restarts workers that die from the
latest one, and hands it to the next run of the same command.
"""

import contextlib
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from threading import Thread
from typing import Any

import ray
import ray.train.torch
from ray.exceptions import RayActorError, RayError
from ray.train import (
    Checkpoint,
    CheckpointConfig,
    FailureConfig,
    Result,
    RunConfig,
    ScalingConfig,
    TrainingFailedError,
    UserCallback,
)

from ser_core.errors import RunError, UsageError, one_line
from ser_core.training.checkpoint_storage import read_file
from ser_core.training.heartbeats import Heartbeats
from ser_core.training.progress import EpochDisplay
from ser_core.training.run_folder import BEST, CHECKPOINTS, LAST, TrainingOutput
from ser_core.training.worker import BUG, WEIGHTS, Outcome, TrainingTask, is_out_of_memory, work

_POLL_SECONDS = 5.0  # between two reads of the history by the driver: each is a request
# Without a heartbeat; the longest pause is the upload of a checkpoint, with minutes of retries.
_SILENCE_SECONDS = 1800.0
_MAX_WORKER_FAILURES = 3  # over a whole run; more failures mean a persistent cause
_MAX_START_FAILURES = 10  # Ray Train waits a minute each time for the workers' CPUs or GPUs


class _Callback(UserCallback):  # type: ignore[misc]
    """What Ray Train's controller does at every report and failure; an exception ends the run."""

    def __init__(self, output: str) -> None:
        self._output = output

    def after_report(
        self,
        run_context: object,  # noqa: ARG002 (Ray Train passes all three by name)
        metrics: list[dict[str, Any]],
        checkpoint: Checkpoint | None,  # noqa: ARG002
    ) -> None:
        """Writes ``history.csv``, once an epoch's checkpoint is in the output folder."""
        TrainingOutput(self._output).write_history(metrics[0]["history"])

    def after_exception(
        self,
        run_context: object,  # noqa: ARG002
        worker_exceptions: dict[int, Exception],
    ) -> None:
        """Ends the run instead of restarting the workers, where a worker knows that it is vain."""
        for error in worker_exceptions.values():
            if isinstance(error, RunError):
                raise error


def run_workers(
    task: TrainingTask, scaling: ScalingConfig, check: Callable[[], None] = lambda: None
) -> Outcome:
    """Runs the workers and shows their progress; writes the weights of ``best`` and ``last``.

    Args:
        task: what they do.
        scaling: how many there are and what each gets, from ``scale``.
        check: called every few seconds; what it raises ends the run.

    Raises:
        RunError: training stopped before the end.
    """
    output = TrainingOutput(task.output)
    # Not one of the processes that may be lost with a node: it is restarted, there or elsewhere.
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}
    heartbeats = ray.remote(**options)(Heartbeats).remote()
    config = {"task": ray.put(task), "heartbeats": heartbeats}
    trainer = ray.train.torch.TorchTrainer(
        work, train_loop_config=config, scaling_config=scaling, run_config=_run_config(output)
    )
    try:
        result = _fit(trainer, output, task.epochs, _Watchdog(heartbeats, check))
    finally:
        if ray.is_initialized():  # or else the call would start Ray
            with contextlib.suppress(Exception):
                ray.kill(heartbeats)  # workers that are still there take it for the end of the run
    for name, checkpoint in ((BEST, _best_checkpoint(result)), (LAST, result.checkpoint)):
        weights = read_file(checkpoint.filesystem, f"{checkpoint.path}/{WEIGHTS}")
        output.write(f"{name}/{WEIGHTS}", weights)
    outcome = Outcome(**result.return_value)
    output.write_history(outcome.history)
    return outcome


def _best_checkpoint(result: Result) -> Checkpoint:
    if not result.best_checkpoints:
        raise RunError(_stopped("no checkpoint was stored"))
    return max(result.best_checkpoints, key=lambda item: item[1]["best"])[0]


def _run_config(output: TrainingOutput) -> RunConfig:
    filesystem, path = output.storage()
    return RunConfig(
        name=CHECKPOINTS,
        storage_path=path,
        storage_filesystem=filesystem,
        checkpoint_config=CheckpointConfig(num_to_keep=1, checkpoint_score_attribute="best"),
        failure_config=FailureConfig(
            max_failures=_MAX_WORKER_FAILURES, controller_failure_limit=_MAX_START_FAILURES
        ),
        callbacks=[_Callback(output.folder.uri)],
    )


class _Watchdog:
    """Ends a run in which nothing happens any more, whatever is stuck."""

    def __init__(self, heartbeats: Any, check: Callable[[], None]) -> None:
        self._heartbeats, self._check_claim = heartbeats, check
        self._count, self._since = 0, time.monotonic()

    def check(self) -> None:
        """Checks that the workers still send heartbeats.

        Raises:
            RunError: there was none for too long; or what the caller's check raises.
        """
        self._check_claim()
        with contextlib.suppress(Exception):  # the cluster may answer next time, or never
            count = ray.get(self._heartbeats.count.remote(), timeout=_POLL_SECONDS)
            if count != self._count:
                self._count, self._since = count, time.monotonic()
        silence = time.monotonic() - self._since
        if silence > _SILENCE_SECONDS:
            raise RunError(_stopped(f"no worker has given a sign of life for {silence:.0f} s"))


def _fit(
    trainer: ray.train.torch.TorchTrainer, output: TrainingOutput, epochs: int, watchdog: _Watchdog
) -> Result:
    """Waits for the workers and shows each epoch as soon as ``history.csv`` has it."""
    future: Future[Result] = Future()

    def fit() -> None:
        try:
            future.set_result(trainer.fit())
        except BaseException as error:  # whatever it is, the driver must not wait for ever
            future.set_exception(error)

    display = EpochDisplay(epochs, output.history())
    # In the main thread, Ray Train would handle Ctrl-C and exit with 0.
    Thread(target=fit, daemon=True).start()
    done = False
    while not done:
        done = bool(wait([future], _POLL_SECONDS).done)
        if not done:
            watchdog.check()
        with contextlib.suppress(Exception):  # storage may fail now and answer next time
            display.show(output.history())
    try:
        return future.result()
    except (TrainingFailedError, RayError) as error:
        raise RunError(_explain(error, output.folder.uri)) from error


def _stopped(reason: str) -> str:
    remedy = "rerun the same command to continue after the last finished epoch"
    return f"training stopped ({reason}); {remedy}"


def _explain(error: Exception, output: str) -> str:
    """Why training stopped, and what to do: one line, and a bug's traceback."""
    failures = list(getattr(error, "worker_failures", {}).values())
    if controller_failure := getattr(error, "controller_failure", None):
        failures = [controller_failure]
    message = "\n".join(map(str, failures or [error]))
    if is_out_of_memory(message) or "low on memory" in message:
        return "out of memory; rerun with --accumulate 4 to continue with smaller passes"
    if "Unable to set up cluster storage" in message:  # a RuntimeError like any other, in Ray Train
        problem = "not every node can write there"
        return f"--output {output}: {problem}; give a bucket, or a folder that all nodes share"
    if BUG in message:
        return message[message.index(BUG) :].strip()
    return _stopped(_reason(error, failures))


def _reason(error: Exception, failures: list[Exception]) -> str:
    if isinstance(error, RayActorError) and "creation task" not in str(error):
        return "Ray Train's controller died"
    if any("group startup timed out" in str(failure) for failure in failures):
        return "the CPUs or GPUs for the workers did not become free"
    # Ray Train wraps the exception of a dead worker; the others then fail, too, as its peers.
    causes = [getattr(failure, "health_check_failure", failure) for failure in failures]
    if any(isinstance(cause, RayActorError) for cause in causes):
        return "a worker process died"
    if any("health check has been hanging" in str(cause) for cause in causes):
        return "a worker did not answer any more"
    cause = causes[0] if causes else error
    if isinstance(cause, OSError):  # Ray Train's own files, such as its list of checkpoints
        return f"the output cannot be used: {one_line(cause)}"
    return one_line((str(cause).strip() or repr(cause)).splitlines()[-1])


def scale(workers: int | None) -> ScalingConfig:
    """A worker for each GPU of the cluster; without GPUs, one with all cores of a node.

    Args:
        workers: how many, instead of that.

    Raises:
        UsageError: the cluster has too few GPUs or CPUs.
    """
    resources = ray.cluster_resources()
    gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
    if workers and workers > (gpus or cpus):
        available = f"{gpus} GPUs" if gpus else f"{cpus} CPUs"
        raise UsageError(f"--workers {workers}: the cluster has {available}")
    if gpus:
        return ScalingConfig(num_workers=workers or gpus, use_gpu=True)
    workers = workers or 1
    cores = max(int(node["Resources"].get("CPU", 1)) for node in ray.nodes() if node["Alive"])
    share = {"CPU": max(1, cores // workers)}  # Ray gives a process as many threads
    return ScalingConfig(num_workers=workers, resources_per_worker=share)
