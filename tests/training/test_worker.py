"""Why training stopped: one line for what another try may not meet, a traceback for a bug."""

import re

import pytest
from ray.exceptions import RayActorError

from ser_core.training.worker import _explain

TRACEBACK = """\
Traceback (most recent call last):
  File "trainer.py", line 1, in train_epoch
{}"""


class FailedTrainingError(Exception):
    """What Ray Train raises, with the failures by rank; a worker's own is told by its traceback."""

    def __init__(self, **failures):
        super().__init__("\n".join(map(str, failures.values())))
        self.worker_failures = failures


def explain(last_line):
    return _explain(FailedTrainingError(rank_1=RuntimeError(TRACEBACK.format(last_line))), "/out")


def test_a_bug_of_one_of_several_workers_is_its_traceback():
    expected = f"a bug stopped training:\n{TRACEBACK.format('IndexError: Target 8')}"
    assert explain("IndexError: Target 8") == expected


@pytest.mark.parametrize(
    ("last_line", "expected"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory.", r"out of memory; rerun .*"),
        ("RuntimeError: DefaultCPUAllocator: can't allocate memory", r"out of memory; rerun .*"),
        (
            "ser_core.errors.RunError: a checkpoint could not be written (no answer)",
            r"training stopped \(a checkpoint could not be written \(no answer\)\); rerun .*",
        ),
    ],
)
def test_what_is_no_bug_is_one_line(last_line, expected):
    message = explain(last_line)
    assert re.fullmatch(expected, message)  # . does not match the end of a line


def test_a_dead_worker_is_the_reason_whatever_the_others_raised():
    error = FailedTrainingError(
        rank_0=RuntimeError(TRACEBACK.format("RuntimeError: Connection closed by peer")),
        rank_1=RayActorError(),
    )
    assert _explain(error, "/out").startswith("training stopped (a worker process died); rerun ")
