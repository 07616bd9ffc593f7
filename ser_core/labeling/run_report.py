"""What a run leaves about itself, however it ends: ``OUTPUT/__runs/<run>.json``."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ser_core.errors import CheckError, SerError, exit_code, one_line
from ser_core.labeling.coverage import Coverage
from ser_core.labeling.preparation import Run
from ser_core.labeling.progress import RunStats
from ser_core.versions import installed_versions

_PACKAGES = ("ser-batch", "ray", "torch", "transformers", "pyarrow", "soundfile", "soxr", "av")
_UNITS = {  # of what has none in its name
    "config.hop": "s",
    "config.decode_timeout": "s",
    "config.part_seconds": "s",
    "config.decode_memory": "GiB",
    "times_real_time": "s of audio per s",
}


@dataclass
class RunReport:
    """What is known of a run when it ends.

    Attributes:
        run: checked and ready.
        stats: of the run.
        covered: what the output has of the listing, once everything has been labelled.
    """

    run: Run
    stats: RunStats
    covered: Coverage | None = None

    def write(self, error: BaseException | None) -> None:
        """Writes the report of a run that ended with this error, or without one.

        Raises:
            RunError: it could not be written.
        """
        name = f"{self.run.started:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        content = self._outcome(error) | self._run() | self._output(error)
        content |= {"units": _UNITS, "versions": installed_versions(_PACKAGES)}
        self.run.store.write_report(name, content)

    def _outcome(self, error: BaseException | None) -> dict[str, Any]:
        if error is None:
            outcome = "complete" if self.stats.plan.to_do else "nothing_to_do"
        else:
            outcome = "check_failed" if isinstance(error, CheckError) else "incomplete"
        return {
            "outcome": outcome,
            "exit_code": exit_code(error),
            "error": None if error is None else _message(error),
            "started_at": self.run.started.isoformat(timespec="seconds"),
            "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def _run(self) -> dict[str, Any]:
        run, plan = self.run, self.stats.plan
        return {
            "config": run.config.model_dump(),
            "revision": run.checkpoint.revision,
            "model_digest": run.digest,
            "labels": list(run.checkpoint.labels),
            "listed": plan.listed,
            "skipped": dict(plan.skipped),
            "limited": plan.limited,
            "unseen": plan.unseen,
            "done_before": plan.done,
            **self.stats.report(),
        }

    def _output(self, error: BaseException | None) -> dict[str, Any]:
        """What the output has; of a run that did not finish, nobody has looked."""
        covered, complete = self.covered, error is None
        known = covered is not None and (complete or isinstance(error, CheckError))
        if covered is None or not known:
            names = "failed superseded_rows unlisted_rows pruned_rows output"
            return dict.fromkeys(names.split())
        pruned = covered.unlisted if complete and self.run.config.prune else 0
        return {
            "failed": covered.failed,
            "superseded_rows": covered.superseded if complete else 0,
            "unlisted_rows": covered.unlisted - pruned,
            "pruned_rows": pruned,
            "output": self.run.store.counts(None if complete else covered.current),
        }


@contextmanager
def reported(run: Run, stats: RunStats) -> Iterator[RunReport]:
    """Within it, a run works; however it ends, its report is written, unless it is killed.

    Raises:
        RunError: the run was done, and its report could not be written.
    """
    report = RunReport(run, stats)
    try:
        yield report
    except (Exception, KeyboardInterrupt) as error:
        with suppress(SerError):  # what ended the run may be what keeps its report from the output
            report.write(error)
        raise
    report.write(None)


def _message(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return one_line(error) if isinstance(error, SerError) else one_line(repr(error))
