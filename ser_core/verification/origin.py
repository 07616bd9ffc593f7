"""What made the rows of a folder: the checkpoint, and how recordings were cut into segments."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, get_args

from ser_core.audio.constants import SEGMENT_SECONDS
from ser_core.console import counted
from ser_core.errors import CheckError, CorpusError, first_few, names_flag
from ser_core.labeling.current_rows import Labels
from ser_core.labeling.rules import labeling_digest
from ser_core.labeling.run_reports import run_reports
from ser_core.models.checkpoint import Checkpoint, for_segments, load_checkpoint
from ser_core.settings import Channels, Rows, Segments
from ser_core.verification.sample import origins


@dataclass(frozen=True)
class Cutting:
    """How recordings became rows: settings of `jobs.label`."""

    segments: Segments = "first"
    rows: Rows = "recording"
    hop: float = SEGMENT_SECONDS
    channels: Channels = "mix"

    @property
    def can_be_verified(self) -> bool:
        """Whether a row says which stretches of its recording it was made of."""
        return self.rows == "segment" or self.segments != "speech"


@dataclass(frozen=True)
class Origin:
    """The checkpoint that made rows of a folder, and how many of those that are current.

    Attributes:
        model: where it is.
        revision: its commit on the hub, if it is there.
        digest: of the checkpoint; that of a row covers how it was cut as well.
        cuttings: of the rows that can be compared, by their `model_digest`.
        rows: how many these are.
        rows_of_others: how many other checkpoints have made.
        rows_without_stretches: how many do not say what they were made of.
    """

    model: str
    revision: str | None
    digest: str
    cuttings: Mapping[str, Cutting]
    rows: int
    rows_of_others: int
    rows_without_stretches: int


def find_origin(labels: Labels, model: str | None, revision: str | None) -> Origin:
    """Loads the checkpoint and finds which rows it has made.

    Args:
        labels: the folder.
        model: ``--model``; None for that of the newest rows.
        revision: ``--revision``; None for that of the run that made the newest rows.

    Raises:
        UsageError: there is nothing to compare, or the checkpoint cannot be loaded.
        CheckError: other checkpoints have made all current rows.
    """
    made_by = origins(labels)
    if made_by.empty:
        raise CorpusError(f"--labels {labels.folder.uri}: no current row has a label")
    reports = list(run_reports(labels.folder).values())
    if model is None:
        model, digest = map(str, made_by.loc[0, ["model", "model_digest"]])
        same = [each for each in reports if each["config"].get("model") == model]
        same.sort(key=lambda each: each.get("model_digest") != digest)  # the newest stay first
        revision = revision or next((each.get("revision") for each in same), None)
    with names_flag("--model"):
        checkpoint = load_checkpoint(model, revision)
    made = cuttings(checkpoint, reports)
    verifiable = {digest: each for digest, each in made.items() if each.can_be_verified}
    counts = made_by.groupby("model_digest")["rows"].sum()
    origin = Origin(
        model,
        revision,
        checkpoint.digest,
        verifiable,
        rows=int(counts[counts.index.isin(verifiable)].sum()),
        rows_of_others=int(counts[~counts.index.isin(made)].sum()),
        rows_without_stretches=int(counts[counts.index.isin(made.keys() - verifiable)].sum()),
    )
    _check(origin, labels.folder.uri, list(counts.index))
    return origin


def _check(origin: Origin, labels: str, digests: Sequence[str]) -> None:
    if origin.rows:
        return
    if origin.rows_without_stretches:
        raise CorpusError(
            f"--labels {labels}: rows of --segments speech do not say which stretches they are of;"
            " label with --rows segment to compare them"
        )
    made = counted(origin.rows_of_others, "current label")
    raise CheckError(
        f"--model {origin.model}: another checkpoint made the {made} in {labels}: their"
        f" model_digest is {first_few(digests)}, and its own {origin.digest}"
    )


def cuttings(checkpoint: Checkpoint, reports: Sequence[Mapping[str, Any]]) -> dict[str, Cutting]:
    """The `model_digest` of every row that the checkpoint may have made, and how it was cut.

    A run that was killed left no report, so the usual settings are tried as well.
    """
    candidates = dict.fromkeys([*_usual(), *_reported(reports)])
    by_segments = {each: for_segments(checkpoint, each).digest for each in get_args(Segments)}
    return {
        labeling_digest(by_segments[each.segments], each.rows, each.hop, each.channels): each
        for each in candidates
    }


def _usual() -> Iterator[Cutting]:
    choices = product(get_args(Segments), get_args(Rows), get_args(Channels))
    for segments, rows, channels in choices:
        yield Cutting(segments, rows, channels=channels)


def _reported(reports: Sequence[Mapping[str, Any]]) -> Iterator[Cutting]:
    usual = Cutting()
    for report in reports:
        config = report["config"]
        names = ("segments", "rows", "hop", "channels")
        values = {name: config.get(name, getattr(usual, name)) for name in names}
        if values["segments"] in get_args(Segments) and isinstance(values["hop"], int | float):
            yield Cutting(**values)
