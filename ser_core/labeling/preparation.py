"""A command → a run that is checked and ready: checkpoint, input, output; it writes nothing."""

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from ser_core import cluster
from ser_core.audio.segments import Segmentation
from ser_core.audio.speech import check_installed
from ser_core.console import say
from ser_core.errors import CorpusError, OutputError
from ser_core.labeling.config import LabelConfig
from ser_core.labeling.label_store import LabelStore
from ser_core.labeling.plan import Plan, make_plan
from ser_core.labeling.rules import labeling_digest
from ser_core.models.build import build_model
from ser_core.models.checkpoint import Checkpoint, load_checkpoint
from ser_core.schema import reserved_columns
from ser_core.sources.decoder import DecoderSettings
from ser_core.sources.forms import open_source
from ser_core.sources.inputs import shown
from ser_core.sources.interface import InputOptions, Page, Source
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
        check_installed()
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
        return make_plan(pages, self.source.columns, done, self.config.limit)

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
                say(f"warning: {flag} {inner} lies in {outer}; a folder beside it would be better")


def _real(uri: str) -> str:
    uri = absolute(uri)
    return os.path.realpath(uri) if is_local(uri) else uri
