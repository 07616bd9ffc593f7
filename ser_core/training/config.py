"""The settings of ``jobs.train`` and ``jobs.compare_splits``; it imports nothing heavy."""

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_settings import CliSuppress

from ser_core.settings import SEED, Precision, SplitMethod

DEFAULT_MODEL = "TencentGameMate/chinese-hubert-base"


class TrainConfig(BaseModel):
    """Fine-tune a HuBERT on a corpus with truth; the defaults are the model card's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    corpus: str = Field(description="how the corpus names its files, as casia; or `manifest`")
    data: str = Field(description="the corpus's folder, or the manifest; a path or fsspec URI")
    output: str = Field(description="folder for the checkpoints; a run that is there goes on")
    model: str = Field(
        DEFAULT_MODEL,
        description="hub id, folder or URI of a HuBERT to start from; or the path of a config.json,"
        " to start from scratch",
    )
    revision: str | None = Field(None, description="branch, tag or commit of a hub id")
    split: SplitMethod = Field(
        "random", description="what test shares with training; a manifest's own column wins"
    )
    held_out: str | None = Field(None, description="test speaker of leave-one-speaker-out")
    seed: int = Field(34, ge=0, description="of the split and of all that is drawn")
    epochs: int = Field(30, ge=1, description="passes over the recordings")
    batch_size: int = Field(36, ge=1, description="recordings per step, over all devices")
    learning_rate: float = Field(2e-4, gt=0, description="the head's; the body has a fifth of it")
    precision: Precision = Field("auto", description="auto is bf16 on GPUs and fp32 on CPUs")
    accumulate: int = Field(1, ge=1, description="forward passes per batch where memory is short")
    gradient_checkpointing: bool = Field(
        False, description="compute activations twice rather than keep them"
    )
    calibrate: bool = Field(
        False, description="fit a temperature on validation, which the checkpoint carries"
    )
    workers: int | None = Field(
        None, ge=1, description="processes; by default one for each GPU, or one on CPUs"
    )
    note: str | None = Field(None, description="a paragraph for the checkpoints' model cards")
    verbose: bool = Field(False, description="show what Ray says")


class CompareSplitsConfig(TrainConfig):
    """Train on a corpus split at random, by speaker, and by speaker and sentence, and compare."""

    output: str = Field(description="folder for the table and the runs; finished runs are kept")
    seed: int = Field(SEED, ge=0, description="the first of the seeds, which count on from it")
    seeds: int = Field(3, ge=1, description="how many runs of each protocol")
    split: CliSuppress[SplitMethod] = Field("random", description="not to be chosen")
    held_out: CliSuppress[str | None] = Field(None, description="not to be chosen")

    @field_validator("split", "held_out")
    @classmethod
    def _refuse(cls, value: str | None) -> str | None:
        if value not in ("random", None):  # the defaults
            raise ValueError("the protocols are all run in turn; leave it out")
        return value
