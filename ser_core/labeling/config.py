"""The settings of ``jobs.label``; it imports nothing heavy."""

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from ser_core.audio.constants import SEGMENT_SECONDS
from ser_core.settings import Channels, Precision, Rows, Segments

# Statuses that another release, machine or limit may change.
Retry = Literal["decode_error", "truncated", "not_finite", "crashed", "timeout", "too_large"]


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("is blank; is a variable unset?")
    return text


def _as_tuple(value: object) -> object:
    """One text in a settings file is a list of one."""
    return (value,) if isinstance(value, str) else value


Texts = Annotated[
    tuple[Annotated[str, AfterValidator(_not_blank)], ...], BeforeValidator(_as_tuple)
]
Seconds = Annotated[float, Field(gt=0, le=86_400)]  # not inf: no clock can wait for it
DEFAULT_MODEL = "xmj2002/hubert-base-ch-speech-emotion-recognition"


class LabelConfig(BaseModel):
    """Label every recording of a corpus with emotion: one Parquet row for each."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: Texts = Field(
        min_length=1,
        description="one or more folders or prefixes, recordings, manifests (.csv, .jsonl, …),"
        " shards (.tar), Parquet files with audio, Kaldi directories, lists of paths (.txt), or"
        " quoted patterns ('calls/**/*.flac', 'shards/{000..999}.tar'); local paths, s3://, gs://"
        " or any fsspec URI",
    )
    include: Texts = Field(
        (), description="names that are recordings besides those of audio files, as in '*.raw'"
    )
    path_column: str | None = Field(
        None, min_length=1, description="a manifest's column of paths; by default the usual names"
    )
    output: str = Field(min_length=1, description="folder for the labels; existing labels are kept")
    model: str = Field(
        DEFAULT_MODEL, min_length=1, description="hub id, folder or URI of the checkpoint"
    )
    revision: str | None = Field(None, description="branch, tag or commit of a hub id")
    precision: Precision = Field(
        "auto", description="auto is bf16 where supported; fp32 gives the model card's numbers"
    )
    segments: Segments = Field(
        "first",
        description="label the first 6 s of a recording, or all of it in windows of 6 s, or only"
        " where somebody speaks; with --rows segment, all is the default",
    )
    rows: Rows = Field(
        "recording",
        description="one row per recording, with the mean of its segments' scores weighted by"
        " their length, or one row per segment, with its start and end",
    )
    hop: Seconds = Field(
        SEGMENT_SECONDS,
        ge=0.1,
        description="from the start of one window to that of the next, s, with --segments all",
    )
    channels: Channels = Field(
        "mix", description="label the mix of a recording's channels, or each channel in its own row"
    )
    min_score: float | None = Field(
        None,
        ge=0,
        le=1,
        description="mark rows whose score is lower: `quality` has the word low_score",
    )
    embeddings: bool = Field(
        False, description="keep what the model's head gets of each recording, as `embedding`"
    )
    batch_size: int | None = Field(
        None,
        ge=1,
        description="segments per forward pass; by default chosen for the hardware",
    )
    max_failed_fraction: float = Field(
        1.0, ge=0, le=1, description="exit with 3 if more of the corpus than this has no label"
    )
    prune: bool = Field(
        False, description="remove the rows of recordings that --input no longer lists"
    )
    allow_outside: bool = Field(
        False, description="let a manifest name files outside its folder and other storage"
    )
    decode_timeout: Seconds | None = Field(
        None,
        description="time to decode one recording, s, without waiting for storage; by default 60,"
        " or 600 with --segments all or speech",
    )
    decode_memory: float = Field(
        2.0,
        gt=0,
        le=4096,
        description="memory to decode one recording, GiB; what needs more is not labelled",
    )
    retry: tuple[Retry, ...] = Field(
        (), description="statuses to try again though the file is the same, as after a larger limit"
    )
    part_seconds: Seconds = Field(
        60.0,
        description="write labels at least this often, s; a killed run loses no more than this",
    )
    limit: int | None = Field(
        None, ge=1, description="label no more than so many recordings, as a trial"
    )
    dry_run: bool = Field(
        False, description="say what there is to do, and how long it may take; write nothing"
    )
    verbose: bool = Field(False, description="show the output of Ray")

    @model_validator(mode="before")
    @classmethod
    def _all_segments_have_rows(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("rows") == "segment":
            return {"segments": "all"} | values
        return values

    @model_validator(mode="after")
    def _windows_hop(self) -> "LabelConfig":
        if self.hop != SEGMENT_SECONDS and self.segments != "all":
            raise ValueError("--hop is for --segments all")
        return self

    @model_validator(mode="after")
    def _a_trial_removes_nothing(self) -> "LabelConfig":
        if self.limit is not None and self.prune:
            raise ValueError("--limit and --prune exclude each other: a trial lists only a part")
        return self
