"""The settings of ``jobs.label``; it imports nothing heavy."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ser_core.settings import Precision, Segments

# Statuses that another release, machine or limit may change.
Retry = Literal["decode_error", "truncated", "not_finite", "crashed", "timeout", "too_large"]
Seconds = Annotated[float, Field(gt=0, le=86_400)]  # not inf: no clock can wait for it
DEFAULT_MODEL = "xmj2002/hubert-base-ch-speech-emotion-recognition"


class LabelConfig(BaseModel):
    """Label every recording of a corpus with emotion: one Parquet row for each."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: str = Field(
        min_length=1,
        description="folder or prefix, one recording, or a manifest (.parquet, .csv, .jsonl) with a"
        " `path` column; a local path, s3://, gs:// or any fsspec URI",
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
        "first", description="label the first 6 s of a recording, or all of it in segments of 6 s"
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
        " or 600 with --segments all",
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
    verbose: bool = Field(False, description="show the output of Ray")
