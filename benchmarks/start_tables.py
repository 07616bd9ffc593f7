"""The figures that docs/performance.md quotes on start and end, from the result files."""

from collections.abc import Iterator
from typing import Any

from benchmarks.measuring import cpu_of, markdown_table, read_result

_CORPORA = {"full size": "40 files, full-size network", "demo": "corpus of the demo"}


def start_tables() -> Iterator[list[str]]:
    """Seconds of each step."""
    seconds = read_result("start-cpu")["seconds"]
    steps = list(next(iter(seconds.values()))["now"])
    rows = [
        [step, *(f"{seconds[corpus]['now'][step]:.1f} s" for corpus in _CORPORA)] for step in steps
    ]
    yield markdown_table(["step", *_CORPORA.values()], rows)


def start_sentences() -> Iterator[tuple[str, str]]:
    """The sentences, each with the document that contains it."""
    result = read_result("start-cpu")
    yield "docs/performance.md", _machine(result)
    yield "docs/performance.md", _before(result)


def _machine(result: dict[str, Any]) -> str:
    cores = result["machine"]["cores"]
    return f"On {cores} idle cores of an {cpu_of(result)}, seconds of wall time,"


def _before(result: dict[str, Any]) -> str:
    full = result["seconds"]["full size"]
    now, before = full["now"], full["before"]
    return (
        "In the same run, the version before needed"
        f" {before['first row']:.0f} s to the first row of the 40 files rather than"
        f" {now['first row']:.0f}, and {before['end']:.1f} s from the last row to the prompt rather"
        f" than {now['end']:.1f}."
    )
