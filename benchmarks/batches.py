"""Measures which batches suit a device: size, padding of lengths, compilation.

Waveforms come from memory, so neither Ray nor an audio decoder is required.
"""

import argparse
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measuring import casia_lengths, full_checkpoint, machine, waveforms, write_result
from ser_core.models.checkpoint import Checkpoint, load_checkpoint
from ser_core.models.classifier import Classifier, resolve_precision

STEPS = (1, 8, 16, 32)  # frames of 20 ms


def measure(
    checkpoint: Checkpoint,
    speeches: list[np.ndarray],
    rows_per_call: int,
    rounds: int,
    **options: Any,
) -> dict[str, Any]:
    """Recordings/s with one set of options, the best of several rounds, and the first round's time.

    Args:
        checkpoint: the weights.
        speeches: waveforms at 16 kHz.
        rows_per_call: recordings per call of the classifier.
        rounds: measured after one warm-up round.
        options: arguments of `Classifier`, and whether the transformer is ``compiled``.
    """
    compiled = options.pop("compiled")
    classifier = Classifier(checkpoint, num_threads=1, **options)
    if compiled:  # one layer, for all shapes; the others have the same code
        torch.compiler.reset()
        for layer in classifier._network.layers:
            layer.compile(dynamic=True)
    starts = range(0, len(speeches), rows_per_call)
    calls = [speeches[start : start + rows_per_call] for start in starts]
    seconds = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        for call in calls:
            classifier.scores(call)
        seconds.append(time.perf_counter() - started)
    result = {
        **options,
        "precision": classifier.precision,
        "compiled": compiled,
        "recordings_per_second": len(speeches) / min(seconds[1:]),
        "first_round_seconds": seconds[0],
    }
    print(result, flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    on_gpu = torch.cuda.is_available()
    parser.add_argument("--recordings", type=int, default=4096 if on_gpu else 128)
    parser.add_argument(
        "--rows-per-call",
        type=int,
        default=512 if on_gpu else 8,
        help="recordings per block of the job",
    )
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[64, 128, 256, 512] if on_gpu else [1, 2, 4, 8]
    )
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS, help="frames of 20 ms")
    parser.add_argument(
        "--compiled", type=int, nargs="+", choices=(0, 1), default=[0, 1] if on_gpu else [0]
    )
    flags = parser.parse_args()
    fast = resolve_precision("auto", torch.device("cuda" if on_gpu else "cpu"))
    precisions = [fast] if on_gpu or fast == "fp32" else ["fp32", fast]
    before = machine()
    with tempfile.TemporaryDirectory() as work:
        checkpoint = load_checkpoint(full_checkpoint(Path(work, "checkpoint")))
        speeches = waveforms(casia_lengths(flags.recordings))
        forms = [
            measure(
                checkpoint, speeches, flags.rows_per_call, flags.rounds,
                precision=precision, batch_size=size, frames_per_step=step, compiled=bool(compiled),
            )
            for precision, size, step, compiled in product(
                precisions, flags.sizes, flags.steps, flags.compiled
            )
        ]  # fmt: skip
    write_result(
        "batches-gpu" if on_gpu else "batches-cpu",
        {
            "machine": before,
            "model": "95 M parameters, random weights",
            "recordings": f"{flags.recordings} of CASIA's lengths",
            "rows_per_call": flags.rows_per_call,
            "threads": 1,
            "forms": forms,
        },
    )


if __name__ == "__main__":
    main()
