"""The table of jobs, and ``ser-batch``, the command that offers them as subcommands."""

import argparse
import logging
import os
import pkgutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel

from jobs.command import add_version, interruptible, run
from ser_core.console import phase, say
from ser_core.errors import hint
from ser_core.evaluation.config import EvaluateConfig
from ser_core.labeling.config import LabelConfig
from ser_core.reporting.config import ReportConfig
from ser_core.training.config import CompareSplitsConfig, TrainConfig
from ser_core.verification.config import VerifyConfig

# What Ray starts on this machine is not for others: its ports are on 127.0.0.1. Ray reads this, its
# switch for systems without clusters, when it is imported.
_LOOPBACK = ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")


@dataclass(frozen=True)
class Job:
    """What it does in a line, its config class, and the function that runs it, ``module:name``.

    The function is named rather than imported, because importing it loads torch or Ray: that waits
    until the arguments are known to be right.
    """

    summary: str
    config: type[BaseModel]
    function: str

    def __call__(self, config: BaseModel) -> object:
        """Imports the function and calls it with the config."""
        if not os.environ.get("RAY_ADDRESS"):
            os.environ.setdefault(*_LOOPBACK)
        phase("loading libraries")
        function = pkgutil.resolve_name(self.function)
        with interruptible():
            return function(config)


JOBS = {
    "label": Job(
        "label every recording of a corpus with emotion",
        LabelConfig,
        "ser_core.labeling.job:label_corpus",
    ),
    "train": Job(
        "fine-tune a checkpoint on a corpus with truth",
        TrainConfig,
        "ser_core.training.job:train",
    ),
    "evaluate": Job(
        "compare labels with truth and write a report",
        EvaluateConfig,
        "ser_core.evaluation.job:evaluate_labels",
    ),
    "report": Job(
        "summarize labels, find drift, say what to doubt",
        ReportConfig,
        "ser_core.reporting.job:report_labels",
    ),
    "verify": Job(
        "compare labels with the model card's own script",
        VerifyConfig,
        "ser_core.verification.job:verify_labels",
    ),
    "compare-splits": Job(
        "train on random, speaker and sentence splits",
        CompareSplitsConfig,
        "ser_core.training.compare_splits:compare_splits",
    ),
}


def run_job(name: str, argv: Sequence[str], prog: str) -> int:
    """Runs the job of this name and returns the exit code; ``prog`` names it in ``--help``."""
    job = JOBS[name]
    return run(job.config, job, argv, prog)


def main() -> int:
    """Runs ``ser-batch`` and returns the exit code."""
    command, *rest = sys.argv[1:] or [""]
    if command in JOBS:
        return run_job(command, rest, prog=f"ser-batch {command}")
    if command in ("-h", "--help", "--version"):
        _parser().parse_args([command])  # prints and exits with 0
    say(_unknown(command), logging.ERROR)
    return 2


def _parser() -> argparse.ArgumentParser:
    """The parser that prints ``ser-batch --help`` and ``--version``."""
    width = max(map(len, JOBS))
    commands = "\n".join(f"  {name:{width}}  {job.summary}" for name, job in JOBS.items())
    parser = argparse.ArgumentParser(
        prog="ser-batch",
        usage="%(prog)s COMMAND [FLAGS]",
        description=f"Labels large speech corpora with emotion.\n\ncommands:\n{commands}",
        epilog="`ser-batch COMMAND --help` lists the flags of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_version(parser)
    return parser


def _unknown(command: str) -> str:
    if not command:
        return "a command is missing; `ser-batch --help` lists them"
    suggestion = hint(command, JOBS, "`ser-batch --help` lists them")
    return f"there is no command {command}; {suggestion}"


if __name__ == "__main__":
    sys.exit(main())
