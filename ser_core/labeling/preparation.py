"""A command → a run that is checked and ready: checkpoint, input, output; it writes nothing."""

import itertools
import logging
import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa

from ser_core import cluster
from ser_core.audio.segments import Segmentation
from ser_core.audio.speech import check_installed
from ser_core.console import phase, say
from ser_core.errors import CorpusError, OutputError, names_flag
from ser_core.labeling.config import LabelConfig
from ser_core.labeling.label_store import LabelStore
from ser_core.labeling.plan import Plan, beginning, plan_page
from ser_core.labeling.row_index import RowIndex
from ser_core.labeling.rules import labeling_digest
from ser_core.labeling.stages import StageSettings
from ser_core.models.checkpoint import Checkpoint, load_checkpoint
from ser_core.models.network_config import architecture_of
from ser_core.schema import reserved_columns
from ser_core.settings import Precision
from ser_core.sources.decoder import DecoderSettings
from ser_core.sources.forms import open_source
from ser_core.sources.inputs import shown
from ser_core.sources.interface import PAGE_ROWS, InputOptions, Page, Source
from ser_core.sources.listed import ListedSource
from ser_core.storage.filesystem import absolute, is_local


def prepare(config: LabelConfig) -> "Run":
    """Makes every check that can be made before anything is written.

    Raises:
        UsageError: the command cannot run as written.
        RunError: storage cannot be reached.
    """
    started = datetime.now(UTC)
    _check_folders(config)
    cluster.check_address()
    if config.segments == "speech":
        with names_flag("--segments speech:"):
            check_installed()
    phase("loading the checkpoint")
    with names_flag("--model"):
        checkpoint = load_checkpoint(config.model, config.revision, config.segments)
        # Refuses weights that do not match before anything starts.
        architecture = architecture_of(checkpoint)
    embedding_size = architecture.hidden_size if config.embeddings else None
    options = InputOptions(config.allow_outside, config.path_column, config.include)
    source = open_source(config.input, options)
    if taken := reserved_columns(checkpoint.labels, source.columns):
        reason = f"the output has its own columns {', '.join(taken)}; rename the manifest's"
        raise CorpusError(f"--input {shown(config.input)}: {reason}")
    store = LabelStore(config.output, checkpoint.labels, source.columns, embedding_size)
    return Run(config, started, checkpoint, source, store, embedding_size)


@dataclass(frozen=True)
class Run:
    """One run of the job, checked and ready.

    Attributes:
        embedding_size: of the embeddings that its rows get; None if they get none.
    """

    config: LabelConfig
    started: datetime
    checkpoint: Checkpoint
    source: Source
    store: LabelStore
    embedding_size: int | None = None

    @property
    def stages(self) -> StageSettings:
        """What all blocks of it have in common."""
        return StageSettings(
            self.checkpoint.labels,
            self.source.columns,
            self.embedding_size,
            self.config.min_score,
        )

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

    def short_listing(self) -> Iterable[Page] | None:
        """The listing if it is about a page long or limited; others are made in the cluster.

        Raises:
            CorpusError: it cannot be listed, or is empty.
        """
        if self.config.limit is not None:
            return self.pages()
        pages, count = list[Page](), 0
        for page in self.pages():
            pages.append(page)
            count += len(page.recordings)
            if count > PAGE_ROWS:
                return None
        return pages

    @property
    def digest(self) -> str:
        """Identifies the checkpoint and how recordings become rows."""
        config = self.config
        return labeling_digest(self.checkpoint.digest, config.rows, config.hop, config.channels)

    @property
    def index_settings(self) -> tuple[str, Precision, Collection[str]]:
        """What `LabelStore.index` has to know of a run."""
        return self.digest, self.config.precision, self.config.retry

    def index(self) -> RowIndex:
        """What the store has."""
        return self.store.index(*self.index_settings)

    def plan(self, pages: Iterable[Page]) -> tuple[Plan, list[pa.Table], ListedSource]:
        """What there is to do of a listing, as far as ``--limit`` goes, and the pages with that."""
        plan, work, kept = Plan(), [], []
        for page, planned in self.planned(pages, self.index(), plan):
            if len(planned):
                work.append(planned)
                kept.append(page)
        return plan, work, ListedSource(self.source.columns, kept)

    def planned(
        self, pages: Iterable[Page], index: RowIndex, plan: Plan
    ) -> Iterator[tuple[Page, pa.Table]]:
        """The pages as far as ``--limit`` goes, with what is to be labelled of each.

        Args:
            pages: of the listing.
            index: of the output.
            plan: to which they are added.
        """
        limit = self.config.limit
        for whole in pages:
            page = whole if limit is None else beginning(whole, index, limit - plan.to_do)
            found, table = plan_page(page, self.source.columns, index)
            plan.add(found)
            plan.limited = page is not whole
            yield page, table
            if plan.limited:
                return

    @property
    def decoder(self) -> DecoderSettings:
        """How recordings are decoded."""
        config = self.config
        how = Segmentation(config.segments, config.hop, config.channels == "each")
        return DecoderSettings(how, config.decode_timeout, config.decode_memory)


def _check_folders(config: LabelConfig) -> None:
    """Refuses an output that is the input, and warns of one within the other."""
    output = _real(config.output)
    for source in map(_real, config.input):
        if source == output:
            raise OutputError(f"--output {config.output}: it is --input; choose another folder")
        for inner, flag, outer in (source, "--input", output), (output, "--output", source):
            if inner.startswith(f"{outer.rstrip('/')}/"):
                reason = f"{flag} {inner} lies in {outer}; a folder beside it would be better"
                say(reason, logging.WARNING)


def _real(uri: str) -> str:
    uri = absolute(uri)
    return os.path.realpath(uri) if is_local(uri) else uri
