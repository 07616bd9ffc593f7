"""The choices that several jobs offer; it imports nothing heavy."""

from typing import Literal

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Segments = Literal["first", "all"]  # of a recording: its first 6 s, or all, 6 s at a time
SplitMethod = Literal["random", "speaker", "speaker-sentence", "leave-one-speaker-out"]

SEED = 34  # the model card's
