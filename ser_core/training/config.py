"""The settings of ``jobs.train`` and ``jobs.compare_splits``; it imports nothing heavy."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_settings import CliSuppress

from ser_core.settings import SEED, Precision, SplitMethod

DEFAULT_MODEL = "TencentGameMate/chinese-hubert-base"
# The limits are far beyond what is useful, and within what numpy, scikit-learn and torch accept.
Count = Annotated[int, Field(ge=1, le=100_000)]


class TrainConfig(BaseModel):
    """Fine-tune a HuBERT on a corpus with truth; the defaults are the model card's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    corpus: str = Field(
        description="corpus whose file names carry the truth, such as casia; or `manifest`"
    )
    data: str = Field(description="the corpus's folder, or the manifest; a path or fsspec URI")
    output: str = Field(
        description="folder or URI for the checkpoints; an interrupted run there is continued"
    )
    model: str = Field(
        DEFAULT_MODEL,
        description="hub id, folder or URI of a HuBERT to start from; or the path of a config.json,"
        " to train from scratch",
    )
    revision: str | None = Field(None, description="branch, tag or commit of a hub id")
    split: SplitMethod = Field(
        "random",
        description="how to split the corpus; a manifest's own `split` column takes precedence",
    )
    held_out: str | None = Field(None, description="test speaker of leave-one-speaker-out")
    seed: int = Field(
        SEED,
        ge=0,
        le=2**31,
        description="seed of the split, the new weights, the order and dropout",
    )
    epochs: Count = Field(30, description="passes over the training recordings")
    batch_size: Count = Field(36, description="recordings per step, over all workers")
    learning_rate: float = Field(
        2e-4, gt=0, le=1, description="learning rate of the head; the body's is a fifth of it"
    )
    precision: Precision = Field("auto", description="auto is bf16 on GPUs and fp32 on CPUs")
    accumulate: Count = Field(
        1, description="forward passes per batch; more of them need less memory"
    )
    gradient_checkpointing: bool = Field(
        False, description="recompute activations instead of storing them; slower, less memory"
    )
    calibrate: bool = Field(
        False, description="fit a temperature on validation and store it in the checkpoint"
    )
    workers: Count | None = Field(
        None, description="worker processes; by default one per GPU, or one on CPUs"
    )
    note: str | None = Field(None, description="a paragraph for the checkpoints' model cards")
    verbose: bool = Field(False, description="show Ray's own messages")


class CompareSplitsConfig(TrainConfig):
    """Train on a corpus split at random, by speaker, and by speaker and sentence, and compare."""

    output: str = Field(
        description="folder or URI for the table and the runs; finished runs are kept"
    )
    seed: int = Field(SEED, ge=0, le=2**30, description="the first seed; the others follow it")
    seeds: Count = Field(3, description="runs per split method, each with its own seed")
    split: CliSuppress[SplitMethod] = Field("random", description="not used: all are compared")
    held_out: CliSuppress[str | None] = Field(None, description="not used")

    @field_validator("split", "held_out")
    @classmethod
    def _refuse(cls, value: str | None) -> str | None:
        if value not in ("random", None):  # the defaults
            raise ValueError("every split method is run; leave it out")
        return value
