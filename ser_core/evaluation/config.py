"""The settings of ``jobs.evaluate``; it imports nothing heavy."""

from pydantic import BaseModel, ConfigDict, Field


class EvaluateConfig(BaseModel):
    """Compare labels with truth: metrics, their intervals, and one page that shows them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: str = Field(description="folder of labels, as jobs.label leaves it; a path or URI")
    truth: str | None = Field(
        None,
        description="manifest (.parquet, .csv, .jsonl) with `path` and `truth` or `label`; without,"
        " the labels' own column `truth`",
    )
    split: str | None = Field(None, description="only what `split` says is this, as test")
    output: str = Field(description="folder for metrics.json, tables, pictures and the page")
