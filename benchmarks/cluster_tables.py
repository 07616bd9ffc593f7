"""The figures that docs/performance.md quotes on the size of a cluster, from the result files."""

from collections.abc import Iterator
from typing import Any

from benchmarks.measuring import casia_lengths, cpu_of, markdown_table, read_result

_FAST_GPU = 5000  # windows of 6 s per second, more than any GPU has reached here
_GPUS = 16  # that one job is to feed
_HOURS, _WINDOW = 1000, 6.0  # h of audio, s
_BEFORE, _NOW = "blocks of 1,024", "blocks of 5,000, calls of 4"


def cluster_tables() -> Iterator[list[str]]:
    """What one driver takes, and what a thousand hours of audio cost."""
    yield _driver(read_result("driver-cpu")["forms"], _windows_per_second())
    yield _thousand_hours()


def cluster_sentences() -> Iterator[tuple[str, str]]:
    """The sentences, each with the document that contains it."""
    driver, page = read_result("driver-cpu"), "docs/performance.md"
    yield page, f"(on {driver['machine']['cores']} cores of an {cpu_of(driver)})"
    yield page, _reached(driver["forms"])
    yield page, _gpu_hours()


def _windows_per_second() -> float:
    """Of the network on an H200, measured."""
    rates = read_result("classifier-gpu")["recordings_per_second"]
    return float(rates["6"]["ours bf16"])


def _driver(forms: dict[str, Any], measured: float) -> list[str]:
    rows = [
        [
            name,
            f"{1e6 / form['driver_rows_per_core_second']:.1f} µs",
            f"{form['driver_rows_per_core_second']:,.0f}",
            *(
                f"{form['driver_rows_per_core_second'] / rate:.1f}"
                for rate in (measured, _FAST_GPU)
            ),
        ]
        for name, form in forms.items()
    ]
    rates = (f"GPUs at {rate:,.0f} windows/s" for rate in (measured, _FAST_GPU))
    return markdown_table(["plan", "CPU time per row", "rows/s", *rates], rows)


def _reached(forms: dict[str, Any]) -> str:
    before, now = (forms[name]["driver_rows_per_core_second"] for name in (_BEFORE, _NOW))
    needed = _GPUS * _FAST_GPU
    return (
        f"Larger blocks and calls let one driver take {now / before:.1f} times as many rows."
        f" {_GPUS} GPUs at {_FAST_GPU:,} windows/s would need {needed:,} rows/s, of which it takes"
        f" {now / needed:.0%}."
    )


def _thousand_hours() -> list[str]:
    """Core-hours of decoding, by format."""
    rows = [[name, f"{_HOURS / _WINDOW * cost:.2f}"] for name, cost in _decode_seconds().items()]
    return markdown_table(["1,000 h of audio", "core-hours to decode"], rows)


def _gpu_hours() -> str:
    rates = read_result("classifier-gpu")["recordings_per_second"]
    mean = float(casia_lengths(100_000).mean())
    full, casia = (
        _HOURS / seconds / rates[kind]["ours bf16"]
        for kind, seconds in {"6": _WINDOW, "casia": mean}.items()
    )
    return (
        f"The network takes {full:.3f} GPU-hours for a thousand hours in full windows, and"
        f" {casia:.3f} in recordings of {mean:.1f} s on average."
    )


def _decode_seconds() -> dict[str, float]:
    """What one core takes for the first 6 s of a file, by format."""
    formats = read_result("decode-cpu")["first_6_of_8_s"]["now"]
    return {name: measured["ms"] / 1000 for name, measured in formats.items()}
