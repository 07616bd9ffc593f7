"""Measures the network alone, on a GPU or CPUs: the card's script, its peers (`peers.py`), ours.

Waveforms come from memory, so neither Ray nor an audio decoder is required.
"""

import argparse
import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import peers
from benchmarks.measuring import full_checkpoint, lengths_of, machine, waveforms, write_result
from benchmarks.peers import Work
from ser_core.models.card import Card
from ser_core.models.checkpoint import load_checkpoint
from ser_core.models.classifier import Classifier

KINDS = ("1", "2", "3", "6", "casia")  # seconds; of longer recordings the first 6 s are used
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_IN_BATCHES = ("transformers", "pipeline", "ours")  # the others get one recording at a time


def _operations(rows: Sequence[int], *others: Any, **_: Any) -> int:
    """Of a product by oneDNN, given the shapes of its rows and of what follows."""
    weight = next(shape for shape in others if len(shape) == 2)
    return 2 * math.prod(rows) * int(weight[0])


_UNKNOWN_TO_TORCH = {torch.ops.mkldnn._linear_pointwise: _operations}


def sides(checkpoint: str, batch_size: int) -> dict[str, Work]:
    """Loads the implementations to compare, each a function from waveforms to scores."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = load_checkpoint(checkpoint)
    card = Card(checkpoint, device)
    compared: dict[str, Work] = {
        "card fp32": lambda speeches: np.stack([card.scores_of(speech) for speech in speeches]),
    }
    if device == "cpu":
        compared |= peers.on_cpus(card, torch.get_num_threads())
    ours = [Classifier(loaded, "fp32"), Classifier(loaded, "auto")]
    for precision, classifier in {each.precision: each for each in ours}.items():
        dtype = _DTYPES[precision]
        other = card if precision == "fp32" else Card(checkpoint, device, dtype)
        compared[f"transformers {precision}"] = in_batches(other, batch_size)
        compared[f"pipeline {precision}"] = peers.in_pipeline(card, dtype, batch_size)
        compared[f"ours {precision}"] = classifier.scores
    return compared


def in_batches(card: Card, batch_size: int) -> Work:
    """The card's network on batches padded to 6 s, the usual way to speed it up."""

    def scores(speeches: list[np.ndarray]) -> np.ndarray:
        starts = range(0, len(speeches), batch_size)
        return np.concatenate(
            [card.scores_of_batch(speeches[start : start + batch_size]) for start in starts]
        )

    return scores


def measure(compared: dict[str, Work], counts: dict[str, int], rounds: int) -> dict[str, Any]:
    """Recordings/s of each implementation for each length: the best of several rounds.

    The implementations take turns, so that a change of the machine's speed affects all of them.
    """
    rates: dict[str, Any] = {}
    for kind in KINDS:
        rates[kind] = dict.fromkeys(compared, 0.0)
        for turn in range(rounds + 1):  # the first round is a warm-up
            for name, scores in compared.items():
                speeches = waveforms(lengths_of(kind, counts[name]))
                if not turn:
                    scores(speeches[: max(1, len(speeches) // 4)])
                    continue
                started = time.perf_counter()
                scores(speeches)
                rate = len(speeches) / (time.perf_counter() - started)
                rates[kind][name] = max(rates[kind][name], rate)
        print(kind, {name: round(rate, 2) for name, rate in rates[kind].items()}, flush=True)
    return rates


def agreement(compared: dict[str, Work], speeches: list[np.ndarray]) -> dict[str, Any]:
    """Compares scores and labels with the card's, of all that use its weights."""
    expected = compared["card fp32"](speeches)
    agreements = {}
    for name, scores in compared.items():
        if not name.startswith(("card", "pipeline")):
            actual = scores(speeches)
            agreements[name] = {
                "largest_score_difference": float(np.abs(actual - expected).max()),
                "equal_labels": float((actual.argmax(axis=1) == expected.argmax(axis=1)).mean()),
            }
    return agreements


def limits(compared: dict[str, Work], rates: dict[str, float], kind: str) -> dict[str, Any]:
    """Compares our speed with that of its matrix products alone on this device.

    Args:
        compared: all implementations.
        rates: recordings/s of each on recordings of this kind.
        kind: one of `KINDS`.
    """
    speeches, found = waveforms(lengths_of(kind, 8)), {}
    for name, scores in compared.items():
        implementation, precision = name.split()
        if implementation == "ours":
            with FlopCounterMode(display=False, custom_mapping=_UNKNOWN_TO_TORCH) as counter:
                scores(speeches)
            operations = counter.get_total_flops() / len(speeches)
            peak = matrix_products(_DTYPES[precision])
            found[name] = {
                "operations_per_recording": operations,
                "operations_per_second_of_matrix_products": peak,
                "share_of_that": rates[name] * operations / peak,
            }
    return found


def matrix_products(dtype: torch.dtype) -> float:
    """Operations/s of large matrix products, counting multiplications and additions.

    The best of several products; for float32 on a CPU, the better of torch's two libraries.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size, rounds = (8192, 20) if device == "cuda" else (1024, 20)
    left, right = torch.randn(2, size, size, device=device).to(dtype)
    lefts = [left]
    has_onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if device == "cpu" and dtype == torch.float32 and has_onednn:
        lefts.append(left.to_mkldnn())
    seconds = []
    for rows in lefts * rounds:
        started = time.perf_counter()
        nn.functional.linear(rows, right)
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return float(2 * size**3 / min(seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    on_gpu = torch.cuda.is_available()
    parser.add_argument(
        "--recordings", type=int, default=4096 if on_gpu else 16, help="for what takes batches"
    )
    parser.add_argument(
        "--one-by-one", type=int, default=128 if on_gpu else 4, help="for the others"
    )
    parser.add_argument("--batch-size", type=int, default=128 if on_gpu else 4)
    parser.add_argument("--rounds", type=int, default=3)
    # One, as each of the job's actors has.
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    before = machine()
    with tempfile.TemporaryDirectory() as work:
        compared = sides(full_checkpoint(Path(work, "checkpoint")), flags.batch_size)
        counts = {
            name: flags.recordings if name.startswith(_IN_BATCHES) else flags.one_by_one
            for name in compared
        }
        rates = measure(compared, counts, flags.rounds)
        limited = limits(compared, rates["casia"], "casia")
        agreed = agreement(compared, waveforms(lengths_of("casia", 8 * flags.one_by_one)))
    ratios = {
        kind: {name: rate / by_name["card fp32"] for name, rate in by_name.items()}
        for kind, by_name in rates.items()
    }
    write_result(
        "classifier-gpu" if on_gpu else "classifier-cpu",
        {
            "machine": before,
            "threads": torch.get_num_threads(),
            "batch_size_of_transformers": flags.batch_size,
            "model": "95 M parameters, random weights",
            "recordings_per_second": rates,
            "times_the_card": ratios,
            "agreement_with_the_card": agreed,
            "casia_limits": limited,
        },
    )


if __name__ == "__main__":
    main()
