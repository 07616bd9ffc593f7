"""The labelling job: plan what is to do, run it, write its rows, leave one row per recording."""

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from ser_core.console import say
from ser_core.errors import CorpusError, RunError, Status
from ser_core.labeling.config import LabelConfig
from ser_core.labeling.label_store import Done, Output, PartWriter
from ser_core.labeling.pipeline import Pipeline, choose_resources, connect
from ser_core.labeling.progress import Display, Tally, print_summary
from ser_core.labeling.stages import Blocks
from ser_core.models.checkpoint import Checkpoint, load_checkpoint
from ser_core.models.hubert import build_model
from ser_core.schema import INDEX, output_schema, plan_schema
from ser_core.sources.manifest import Corpus, open_corpus
from ser_core.versions import installed_versions

_PACKAGES = ("ser-batch", "ray", "torch", "transformers", "pyarrow", "soundfile", "soxr", "av")
_CRASHED = "the process that read it died each time, also when it read nothing else"


@dataclass
class Plan:
    """What is to do, and what was done before."""

    listed: int = 0
    done: int = 0
    done_failed: int = 0
    tables: list[pa.Table] = field(default_factory=list)

    @property
    def to_do(self) -> int:
        """How many recordings this run labels."""
        return self.listed - self.done


def label_corpus(config: LabelConfig) -> Plan:
    """Labels what has no current row yet, and leaves exactly one row for each listed recording.

    Returns:
        What there was to do.

    Raises:
        UsageError: the command cannot run as written; nothing was written.
        RunError: the run did not finish, or more failed than allowed; what is labelled is kept.
    """
    run = prepare(config)
    listing = time.monotonic()
    plan = plan_work(run.corpus, run.output.done(run.checkpoint.digest))
    if not plan.listed:
        raise CorpusError(f"--input {config.input}: no recordings there")
    tally = Tally(plan.to_do, whole=config.segments == "all")
    tally.stage_seconds["list"] = tally.started - listing
    if plan.to_do:
        say(f"{plan.listed:,} recordings, {plan.done:,} done before, {plan.to_do:,} to label")
        run.label(plan, tally)
        plan.tables.clear()  # what follows needs memory, too
        run.conclude(plan, tally)
        print_summary(tally, run.output.folder.uri)
    else:
        run.output.settle()
        say(f"nothing to do: all {plan.listed:,} recordings have rows in {run.output.folder.uri}")
    _refuse_too_many_failures(config, plan.listed, plan.done_failed + tally.failed)
    return plan


def prepare(config: LabelConfig) -> "Run":
    """Everything that can be refused before anything is written.

    Raises:
        UsageError: the command cannot run as written.
    """
    started = datetime.now(UTC)
    checkpoint = load_checkpoint(config.model, config.revision, config.segments)
    build_model(checkpoint)  # a misfit is told here, before anything starts
    corpus = open_corpus(config.input, checkpoint.labels)
    output = Output(config.output, output_schema(checkpoint.labels, corpus.columns))
    return Run(config, started, checkpoint, corpus, output)


def plan_work(corpus: Corpus, done: Done) -> Plan:
    """Lists the corpus page by page and keeps what is to do, about 150 bytes a recording."""
    plan = Plan()
    for listed in corpus.tables():
        failed = done.failed.have(listed["file_id"])
        missing = listed.filter(pa.array(~(done.ok.have(listed["file_id"]) | failed)))
        if missing.num_rows:
            index = pa.array(np.arange(plan.to_do, plan.to_do + len(missing)))
            numbered = missing.add_column(0, INDEX, index).cast(plan_schema(corpus.columns))
            plan.tables.append(numbered.combine_chunks())
        plan.listed += len(listed)
        plan.done += len(listed) - len(missing)
        plan.done_failed += int(failed.sum())
    return plan


@dataclass(frozen=True)
class Run:
    """One run of the job, checked and ready."""

    config: LabelConfig
    started: datetime
    checkpoint: Checkpoint
    corpus: Corpus
    output: Output

    def label(self, plan: Plan, tally: Tally) -> None:
        """Labels the plan and writes its rows as they come."""
        config, checkpoint, schema = self.config, self.checkpoint, self.output.schema
        blocks = Blocks(self.corpus.base, tally.whole, checkpoint.labels, self.corpus.columns)
        connect(config.verbose)
        tally.stage_seconds["start"] = tally.elapsed
        resources = choose_resources(plan.to_do)
        say(f"classifiers: {resources.classifiers}, on {'GPUs' if resources.on_gpu else 'CPUs'}")
        pipeline = Pipeline.start(
            blocks, checkpoint, config.precision, config.batch_size, resources
        )
        with PartWriter(self.output, config.part_seconds) as writer, Display(tally) as display:
            for labeled in label_plan(plan, pipeline):
                rows = blocks.finish(labeled, schema, checkpoint.name, checkpoint.digest)
                writer.add(rows)
                tally.add(labeled, rows)
                display.update()
        tally.stage_seconds["write"] = writer.write_seconds

    def conclude(self, plan: Plan, tally: Tally) -> None:
        """Leaves one row per recording, and then the report that says so."""
        superseded = self.output.settle()
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
            **tally.report(),
            "versions": installed_versions(_PACKAGES),
        }
        run_id = f"{self.started:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        self.output.write_report(run_id, report)


def label_plan(plan: Plan, pipeline: Pipeline) -> Iterator[pa.Table]:
    """A row for everything planned: what a dead process leaves out is swept again one by one."""
    seen = np.zeros(plan.to_do, bool)
    for labeled in pipeline.run(plan.tables):
        seen[labeled[INDEX.name].to_numpy()] = True
        yield labeled
    if seen.all():
        return
    say(f"{(~seen).sum():,} recordings went down with a process; each is tried again alone")
    for labeled in pipeline.run(_left_out(plan, seen), rows_per_block=1):
        seen[labeled[INDEX.name].to_numpy()] = True
        yield labeled
    for planned in _left_out(plan, seen):
        yield pipeline.blocks.failed(planned, Status.CRASHED, _CRASHED)


def _left_out(plan: Plan, seen: np.ndarray) -> list[pa.Table]:
    rest = (table.filter(pa.array(~seen[table[INDEX.name].to_numpy()])) for table in plan.tables)
    return [table for table in rest if table.num_rows]


def _refuse_too_many_failures(config: LabelConfig, listed: int, failed: int) -> None:
    if failed > config.max_failed_fraction * listed:
        raise RunError(
            f"{failed:,} of {listed:,} recordings have no label, more than"
            f" --max-failed-fraction {config.max_failed_fraction} allows; `error` says why for each"
        )
