"""Why training stopped: one line for what another try may not meet, a traceback for a bug."""

import re
import time
from types import SimpleNamespace

import pytest
from ray.exceptions import GetTimeoutError, RayActorError

from ser_core.errors import OutputError, RunError
from ser_core.training import driver
from ser_core.training.driver import _best_checkpoint, _Callback, _explain, _Watchdog

TRACEBACK = """\
Traceback (most recent call last):
  File "trainer.py", line 1, in train_epoch
{}"""
BUG = f"a bug stopped training:\n{TRACEBACK.format('IndexError: Target 8')}"


class FailedWorkersError(Exception):
    """What Ray Train raises after too many failures of workers, with the last ones by rank."""

    def __init__(self, **failures):
        super().__init__("\n".join(map(str, failures.values())))
        self.worker_failures = failures


class FailedControllerError(Exception):
    """What Ray Train raises when the controller has failed."""

    def __init__(self, failure):
        super().__init__(f"Training failed due to controller error:\n{failure}")
        self.controller_failure = failure


class DeadWorkerError(Exception):
    """What Ray Train makes of the exception of a worker that does not answer."""

    health_check_failure = RayActorError()


def stopped(reason):
    remedy = "rerun the same command to continue after the last finished epoch"
    return f"training stopped ({reason}); {remedy}"


def test_a_run_without_checkpoints_is_one_line():
    with pytest.raises(RunError) as caught:
        _best_checkpoint(SimpleNamespace(best_checkpoints=[]))
    assert str(caught.value) == stopped("no checkpoint was stored")


def test_a_bug_is_its_traceback():
    assert _explain(FailedControllerError(RunError(BUG)), "/out") == BUG


@pytest.mark.parametrize(
    ("last_line", "expected"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory.", r"out of memory; rerun .*"),
        ("RuntimeError: DefaultCPUAllocator: can't allocate memory", r"out of memory; rerun .*"),
        ("RuntimeError: NCCL error", r"training stopped \(RuntimeError: NCCL error\); rerun .*"),
    ],
)
def test_what_is_no_bug_is_one_line(last_line, expected):
    message = _explain(FailedWorkersError(rank_1=RuntimeError(TRACEBACK.format(last_line))), "/out")
    assert re.fullmatch(expected, message)  # . does not match the end of a line


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (RunError("a checkpoint could not be written (no answer)"), "a checkpoint could not .*"),
        (OSError(28, "No space left on device"), r"the output .*: .*No space left.*"),
        (RuntimeError("The worker group startup timed out after 60 s. Causes:\n1"), ".* free"),
        (RayActorError(), "a worker process died"),
    ],
)
def test_a_failure_of_the_controller_is_one_line(failure, reason):
    message = _explain(FailedControllerError(failure), "/out")
    assert re.fullmatch(rf"training stopped \({reason}\)?\); rerun .*", message)


def test_a_dead_worker_is_the_reason_whatever_the_others_raised():
    error = FailedWorkersError(
        rank_0=RuntimeError(TRACEBACK.format("RuntimeError: Connection closed by peer")),
        rank_1=DeadWorkerError(),
    )
    assert _explain(error, "/out") == stopped("a worker process died")


def test_a_dead_controller_is_the_reason():
    assert _explain(RayActorError(), "/out") == stopped("Ray Train's controller died")


def test_only_what_another_try_may_not_meet_is_tried_again():
    callback = _Callback("/out")
    callback.after_exception(None, {0: RuntimeError("CUDA error"), 1: DeadWorkerError()})
    with pytest.raises(RunError, match="a bug"):
        callback.after_exception(None, {0: RuntimeError("gloo"), 1: RunError(BUG)})


class Silent:
    """An actor that never answers."""

    class count:  # noqa: N801
        @staticmethod
        def remote():
            raise GetTimeoutError


def test_a_run_without_a_sign_of_life_ends(monkeypatch):
    watchdog = _Watchdog(Silent, lambda: None)
    watchdog.check()
    later = time.monotonic() + 1801
    monkeypatch.setattr(time, "monotonic", lambda: later)
    with pytest.raises(RunError, match=r"no worker has given a sign of life for 18\d\d s\); rerun"):
        watchdog.check()


def test_heartbeats_keep_a_run_alive(monkeypatch):
    counts = iter([1, 2, 2])
    monkeypatch.setattr(driver.ray, "get", lambda *_, **__: next(counts))
    times = iter([0.0, 1000.0, 1000.0, 2500.0, 2500.0, 4400.0])
    # The module's name, not the function: other threads ask for the time, too.
    monkeypatch.setattr(driver, "time", SimpleNamespace(monotonic=lambda: next(times)))

    class Actor:
        class count:  # noqa: N801
            remote = staticmethod(lambda: None)

    watchdog = _Watchdog(Actor, lambda: None)
    watchdog.check()
    watchdog.check()
    with pytest.raises(RunError, match="for 1900 s"):
        watchdog.check()


def test_a_folder_that_is_lost_ends_the_run():
    def lost():
        raise OutputError("another run took the folder over")

    with pytest.raises(OutputError, match="took the folder over"):
        _Watchdog(Silent, lost).check()
