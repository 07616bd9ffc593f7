"""The settings of ``jobs.evaluate``; it imports nothing heavy."""

from pydantic import BaseModel, ConfigDict, Field


class EvaluateConfig(BaseModel):
    """Compare labels with truth: metrics, their intervals, and a page that shows them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: str = Field(description="output folder of jobs.label; a path or URI")
    truth: str | None = Field(
        None,
        description="manifest (.parquet, .csv, .jsonl) with `path` and `truth` or `label`; by"
        " default the column `truth` of the labels",
    )
    split: str | None = Field(
        None, description="evaluate only recordings with this value of `split`, such as test"
    )
    audio: bool = Field(
        True,
        description="put the first 6 s of the recordings that are worth hearing into the page",
    )
    output: str = Field(description="folder for metrics.json, tables, figures and the page")
