"""The labelling job: plan, run, write rows, leave one row per recording and a report."""

import itertools
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from ser_core import cluster
from ser_core.audio.segments import Segmentation
from ser_core.console import say
from ser_core.errors import CheckError, CorpusError, OutputError, RunError
from ser_core.labeling.assembly import assembled_rows
from ser_core.labeling.config import LabelConfig
from ser_core.labeling.label_store import LabelStore
from ser_core.labeling.part_writer import PartWriter
from ser_core.labeling.pipeline import PipelineSettings, connect, label_plan, share
from ser_core.labeling.plan import Plan, make_plan
from ser_core.labeling.progress import Display, RunStats, print_summary
from ser_core.labeling.resources import choose_resources
from ser_core.labeling.rules import labeling_digest, useful_rows
from ser_core.labeling.stages import StageSettings, output_rows
from ser_core.models.build import build_model
from ser_core.models.checkpoint import Checkpoint, load_checkpoint
from ser_core.schema import reserved_columns
from ser_core.sources.decoder import DecoderSettings
from ser_core.sources.forms import open_source
from ser_core.sources.inputs import shown
from ser_core.sources.interface import InputOptions, Page, Source
from ser_core.storage.claim import Claim
from ser_core.storage.filesystem import absolute, is_local
from ser_core.versions import installed_versions

_UNLISTED_ROWS = {
    False: "the rows are kept, and --prune would remove them",
    True: "--prune has removed their rows",
}
_PACKAGES = ("ser-batch", "ray", "torch", "transformers", "pyarrow", "soundfile", "soxr", "av")


def label_corpus(config: LabelConfig) -> Plan:
    """Labels what has no current row yet, and leaves exactly one row for each listed recording.

    Returns:
        What there was to do.

    Raises:
        UsageError: the command cannot run as written; nothing was written.
        RunError: the run did not finish, or nothing could be reached; what is labelled is kept.
        CheckError: more recordings have no label than was allowed; nothing was superseded.
    """
    run = prepare(config)
    pages = run.pages()
    with run.store.claimed() as claim:
        started = time.monotonic()
        plan = run.plan(pages)
        stats = RunStats(plan.to_do)
        stats.stage_seconds["list"] = stats.started - started
        if plan.to_do:
            say(f"{plan.listed:,} recordings, {plan.done:,} already done, {plan.to_do:,} to label")
            run.label(plan, stats, claim)
            plan.tables.clear()  # what follows needs memory, too
            print_summary(stats, run.store.folder.uri)
        claim.check()
        run.finish(plan, stats)
    if not plan.to_do:
        say(f"nothing to do: all {plan.listed:,} recordings have rows in {run.store.folder.uri}")
    return plan


def prepare(config: LabelConfig) -> "Run":
    """Makes every check that can be made before anything is written.

    Raises:
        UsageError: the command cannot run as written.
        RunError: storage cannot be reached.
    """
    started = datetime.now(UTC)
    _check_folders(config)
    cluster.check_address()
    checkpoint = load_checkpoint(config.model, config.revision, config.segments)
    build_model(checkpoint)  # refuses weights that do not match before anything starts
    options = InputOptions(config.allow_outside, config.path_column, config.include)
    source = open_source(config.input, options)
    if taken := reserved_columns(checkpoint.labels, source.columns):
        reason = f"the output has its own columns {', '.join(taken)}; rename the manifest's"
        raise CorpusError(f"--input {shown(config.input)}: {reason}")
    store = LabelStore(config.output, checkpoint.labels, source.columns)
    return Run(config, started, checkpoint, source, store)


