"""The settings of ``jobs.report``; it imports nothing heavy."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)


def _iso(moment: object) -> object:
    """Numbers are dates without hyphens: pydantic would take them for seconds since 1970."""
    if not isinstance(moment, str | int):
        return moment
    try:
        return datetime.fromisoformat(str(moment))
    except ValueError:
        raise ValueError("it is no date, such as 2026-11-26 or 2026-11-26T18:00") from None


def _in_utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


Moment = Annotated[datetime, BeforeValidator(_iso), AfterValidator(_in_utc)]


class ReportConfig(BaseModel):
    """Report on a folder of labels: what it says, what changed, and whether to believe it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: str = Field(min_length=1, description="output folder of jobs.label; a path or URI")
    output: str = Field(
        min_length=1, description="folder for the page, summary.json and summary.parquet"
    )
    baseline: str | None = Field(
        None, min_length=1, description="another folder of labels, to compare with"
    )
    since: Moment | None = Field(
        None,
        description="compare the rows made at this date or time, UTC, or later with the earlier"
        " ones; 2026-11-26 or 2026-11-26T18:00",
    )
    fail_on_drift: bool = Field(
        False, description="exit with 3 if the labels differ from those they are compared with"
    )
    slice_by: tuple[str, ...] = Field(
        (),
        description="columns by which the corpus is divided; by default those of the manifest, the"
        " folder, the sampling rate and the channel",
    )
    examples: int = Field(
        5, ge=0, le=100, description="recordings to listen to, of each kind; 0 for none"
    )
    audio: bool = Field(
        True, description="put the first 6 s of these recordings into the page, to be played there"
    )

    @model_validator(mode="after")
    def _compares_with_one(self) -> "ReportConfig":
        if self.baseline is not None and self.since is not None:
            raise ValueError("--baseline and --since exclude each other")
        if self.fail_on_drift and self.baseline is None and self.since is None:
            raise ValueError("--fail-on-drift needs --baseline or --since")
        return self
