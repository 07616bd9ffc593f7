"""The choices that several jobs offer; it imports nothing heavy."""

from typing import Literal

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Rows = Literal["recording", "segment"]
Channels = Literal["mix", "each"]
Segments = Literal["first", "all", "speech"]  # of a recording: its first 6 s, all, or its speech
SplitMethod = Literal["random", "speaker", "speaker-sentence", "leave-one-speaker-out"]

SEED = 34  # the model card's
