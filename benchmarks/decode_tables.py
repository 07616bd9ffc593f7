"""The tables of docs/performance.md on decoding, from the result file."""

from collections.abc import Iterator
from typing import Any

from benchmarks.measuring import cpu_of, markdown_table, read_result


def decode_tables() -> Iterator[list[str]]:
    """What 6 s of each format cost, and those of a long file."""
    result = read_result("decode-cpu")
    yield _costs(result["first_6_of_8_s"])
    yield _long_files(result["formats"])


def decode_sentences() -> Iterator[tuple[str, str]]:
    """The sentences, each with the document that contains it."""
    cpu = cpu_of(read_result("decode-cpu"))
    yield "docs/performance.md", f"One core of an {cpu} needs for the first 6 s of a file of 8 s,"
    yield "docs/performance.md", f"(stereo, 48 kHz, one core of an {cpu})"


def _costs(sides: dict[str, Any]) -> list[str]:
    """Milliseconds by format, those of the version before, and the share of each part."""
    now, before = sides["now"], sides["before"]
    parts = list(next(iter(now.values()))["shares"])
    rows = [
        [
            name,
            f"{cost['ms']:.1f} ms",
            f"{before[name]['ms']:.1f} ms",
            *(f"{100 * cost['shares'][part]:.0f} %" for part in parts),
        ]
        for name, cost in now.items()
    ]
    return markdown_table(["format", "first 6 s", "version before", *parts], rows)


def _long_files(formats: dict[str, Any]) -> list[str]:
    rows = [
        [
            name,
            f"{1000 * measured['first_6_s_seconds']:.1f} ms",
            f"{measured['librosa_whole_seconds']:.2f} s",
            f"{measured['times_as_fast']:,.0f} ×",
        ]
        for name, measured in formats.items()
    ]
    return markdown_table(["ten minutes of", "first 6 s", "librosa, whole file", "ratio"], rows)
