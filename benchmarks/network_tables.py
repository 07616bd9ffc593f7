"""The tables and sentences of README.md and docs/performance.md on the network alone."""

from collections.abc import Iterator
from operator import itemgetter
from typing import Any

from benchmarks.measuring import cpu_of, markdown_table, read_result

KINDS = {"casia": "CASIA's mix", "real": "real, about 2 s"}
# Operations/s and bytes/s that an NVIDIA H100 is taken to reach.
_H100 = (798e12, 3e12)
_KERNELS = {  # parts of the network → words in the names of their kernels
    "matrix products": ("nvjet", "gemm"),
    "attention": ("sdpa",),
    "GELU": ("Gelu",),
    "layer norms": ("layer_norm",),
    "Fourier transforms": ("fft",),
}


def network_tables() -> Iterator[list[str]]:
    """The tables, each as lines of Markdown."""
    for name in ("classifier-cpu", "classifier-gpu"):
        result = read_result(name)
        for precision in ("fp32", "bf16"):
            yield _rates(result, precision)
    yield _batches(read_result("batches-cpu"))
    yield _roofline(read_result("roofline")["of_a_window"], read_result("gpu"))


def network_sentences() -> Iterator[tuple[str, str]]:
    """The sentences, each with the document that contains it."""
    result = read_result("classifier-cpu")
    yield "README.md", _best_peers(result)
    yield "docs/performance.md", _peers_agree(result["agreement_with_the_card"])
    yield "docs/performance.md", _limits(result["casia_limits"])
    yield "docs/performance.md", _least(read_result("roofline")["of_a_window"])


# ---- tables --------------------------------------------------------------------------------------


def _rates(result: dict[str, Any], precision: str) -> list[str]:
    """Recordings/s of the network alone, and how many times the card's rate that is; ours last."""
    rates, ratios = result["recordings_per_second"], result["times_the_card"]
    first = next(iter(rates.values()))
    sides = [side for side in first if side.endswith(precision)]
    sides.sort(key=lambda side: side.startswith("ours"))
    rows = [
        [
            KINDS.get(kind, f"{kind} s"),
            *(f"{rates[kind][side]:.2f} ({ratios[kind][side]:.1f} ×)" for side in sides),
        ]
        for kind in rates
    ]
    header = [side.removesuffix(f" {precision}") for side in sides]
    return markdown_table([f"recordings/s, {precision}", *header], rows)


def _batches(result: dict[str, Any]) -> list[str]:
    """Recordings/s by precision, batch size and the step that lengths are rounded up to."""
    key = itemgetter("precision", "batch_size", "compiled", "frames_per_step")
    rates = {key(form): form["recordings_per_second"] for form in result["forms"]}
    columns = dict.fromkeys(form[:2] for form in rates)
    rows = [
        [
            f"{step} frame{'s' if step > 1 else ''}{', compiled' if compiled else ''}",
            *(f"{rates[*column, compiled, step]:,.2f}" for column in columns),
        ]
        for compiled, step in sorted({form[2:] for form in rates})
    ]
    header = (f"{precision}, batches of {size}" for precision, size in columns)
    return markdown_table(["lengths rounded up to", *header], rows)


def _roofline(parts: dict[str, Any], gpu: dict[str, Any]) -> list[str]:
    """What a window takes, the least time for it on two GPUs, and the time measured on one."""
    h200 = tuple(
        gpu[what]
        for what in ("operations_per_second_of_a_large_product", "bytes_per_second_of_a_copy")
    )
    profile = gpu["kernels"]["6"]
    kernels, total = profile["by_kernel"].items(), profile["milliseconds"]
    batch = int(profile["batch"].split()[0])  # as in "128 × 6 s"
    measured = {
        part: sum(ms for name, ms in kernels if any(word in name for word in words))
        for part, words in _KERNELS.items()
    }
    rows, sums = [], [0.0] * 5
    for part, of_window in sorted(parts.items(), key=lambda each: -each[1]["bytes"]):
        figures = [
            of_window["operations"] / 1e9,
            of_window["bytes"] / 1e6,
            batch * 1000 * _seconds(of_window, _H100),
            batch * 1000 * _seconds(of_window, h200),
            measured.get(part, total - sum(measured.values())),
        ]
        rows.append([part, *_as_text(figures)])
        sums = [sum(each) for each in zip(sums, figures, strict=True)]
    rows.append(["all", *_as_text(sums)])
    header = ["GFLOP", "MB", "H100, at least", "H200, at least", "H200, measured"]
    return markdown_table(["part of the network", *header], rows)


def _as_text(figures: list[float]) -> list[str]:
    operations, moved, *milliseconds = figures
    return [f"{operations:.1f}", f"{moved:.0f}", *(f"{each:.1f} ms" for each in milliseconds)]


def _seconds(of_window: dict[str, float], device: tuple[float, ...]) -> float:
    """The least time for a window: that of its arithmetic or of its traffic."""
    operations_per_second, bytes_per_second = device
    return max(
        of_window["operations"] / operations_per_second, of_window["bytes"] / bytes_per_second
    )


# ---- sentences -----------------------------------------------------------------------------------


def _best_peers(result: dict[str, Any]) -> str:
    """Compares with what is fastest of all that compute the card's scores and are not ours."""
    ratios, best = [], set()
    for kind in ("casia", "6"):
        rates = result["recordings_per_second"][kind]
        for precision in ("fp32", "bf16"):
            names = ("OpenVINO", "ONNX-Runtime", "transformers")
            peers = {name: rates.get(f"{name} {precision}", 0.0) for name in names}
            name = max(names, key=lambda each: peers[each])
            best.add(name)
            ratios.append(f"{rates[f'ours {precision}'] / peers[name]:.1f}")
    (fastest,) = best
    return (
        f"On one core of an {cpu_of(result)}, the network is {ratios[0]} (fp32) and {ratios[1]}"
        f" (bf16) times as fast as {fastest} on CASIA's lengths, {ratios[2]} and {ratios[3]} times"
        " on 6 s; no other that computes the card's scores is faster."
    )


def _peers_agree(agreements: dict[str, Any]) -> str:
    texts = [
        f"{each['largest_score_difference']:.1e} ({side})" for side, each in agreements.items()
    ]
    return f"Scores differ from the card's by at most {', '.join(texts)}."


def _limits(limits: dict[str, Any]) -> str:
    fp32, bf16 = (limits[f"ours {precision}"]["share_of_that"] for precision in ("fp32", "bf16"))
    return (
        "On CASIA's mix, the network's matrix products and convolutions run at"
        f" {fp32:.0%} (fp32) and {bf16:.0%} (bf16) of the rate that large matrix products reach on"
        " the same core."
    )


def _least(parts: dict[str, Any]) -> str:
    seconds = {part: _seconds(of_window, _H100) for part, of_window in parts.items()}
    separate, fused = sum(seconds.values()), seconds["matrix products"] + seconds["attention"]
    no_gelu = separate - seconds["GELU"]
    operations, moved = _H100
    return (
        f"At {operations / 1e12:.0f} TFLOP/s and {moved / 1e12:.0f} TB/s, an H100's limit is"
        f" {1 / separate:,.0f} windows/s with each operation by itself, {1 / no_gelu:,.0f} if GELU"
        f" is part of the products, and {1 / fused:,.0f} if all but products and attention is."
    )
