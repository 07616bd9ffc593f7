"""The settings of ``jobs.verify``; it imports nothing heavy."""

from pydantic import BaseModel, ConfigDict, Field

from ser_core.settings import SEED


class VerifyConfig(BaseModel):
    """Compare a sample of labels with the model card's own script on the same recordings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: str = Field(min_length=1, description="output folder of jobs.label; a path or URI")
    sample: int = Field(
        100, ge=1, le=100_000, description="rows to draw; a CPU core takes about a second for each"
    )
    model: str | None = Field(
        None,
        min_length=1,
        description="hub id, folder or URI of the checkpoint; by default that of the newest rows",
    )
    revision: str | None = Field(
        None, description="branch, tag or commit of a hub id; by default that of the newest run"
    )
    seed: int = Field(SEED, ge=0, description="draws other rows")
    tolerance: float | None = Field(
        None,
        gt=0,
        le=1,
        description="largest difference of a score; by default that of the precision of each row",
    )
    output: str | None = Field(
        None, min_length=1, description="folder for verification.json; by default, none is written"
    )
