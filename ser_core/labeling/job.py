"""The labelling job: plan, run, write rows, leave one row per recording and a report."""

import logging
from collections.abc import Iterable

import pyarrow as pa

from ser_core.console import counted, phase, say
from ser_core.errors import CheckError, RunError, first_few
from ser_core.labeling.config import LabelConfig
from ser_core.labeling.coverage import Coverage, coverage
from ser_core.labeling.dry_run import MOST_NAMED, describe
from ser_core.labeling.plan import Plan
from ser_core.labeling.preparation import Run, prepare
from ser_core.labeling.progress import RunStats, print_summary
from ser_core.labeling.rounds import label
from ser_core.labeling.run_report import reported
from ser_core.sources.inputs import shown
from ser_core.sources.interface import Page
from ser_core.sources.skipped import describe as describe_skipped
from ser_core.storage.claim import Claim

_UNLISTED_ROWS = {
    False: "the rows are kept, and --prune would remove them",
    True: "--prune has removed their rows",
}
_PARTS = 256  # that a listing is split into, about; each costs the driver kilobytes


def label_corpus(config: LabelConfig) -> Plan:
    """Labels what has no current row yet, and leaves exactly one row for each listed recording.

    Returns:
        What there was to do.

    Raises:
        UsageError: the command cannot run as written; nothing was written.
        RunError: the run did not finish, or nothing could be reached; what is labelled is kept.
        CheckError: more recordings have no label than was allowed; nothing was superseded.
    """
    stats = RunStats()
    run = prepare(config)
    phase("listing the input")
    if config.dry_run:
        return describe(run)
    pages = run.short_listing()
    parts = run.source.split(_PARTS) if pages is None else []
    phase("claiming the output")
    with run.store.claimed() as claim, reported(run, stats) as report:
        if pages is None:
            report.covered = label(run, parts, None, stats, claim)
        else:
            report.covered = _label_short_listing(run, pages, stats, claim)
        claim.check()
        if stats.done:
            print_summary(stats, run.store.folder.uri)
        finish(run, report.covered, stats)
    plan = stats.plan
    if not plan.to_do:
        recordings = counted(plan.listed, "recording")
        say(f"nothing to do: {recordings} listed, none without a row in {run.store.folder.uri}")
    return plan


def _label_short_listing(
    run: Run, pages: Iterable[Page], stats: RunStats, claim: Claim
) -> Coverage:
    plan, work, listed = run.plan(pages)
    if plan.known_to_0_1:
        run.store.upgrade(pa.concat_tables(plan.known_to_0_1))
    stats.listing(plan, ended=True)
    if work:
        return label(run, [listed], work, stats, claim)
    return coverage(run.store, plan, run.store.now(), prune=run.config.prune)


def finish(run: Run, covered: Coverage, stats: RunStats) -> None:
    """Makes the last checks, and leaves one row per recording.

    Raises:
        RunError: no recording could be reached, so that the corpus is not complete; or
            --prune could remove rows of recordings that are only out of reach.
        CheckError: more recordings have no label than was allowed.
    """
    plan, failed, unlisted = stats.plan, covered.failed, covered.unlisted
    _say_left_out(plan)
    _check(run, stats, failed, unlisted)
    prune = run.config.prune
    phase("removing replaced rows and merging parts")
    run.store.compact(covered.current)
    if unlisted:
        recordings = counted(unlisted, "recording")
        are = "is" if unlisted == 1 else "are"
        say(f"{recordings} with rows {are} no longer listed; {_UNLISTED_ROWS[prune]}")


def _say_left_out(plan: Plan) -> None:
    if plan.skipped:
        count = f"{counted(plan.skipped.total(), 'file')} skipped by name"
        say(f"{count} ({describe_skipped(plan.skipped)}); --include adds such files")
    if plan.unseen:
        places = counted(len(plan.unseen), "place")
        say(f"{places} cannot be listed: {first_few(plan.unseen, MOST_NAMED)}", logging.WARNING)


def _check(run: Run, stats: RunStats, failed: int, unlisted: int) -> None:
    config, plan = run.config, stats.plan
    if stats.unreachable == plan.listed:
        raise RunError(
            f"--input {shown(config.input)}: 0 of {counted(plan.listed, 'recording')} could be"
            " reached; existing labels are kept, and the same command tries again"
        )
    if config.prune and unlisted and plan.unseen:
        raise RunError(
            f"--prune: recordings may be out of reach in {plan.unseen[0]}; all rows are kept."
            " Restore it, or remove it if it is gone for good, and repeat the command"
        )
    unseen = len(plan.unseen) if config.max_failed_fraction < 1 else 0
    places = f" and {counted(unseen, 'place')} cannot be listed" if unseen else ""
    have = "has" if plan.listed == 1 else "have"
    if failed + unseen > config.max_failed_fraction * plan.listed:
        raise CheckError(
            f"{failed:,} of {counted(plan.listed, 'recording')} {have} no label{places}, more than"
            f" --max-failed-fraction {config.max_failed_fraction} allows; `error` says why for"
            " each, and no earlier row was removed"
        )
