"""Waveforms → scores: precision, padding, batches, memory back-off; no files and no Ray here."""

import logging
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import nn

from ser_core.audio.constants import FULL_SCALE, SEGMENT_SAMPLES
from ser_core.models.checkpoint import Checkpoint, Preprocessing
from ser_core.models.cpu_kernels import (
    has_matrix_instructions,
    onednn_is_faster_in_float32,
    use_cpu_kernels,
)
from ser_core.models.hubert import build_model, is_card_style
from ser_core.models.padding import ElidedClassifier, can_elide
from ser_core.settings import Precision

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_VARIANCE_FLOOR = 1e-7  # Wav2Vec2FeatureExtractor.zero_mean_unit_var_norm

logger = logging.getLogger(__name__)


class Batches(NamedTuple):
    """How segments go through the network: so many at once, lengths in steps of so many frames."""

    size: int
    frames_per_step: int


# Measured by `python -m benchmarks.batches`. On a core larger batches gain nothing, except where
# matrix instructions are so fast that they wait for the weights. oneDNN generates code for each
# shape and keeps that of a thousand: few lengths suit it. MKL, which has float32 elsewhere, takes
# any.
_BY_MKL = Batches(1, 1)
_BY_ONEDNN = Batches(1, 8)
_WITH_MATRIX_INSTRUCTIONS = Batches(2, 16)
_ON_GPU = Batches(128, 8)  # not measured yet: few shapes should pay


class Classifier:
    """A checkpoint on a device.

    Attributes:
        device: where it computes.
        precision: what ``auto`` became.
        batch_size: segments per forward pass; halved when memory runs out.
        transfer_seconds: spent so far on padding and moving to the device.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        precision: Precision = "auto",
        batch_size: int | None = None,
        num_threads: int | None = None,
        frames_per_step: int | None = None,
    ) -> None:
        """Builds the network.

        Args:
            checkpoint: the weights; shared, not copied, where device and precision allow.
            precision: ``auto`` is bf16 where the device has its instructions.
            batch_size: segments per forward pass; None chooses for the device.
            num_threads: CPU threads of this process; None leaves torch's own choice.
            frames_per_step: lengths are rounded up to so many frames; None chooses for the device.
        """
        if num_threads:
            torch.set_num_threads(num_threads)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.precision = resolve_precision(precision, self.device)
        batches = choose_batches(self.device, self.precision)
        self.batch_size = batch_size or batches.size
        self._frames_per_step = frames_per_step or batches.frames_per_step
        self._preprocessing = checkpoint.preprocessing
        # The card's network takes no mask; a standard one takes what its extractor returns.
        standard = not is_card_style(checkpoint.config)
        self._masked = standard and checkpoint.preprocessing.return_attention_mask
        self._num_labels = len(checkpoint.labels)
        self.transfer_seconds = 0.0
        self._temperature = checkpoint.temperature
        if self.precision == "fp32":
            torch.backends.cudnn.allow_tf32 = False  # its own fp32 convolutions have 10 bits
        built = build_model(checkpoint)
        self._model = cast(nn.Module, built)
        self._model.to(self.device, _DTYPES[self.precision])
        if not self._masked and can_elide(built):
            self._model = ElidedClassifier(built)
            if not self.on_gpu:
                use_cpu_kernels(built, self._model.most_frames)

    @property
    def on_gpu(self) -> bool:
        """Whether it computes on a GPU."""
        return self.device.type == "cuda"

    @property
    def description(self) -> str:
        """The device and its precision, as in ``NVIDIA H100 bf16`` or ``cpu fp32``."""
        name = torch.cuda.get_device_name(self.device) if self.on_gpu else "cpu"
        return f"{name} {self.precision}"

    def scores(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """The probability of each class for each recording.

        A recording of several segments gets the mean of theirs, weighted by their length.

        Args:
            waveforms: mono at 16 kHz, each of shape ``(num_samples,)``, not empty; float32, or
                int16 as in a 16-bit file.

        Returns:
            float32, shape ``(len(waveforms), num_labels)``; rows sum to 1.
        """
        segments = [list(_segments(waveform)) for waveform in waveforms]
        flat = self._probabilities([segment for of_one in segments for segment in of_one])
        scores = np.empty((len(waveforms), self._num_labels), np.float32)
        start = 0
        for row, of_one in enumerate(segments):
            weights = [len(segment) for segment in of_one]
            scores[row] = np.average(flat[start : start + len(of_one)], axis=0, weights=weights)
            start += len(of_one)
        return scores

    def _probabilities(self, segments: list[np.ndarray]) -> np.ndarray:
        """Softmax of the logits, in batches of segments of about one length, longest first."""
        order = sorted(range(len(segments)), key=lambda row: len(segments[row]), reverse=True)
        batches: list[torch.Tensor] = []
        start = 0
        while start < len(order):
            rows = order[start : start + self.batch_size]
            try:
                batches.append(self._forward([segments[row] for row in rows]))
            except torch.OutOfMemoryError:
                if len(rows) == 1:
                    raise
                self.batch_size = len(rows) // 2
                logger.warning("out of memory: going on with batches of %d", self.batch_size)
                torch.cuda.empty_cache()
            else:
                start += len(rows)
        probabilities = np.empty((len(segments), self._num_labels), np.float32)
        if batches:
            probabilities[order] = torch.cat(batches).cpu().numpy()  # here a GPU is waited for
        return probabilities

    @torch.inference_mode()
    def _forward(self, segments: list[np.ndarray]) -> torch.Tensor:
        started, num_samples = time.perf_counter(), SEGMENT_SAMPLES
        if isinstance(self._model, ElidedClassifier):
            longest = max(map(len, segments))
            num_samples = self._model.samples_for(longest, self._frames_per_step)
        values, mask = pad_and_normalize(segments, self._preprocessing, self.device, num_samples)
        self.transfer_seconds += time.perf_counter() - started
        if isinstance(self._model, ElidedClassifier):
            logits = self._model(values)
        else:
            logits = self._model(values.to(_DTYPES[self.precision]), mask if self._masked else None)
        return torch.softmax(logits.float() / self._temperature, dim=-1)


def resolve_precision(precision: Precision, device: torch.device) -> str:
    """What ``auto`` means on a device: bf16 where its instructions exist, else fp32.

    >>> resolve_precision("fp32", torch.device("cpu"))
    'fp32'
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    has = torch.cpu.get_capabilities()
    return "bf16" if has.get("avx512_bf16") or has.get("amx_bf16") or has.get("bf16") else "fp32"


