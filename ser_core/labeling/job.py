"""The labelling job: plan, run, write rows, leave one row per recording and a report."""

import itertools
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa

from ser_core import cluster
from ser_core.console import say
from ser_core.errors import CorpusError, RunError
from ser_core.labeling.config import LabelConfig
from ser_core.labeling.label_store import LabelStore
from ser_core.labeling.part_writer import PartWriter
from ser_core.labeling.pipeline import PipelineSettings, connect, label_plan, share
from ser_core.labeling.plan import Plan, make_plan
from ser_core.labeling.progress import Display, RunStats, print_summary
from ser_core.labeling.resources import choose_resources
from ser_core.labeling.stages import StageSettings, output_rows
from ser_core.models.build import build_model
from ser_core.models.checkpoint import Checkpoint, load_checkpoint
from ser_core.schema import reserved_columns
from ser_core.sources.decoder import DecoderSettings
from ser_core.sources.forms import list_pages, open_source
from ser_core.sources.interface import Page, Source
from ser_core.storage.claim import Claim
from ser_core.versions import installed_versions

_PACKAGES = ("ser-batch", "ray", "torch", "transformers", "pyarrow", "soundfile", "soxr", "av")


def label_corpus(config: LabelConfig) -> Plan:
    """Labels what has no current row yet, and leaves exactly one row for each listed recording.

    Returns:
        What there was to do.

    Raises:
        UsageError: the command cannot run as written; nothing was written.
        RunError: the run did not finish, nothing could be reached, or more failed than allowed;
            what is labelled is kept.
    """
    run = prepare(config)
    pages = run.pages()
    with run.store.claimed() as claim:
        started = time.monotonic()
        done = run.store.done(run.checkpoint.digest, config.precision)
        plan = make_plan(pages, run.source.columns, done)
        stats = RunStats(plan.to_do, whole=config.segments == "all")
        stats.stage_seconds["list"] = stats.started - started
        if plan.to_do:
            say(f"{plan.listed:,} recordings, {plan.done:,} already done, {plan.to_do:,} to label")
            run.label(plan, stats, claim)
            plan.tables.clear()  # what follows needs memory, too
        claim.check()
        run.finish(plan, stats)
    if plan.to_do:
        print_summary(stats, run.store.folder.uri)
    else:
        say(f"nothing to do: all {plan.listed:,} recordings have rows in {run.store.folder.uri}")
    _refuse_too_many_failures(config, plan, stats)
    return plan


def prepare(config: LabelConfig) -> "Run":
    """Makes every check that can be made before anything is written.

    Raises:
        UsageError: the command cannot run as written.
    """
    started = datetime.now(UTC)
    cluster.check_address()
    checkpoint = load_checkpoint(config.model, config.revision, config.segments)
    build_model(checkpoint)  # refuses weights that do not match before anything starts
    source = open_source(config.input)
    if taken := reserved_columns(checkpoint.labels, source.columns):
        reason = f"the output has its own columns {', '.join(taken)}; rename the manifest's"
        raise CorpusError(f"--input {config.input}: {reason}")
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
        pages = list_pages(self.config.input, self.source)
        first = next(pages, None)
        if first is None:
            raise CorpusError(f"--input {self.config.input}: there are no recordings")
        return itertools.chain([first], pages)

    def label(self, plan: Plan, stats: RunStats, claim: Claim) -> None:
        """Labels the plan and writes its rows as they come."""
        config, checkpoint, schema = self.config, self.checkpoint, self.store.schema
        stages = StageSettings(checkpoint.labels, self.source.columns)
        origin = {"model": checkpoint.name, "model_digest": checkpoint.digest}
        connect(config.verbose)
        stats.stage_seconds["start"] = stats.elapsed
        resources = choose_resources(plan.to_do)
        say(f"classifiers: {resources.classifiers}, on {'GPUs' if resources.on_gpu else 'CPUs'}")
        whole = config.segments == "all"
        decoder = DecoderSettings(whole, config.decode_timeout, config.decode_memory)
        settings = PipelineSettings(
            stages, decoder, share(checkpoint), config.precision, config.batch_size, resources
        )
        writer = PartWriter(self.store, config.part_seconds)
        with writer, Display(stats) as display:
            for labeled in label_plan(plan, settings):
                claim.check()
                rows = output_rows(labeled, stages, schema, origin, self.store.now())
                writer.add(rows)
                stats.add(labeled, rows)
                display.update()
        stats.stage_seconds["write"] = writer.write_seconds

    def finish(self, plan: Plan, stats: RunStats) -> None:
        """Leaves one row per recording, and then the report that says so.

        Raises:
            RunError: no recording could be reached, so that the corpus is not complete.
        """
        known = pa.concat_tables(plan.known_to_0_1) if plan.known_to_0_1 else None
        superseded = self.store.compact(known) if plan.to_do or known else 0
        if stats.unreachable == plan.listed:
            raise RunError(
                f"--input {self.config.input}: none of the {plan.listed:,} recordings could be"
                " reached; existing labels are kept, and the same command tries again"
            )
        report = {
            "started_at": self.started.isoformat(timespec="seconds"),
            "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "config": self.config.model_dump(),
            "revision": self.checkpoint.revision,
            "model_digest": self.checkpoint.digest,
            "labels": list(self.checkpoint.labels),
            "listed": plan.listed,
            "done_before": plan.done,
            "superseded_rows": superseded,
            **stats.report(),
            "output": self.store.counts(),
            "versions": installed_versions(_PACKAGES),
        }
        self.store.write_report(f"{self.started:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}", report)


def _refuse_too_many_failures(config: LabelConfig, plan: Plan, stats: RunStats) -> None:
    failed = plan.done_failed + stats.failed
    if failed > config.max_failed_fraction * plan.listed:
        raise RunError(
            f"{failed:,} of {plan.listed:,} recordings have no label, more than"
            f" --max-failed-fraction {config.max_failed_fraction} allows; `error` says why for each"
        )
