"""``preprocessor_config.json`` → how waveforms become ``input_values``; without torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ser_core.audio.constants import SAMPLING_RATE
from ser_core.settings import Segments


@dataclass(frozen=True)
class Preprocessing:
    """The settings in ``preprocessor_config.json``, and which segments are used.

    The field names are part of a checkpoint's digest.

    Attributes:
        do_normalize: normalize each segment to zero mean and unit variance.
        return_attention_mask: exclude the padding from the mean and the variance.
        padding_value: the value of the padding, before normalization.
        segments: which part of a recording is classified: its first 6 s or all of it.
    """

    do_normalize: bool
    return_attention_mask: bool
    padding_value: float
    segments: Segments


def preprocessing_of(
    preprocessor: Mapping[str, Any], segments: Segments = "first"
) -> Preprocessing:
    """Reads the settings from ``preprocessor_config.json``; the defaults are the model card's.

    Raises:
        ValueError: a setting is not usable.
    """
    rate = preprocessor.get("sampling_rate", SAMPLING_RATE)
    if rate != SAMPLING_RATE:
        raise ValueError(f"expects {rate!r} Hz; only 16 kHz is supported")
    normalize = preprocessor.get("do_normalize", True)
    masked = preprocessor.get("return_attention_mask", False)
    padding = preprocessor.get("padding_value", 0.0)
    if not isinstance(normalize, bool) or not isinstance(masked, bool):
        raise ValueError("do_normalize and return_attention_mask must be true or false")
    if type(padding) not in (int, float) or not -1 <= padding <= 1:
        raise ValueError("padding_value must be a number from -1 to 1, as samples are")
    return Preprocessing(normalize, masked, padding, segments)