def choose_batches(device: torch.device, precision: str) -> Batches:
    """What was measured to be fast there.

    >>> choose_batches(torch.device("cuda"), "bf16")
    Batches(size=128, frames_per_step=8)
    """
    if device.type == "cuda":
        return _ON_GPU
    if precision == "fp32":
        return _BY_ONEDNN if onednn_is_faster_in_float32() else _BY_MKL
    return _WITH_MATRIX_INSTRUCTIONS if has_matrix_instructions() else _BY_ONEDNN


def _segments(waveform: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(waveform), SEGMENT_SAMPLES):
        yield waveform[start : start + SEGMENT_SAMPLES]


def pad_and_normalize(
    segments: Sequence[np.ndarray],
    preprocessing: Preprocessing,
    device: torch.device,
    num_samples: int = SEGMENT_SAMPLES,
) -> tuple[torch.Tensor, torch.Tensor]:
    """``input_values`` and ``attention_mask`` as ``Wav2Vec2FeatureExtractor`` makes them.

    It pads to 6 s first and normalises then, so that without an attention mask the padding counts
    in the mean and the variance, and ends as −mean/std.

    Args:
        segments: mono, float32 or int16, each of shape ``(num_samples,)`` with at most 96,000
            samples.
        preprocessing: the checkpoint's settings.
        device: where the tensors go, and where they are normalised.
        num_samples: of the 6 s, how many are wanted; not fewer than any segment has.

    Returns:
        float32 and int64 tensors of shape ``(len(segments), num_samples)``.
    """
    padding = preprocessing.padding_value
    values, lengths = _stacked(segments, num_samples, device)
    mask = torch.arange(num_samples, device=device) < lengths[:, None]
    values = torch.where(mask, values, padding)
    if preprocessing.do_normalize:
        masked = preprocessing.return_attention_mask
        heard = mask if masked else torch.ones_like(mask)
        beyond = 0 if masked else SEGMENT_SAMPLES - num_samples  # padding that counts, unseen
        count = heard.sum(dim=1, keepdim=True) + beyond
        mean = ((values * heard).sum(dim=1, keepdim=True) + beyond * padding) / count
        centered = values - mean
        squares = (centered.square() * heard).sum(dim=1, keepdim=True)
        variance = (squares + beyond * (padding - mean).square()) / count
        values = centered / torch.sqrt(variance + _VARIANCE_FLOOR)
        if masked:
            values = torch.where(mask, values, padding)
    return values, mask.long()


def _stacked(
    segments: Sequence[np.ndarray], num_samples: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Segments on the device as float32, zeros behind them, and their lengths.

    Where all have 16 bits they move as such; from pinned memory, while the device computes.
    """
    on_gpu, pcm = device.type == "cuda", all(segment.dtype == np.int16 for segment in segments)
    dtype = torch.int16 if pcm else torch.float32
    stacked = torch.zeros((len(segments), num_samples), dtype=dtype, pin_memory=on_gpu)
    for row, segment in zip(stacked.numpy(), segments, strict=True):
        as_stacked = pcm or segment.dtype != np.int16
        row[: len(segment)] = segment if as_stacked else segment / FULL_SCALE
    values = stacked.to(device, non_blocking=True).float()
    lengths = torch.tensor([len(segment) for segment in segments])
    return values / FULL_SCALE if pcm else values, lengths.to(device)
