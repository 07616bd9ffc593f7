"""Waveforms → scores and embeddings: precision, batches, memory; it knows neither files nor Ray."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch

from ser_core.audio.constants import SEGMENT_SAMPLES
from ser_core.errors import DeviceError, UsageError, one_line
from ser_core.models.checkpoint import Checkpoint
from ser_core.models.input_values import Stacked, normalize, stack
from ser_core.models.kernels import (
    choose_forms,
    has_matrix_instructions,
    onednn_is_faster_in_float32,
)
from ser_core.models.layers import Weights
from ser_core.models.network import Network
from ser_core.models.network_config import architecture_of
from ser_core.models.outputs import Outputs, as_float16
from ser_core.settings import Precision

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

logger = logging.getLogger(__name__)


class Batches(NamedTuple):
    """How segments are batched: how many at once, padded to multiples of how many frames."""

    size: int
    frames_per_step: int


# Measured by `python -m benchmarks.batches`. On a core, larger batches gain nothing, unless matrix
# instructions are so fast that they wait for the weights. oneDNN generates code for each shape and
# caches a thousand of them, so few distinct lengths suit it. MKL, which computes float32 elsewhere,
# accepts any length. On a GPU, larger batches gain nothing, and compiling the layers of the
# transformer gains 3% for 10 s at each start (batches-gpu.json).
_WITH_MKL = Batches(1, 1)
_WITH_ONEDNN = Batches(1, 8)
_WITH_MATRIX_INSTRUCTIONS = Batches(2, 16)
_ON_GPU = Batches(128, 8)


class Prepared(NamedTuple):
    """Recordings as batches that a device can take.

    Attributes:
        lengths: of the segments of each recording, samples.
        order: the positions of all segments, as they are in the batches.
        batches: segments of similar length, longest first.
    """

    lengths: list[list[int]]
    order: list[int]
    batches: list[Stacked]


class Classifier:
    """A checkpoint on a device: the GPU if torch has one, else the CPU.

    >>> import soundfile
    >>> from ser_core import Classifier, load_checkpoint
    >>> classifier = Classifier(load_checkpoint("examples/checkpoint"), precision="fp32")
    >>> waveform, _ = soundfile.read("examples/corpus/sad/answer-m3.wav", dtype="float32")
    >>> scores = classifier.scores([waveform, waveform[:16_000]])
    >>> scores.shape, classifier.labels[scores[0].argmax()]
    ((2, 6), 'sad')

    Attributes:
        checkpoint: as it was given.
        device: the device that computes.
        precision: ``fp32``, ``bf16`` or ``fp16``: the one chosen if ``auto`` was requested.
        batch_size: segments per forward pass; halved when memory runs out.
        before_pass: called before each forward pass, if there is anything to call.
        embeddings: whether `compute` returns them, too.
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
            checkpoint: its weights are shared, not copied, where device and precision allow.
            precision: ``auto`` is bf16 where the device has instructions for it.
            batch_size: segments per forward pass; None chooses for the device.
            num_threads: CPU threads of this process; None keeps torch's default.
            frames_per_step: segments are padded to a multiple of this many frames; None chooses
                for the device.

        Raises:
            CheckpointError: the architecture is not supported, or the weights do not match it.
            UsageError: there is no such precision, or the batch size is not positive.
        """
        if batch_size is not None and batch_size < 1:
            raise UsageError(f"batch_size {batch_size} is not positive")
        if num_threads:
            torch.set_num_threads(num_threads)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.before_pass: Callable[[], None] | None = None
        self.checkpoint = checkpoint
        self.embeddings = False
        self.precision = resolve_precision(precision, self.device)
        batches = choose_batches(self.device, self.precision)
        self.batch_size = batch_size or batches.size
        self._frames_per_step = frames_per_step or batches.frames_per_step
        self._preprocessing = checkpoint.preprocessing
        self._num_labels = len(checkpoint.labels)
        self._temperature = checkpoint.temperature
        self._network = self._build(checkpoint)

    def _build(self, checkpoint: Checkpoint) -> Network:
        """The network on the device, in the forms that are fastest there."""
        if self.precision == "fp32":
            # By default cuDNN computes float32 convolutions in TF32, with 10 bits of mantissa.
            torch.backends.cudnn.allow_tf32 = False
        architecture, dtype = architecture_of(checkpoint), _DTYPES[self.precision]
        with warnings.catch_warnings():
            # Arrays from Ray's object store are read-only; nothing here writes to a weight.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            tensors = {name: torch.from_numpy(each) for name, each in checkpoint.weights.items()}
        # The card's network takes no mask; others take one if their feature extractor returns it.
        masked = not architecture.card_head and checkpoint.preprocessing.return_attention_mask
        weights, forms = Weights(tensors, self.device, dtype), choose_forms(self.device, dtype)
        with torch.inference_mode():
            return Network(architecture, weights, forms, masked).eval()

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, in the order of the scores."""
        return self.checkpoint.labels

    @property
    def on_gpu(self) -> bool:
        """Whether it computes on a GPU."""
        return self.device.type == "cuda"

    @property
    def description(self) -> str:
        """The device and the precision, for example ``NVIDIA H100 bf16`` or ``cpu fp32``."""
        name = torch.cuda.get_device_name(self.device) if self.on_gpu else "cpu"
        return f"{name} {self.precision}"

    def scores(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Computes the probability of each class for each recording.

        A recording of several segments gets the mean of their scores, weighted by their length.

        Args:
            waveforms: mono at 16 kHz, each of shape ``(num_samples,)``, not empty; float32, or
                int16 as in a 16-bit file.

        Returns:
            float32, shape ``(len(waveforms), num_labels)``; rows sum to 1, and columns have the
            order of `labels`.

        Raises:
            UsageError: a waveform is empty or not one-dimensional.
            DeviceError: the device failed; nothing runs on it any more in this process.
        """
        return self.compute(self.prepare(waveforms)).scores

    def prepare(self, waveforms: Sequence[np.ndarray]) -> Prepared:
        """Copies waveforms into batches; other threads may compute meanwhile.

        Args:
            waveforms: as for `scores`.

        Raises:
            UsageError: as `scores` does.
            DeviceError: as `scores` does.
        """
        for shape in (waveform.shape for waveform in waveforms):
            if len(shape) != 1 or not shape[0]:
                raise UsageError(f"a waveform has the shape (num_samples,), not {shape}")
        by_recording = [list(_segments(waveform)) for waveform in waveforms]
        segments = [segment for each in by_recording for segment in each]
        order = sorted(range(len(segments)), key=lambda row: len(segments[row]), reverse=True)
        size = self.batch_size  # which `compute` may halve in the meantime
        rows_of_batches = [order[start : start + size] for start in range(0, len(order), size)]
        with self._device_errors():
            batches = [self._stack([segments[row] for row in rows]) for rows in rows_of_batches]
        lengths = [[len(segment) for segment in each] for each in by_recording]
        return Prepared(lengths, order, batches)

    def compute(self, prepared: Prepared) -> Outputs:
        """Computes the scores of what was prepared; one thread at a time.

        Scores and embeddings are the means of the segments', weighted by their length. What is
        beyond the range of float16 in an embedding becomes its largest number.

        Raises:
            DeviceError: as `scores` does.
        """
        with self._device_errors():
            flat = self._outputs(prepared)
        means = np.empty((len(prepared.lengths), flat.shape[1]), np.float32)
        start = 0
        for row, lengths in enumerate(prepared.lengths):
            end = start + len(lengths)
            means[row] = np.average(flat[start:end], axis=0, weights=lengths)
            start = end
        scores, embeddings = np.split(means, [self._num_labels], axis=1)
        return Outputs(scores, as_float16(embeddings) if self.embeddings else None)

    @contextmanager
    def _device_errors(self) -> Iterator[None]:
        try:
            yield
        except torch.AcceleratorError as error:
            raise DeviceError(f"{self.description}: {one_line(error)}") from error

    def _stack(self, segments: list[np.ndarray]) -> Stacked:
        lengths = [len(segment) for segment in segments]
        num_samples = self._network.required_samples(lengths, self._frames_per_step)
        return stack(segments, num_samples, pinned=self.on_gpu)

    def _outputs(self, prepared: Prepared) -> np.ndarray:
        """The scores of each segment, then its embedding, if it was asked for."""
        computed: list[torch.Tensor] = []
        for batch in prepared.batches:
            start = 0
            while start < len(batch.lengths):
                part = batch.part(start, start + self.batch_size)
                try:
                    computed.append(self._forward(part))
                except torch.OutOfMemoryError:
                    if len(part.lengths) == 1:
                        raise
                    self.batch_size = len(part.lengths) // 2
                    logger.warning("out of memory; continuing with batch size %d", self.batch_size)
                    torch.cuda.empty_cache()
                else:
                    start += len(part.lengths)
        if not computed:
            size = self._network.embedding_size if self.embeddings else 0
            return np.empty((0, self._num_labels + size), np.float32)
        values = torch.cat(computed).cpu().numpy()  # the only point that waits for a GPU
        outputs = np.empty_like(values)
        outputs[prepared.order] = values
        return outputs

    @torch.inference_mode()
    def _forward(self, batch: Stacked) -> torch.Tensor:
        if self.before_pass:
            self.before_pass()
        values, lengths = normalize(batch, self._preprocessing, self.device)
        pooled = self._network.pooled(values, lengths)
        logits = self._network.head(pooled)
        scores = torch.softmax(logits.float() / self._temperature, dim=-1)
        return torch.cat([scores, pooled.float()], dim=1) if self.embeddings else scores


def resolve_precision(precision: Precision, device: torch.device) -> str:
    """Resolves ``auto`` for a device: bf16 if it has instructions for it, else fp16 or fp32.

    Raises:
        UsageError: there is no such precision.

    >>> resolve_precision("fp32", torch.device("cpu"))
    'fp32'
    """
    if precision in _DTYPES:
        return precision
    if precision != "auto":
        raise UsageError(f"precision {precision!r} is not one of auto, {', '.join(_DTYPES)}")
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    capabilities = torch.cpu.get_capabilities()
    has_bf16 = any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return "bf16" if has_bf16 else "fp32"


def choose_batches(device: torch.device, precision: str) -> Batches:
    """The batches that were measured to be fastest on a kind of device.

    >>> choose_batches(torch.device("cuda"), "bf16")
    Batches(size=128, frames_per_step=8)
    """
    if device.type == "cuda":
        return _ON_GPU
    if precision == "fp32":
        return _WITH_ONEDNN if onednn_is_faster_in_float32() else _WITH_MKL
    return _WITH_MATRIX_INSTRUCTIONS if has_matrix_instructions() else _WITH_ONEDNN


def _segments(waveform: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(waveform), SEGMENT_SAMPLES):
        yield waveform[start : start + SEGMENT_SAMPLES]
