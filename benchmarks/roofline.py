"""Counts what a window of 6 s takes on a GPU: operations, and bytes that are read and written.

Nothing is computed: the network gets tensors without data, in the forms and batches of a GPU. Each
function of torch that is called counts as one kernel, which reads its inputs and writes its outputs
once; a batch shares the reading of the weights.
"""

import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measuring import full_checkpoint, write_result
from ser_core.audio.constants import SEGMENT_SAMPLES
from ser_core.models.checkpoint import Checkpoint, load_checkpoint
from ser_core.models.classifier import choose_batches
from ser_core.models.input_values import Stacked, normalize
from ser_core.models.kernels import choose_forms
from ser_core.models.layers import Weights
from ser_core.models.network import Network
from ser_core.models.network_config import architecture_of

_PARTS = {
    "matrix products": {"linear", "baddbmm", "bmm", "matmul", "__matmul__"},
    "attention": {"scaled_dot_product_attention"},
    "GELU": {"gelu"},
    "layer norms": {"layer_norm"},
    "Fourier transforms": {"rfft", "irfft"},
}
_OTHERS = "sums, copies and normalization"


class Traffic(TorchFunctionMode):
    """Counts what the functions of torch do that are called within it.

    Attributes:
        operations: by part of the network; a multiplication and an addition are two.
        moved: bytes by part.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: defaultdict[str, int] = defaultdict(int)
        self.moved: defaultdict[str, int] = defaultdict(int)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Calls the function, and counts it unless it only returns views of its inputs."""
        kwargs = kwargs or {}
        with FlopCounterMode(display=False) as counter:
            result = func(*args, **kwargs)
        read, written = _tensors([args, kwargs]), _tensors(result)
        name = str(resolve_name(func)).rpartition(".")[2]
        if name == "__setitem__" or not _storages(written) <= _storages(read):
            part = next((part for part, names in _PARTS.items() if name in names), _OTHERS)
            self.operations[part] += counter.get_total_flops()
            self.moved[part] += sum(each.numel() * each.itemsize for each in read + written)
        return result


def _tensors(values: Any) -> list[torch.Tensor]:
    leaves = torch.utils._pytree.tree_leaves(values)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _storages(tensors: list[torch.Tensor]) -> set[int]:
    """Identifies their memory; without data, all addresses are 0."""
    return {tensor.untyped_storage()._cdata for tensor in tensors}


def count(checkpoint: Checkpoint) -> dict[str, dict[str, float]]:
    """Operations and bytes of a window, by part of the network."""
    device, dtype = torch.device("meta"), torch.bfloat16
    size = choose_batches(torch.device("cuda"), "bf16").size
    weights = {name: torch.from_numpy(each) for name, each in checkpoint.weights.items()}
    forms = choose_forms(torch.device("cuda"), dtype)
    with torch.inference_mode():
        network = Network(architecture_of(checkpoint), Weights(weights, device, dtype), forms)
        stacked = Stacked(
            torch.empty(size, SEGMENT_SAMPLES, dtype=torch.int16, device=device),
            torch.full((size,), SEGMENT_SAMPLES, device=device),
        )
        with Traffic() as traffic:
            network(*normalize(stacked, checkpoint.preprocessing, device))
    return {
        part: {"operations": traffic.operations[part] / size, "bytes": moved / size}
        for part, moved in traffic.moved.items()
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as work:
        parts = count(load_checkpoint(full_checkpoint(Path(work, "checkpoint"))))
    write_result("roofline", {"torch": torch.__version__, "of_a_window": parts})


if __name__ == "__main__":
    main()