@dataclass(frozen=True)
class Run:
    """One run of the job, checked and ready."""

    config: LabelConfig
    started: datetime
    checkpoint: Checkpoint
    source: Source
    store: LabelStore

    def pages(self) -> Iterator[Page]:
        """The listing, its first page already read.

        Raises:
            CorpusError: it cannot be listed, or is empty.
        """
        pages = self.source.pages()
        first = next(pages, None)
        if first is None:
            raise CorpusError(f"--input {shown(self.config.input)}: there are no recordings")
        return itertools.chain([first], pages)

    @property
    def digest(self) -> str:
        """Identifies the checkpoint and how recordings become rows."""
        config = self.config
        return labeling_digest(self.checkpoint.digest, config.rows, config.hop, config.channels)

    def plan(self, pages: Iterator[Page]) -> Plan:
        """What is listed, less what the store has."""
        done = self.store.done(self.digest, self.config.precision, self.config.retry)
        plan = make_plan(pages, self.source.columns, done)
        if plan.known_to_0_1:
            self.store.upgrade(pa.concat_tables(plan.known_to_0_1))
        return plan

    def label(self, plan: Plan, stats: RunStats, claim: Claim) -> None:
        """Labels the plan and writes its rows as they come."""
        config, checkpoint, schema = self.config, self.checkpoint, self.store.schema
        stages = StageSettings(checkpoint.labels, self.source.columns)
        origin = {"model": checkpoint.name, "model_digest": self.digest}
        connect(config.verbose)
        stats.stage_seconds["start"] = stats.elapsed
        resources = choose_resources(plan.to_do)
        say(f"classifiers: {resources.classifiers}, on {'GPUs' if resources.on_gpu else 'CPUs'}")
        how = Segmentation(config.segments, config.hop, config.channels == "each")
        decoder = DecoderSettings(how, config.decode_timeout, config.decode_memory)
        settings = PipelineSettings(
            stages, decoder, share(checkpoint), config.precision, config.batch_size, resources
        )
        final = self.store.rows().final_hashes
        writer = PartWriter(self.store, config.part_seconds)
        with writer, Display(stats) as display:
            for labeled in label_plan(plan, settings):
                claim.check()
                assembled = assembled_rows(labeled, checkpoint.labels, config.rows)
                rows = output_rows(assembled, stages, schema, origin, self.store.now())
                writer.add(useful_rows(rows, final))
                stats.add(labeled, rows)
                display.update()
                if stats.outage:
                    inputs = shown(config.input)
                    raise RunError(f"--input {inputs}: the storage has stopped answering")
        stats.stage_seconds["write"] = writer.write_seconds

    def finish(self, plan: Plan, stats: RunStats) -> None:
        """Makes the last checks, leaves one row per recording, and writes the report.

        Raises:
            RunError: no recording could be reached, so that the corpus is not complete; or
                --prune could remove rows of recordings that are only out of reach.
            CheckError: more recordings have no label than was allowed.
        """
        listed = np.sort(np.concatenate(plan.identity_hashes))
        rows = self.store.rows()
        failed, unlisted = rows.without_label(listed), rows.unlisted(listed)
        if plan.unseen:
            say(f"{len(plan.unseen):,} links or folders cannot be listed, such as {plan.unseen[0]}")
        self._check(plan, stats, failed, unlisted)
        prune = self.config.prune
        superseded = self.store.compact(listed if prune else None)
        if unlisted:
            say(f"{unlisted:,} recordings with rows are no longer listed; {_UNLISTED_ROWS[prune]}")
        report = {
            "started_at": self.started.isoformat(timespec="seconds"),
            "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "config": self.config.model_dump(),
            "revision": self.checkpoint.revision,
            "model_digest": self.digest,
            "labels": list(self.checkpoint.labels),
            "listed": plan.listed,
            "done_before": plan.done,
            "failed": failed,
            "superseded_rows": superseded,
            "unlisted_rows": 0 if prune else unlisted,
            "pruned_rows": unlisted if prune else 0,
            **stats.report(),
            "output": self.store.counts(),
            "versions": installed_versions(_PACKAGES),
        }
        self.store.write_report(f"{self.started:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}", report)

    def _check(self, plan: Plan, stats: RunStats, failed: int, unlisted: int) -> None:
        config = self.config
        if stats.unreachable == plan.listed:
            raise RunError(
                f"--input {shown(config.input)}: none of the {plan.listed:,} recordings could be"
                " reached; existing labels are kept, and the same command tries again"
            )
        if config.prune and unlisted and plan.unseen:
            raise RunError(
                f"--prune: recordings may be out of reach in {plan.unseen[0]}; all rows are kept."
                " Restore it, or remove it if it is gone for good, and repeat the command"
            )
        if failed > config.max_failed_fraction * plan.listed:
            raise CheckError(
                f"{failed:,} of {plan.listed:,} recordings have no label, more than"
                f" --max-failed-fraction {config.max_failed_fraction} allows; `error` says why for"
                " each, and no earlier row was removed"
            )


def _check_folders(config: LabelConfig) -> None:
    """Refuses an output that is the input, and warns of one within the other."""
    output = _real(config.output)
    for source in map(_real, config.input):
        if source == output:
            raise OutputError(f"--output {config.output}: it is --input; choose another folder")
        for inner, flag, outer in (source, "--input", output), (output, "--output", source):
            if inner.startswith(f"{outer.rstrip('/')}/"):
                say(f"warning: {flag} {inner} lies in {outer}; a folder beside it would be better")


def _real(uri: str) -> str:
    uri = absolute(uri)
    return os.path.realpath(uri) if is_local(uri) else uri
