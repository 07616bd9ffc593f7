"""The sentences of docs/performance.md on object stores and long recordings."""

from collections.abc import Iterator
from typing import Any

from benchmarks.measuring import read_result

_PAGE = "docs/performance.md"


def corpus_sentences() -> Iterator[tuple[str, str]]:
    """The sentences, each with the document that contains it."""
    yield _PAGE, _storage(read_result("storage-cpu"))
    yield _PAGE, _long(read_result("long-cpu")["by_hours"])


def _storage(result: dict[str, Any]) -> str:
    ours, s3fs = (result[name]["get_4_threads"]["cpu_ms"] for name in ("obstore", "s3fs"))
    listed = 1000 / result["obstore"]["name"]["wall_ms"]
    return (
        f"A GET of a 61 kB object takes {ours:.2f} ms of CPU as the job makes it, with four"
        f" threads, and {s3fs:.2f} ms with s3fs; a prefix is listed at {listed:,.0f} names/s"
        " (`storage-cpu.json`)."
    )


def _long(by_hours: dict[str, dict[str, Any]]) -> str:
    (_, short), *_, (hours, long) = by_hours.items()
    return (
        f"A recording of {hours} hours, labelled by segment, takes"
        f" {long['peak_mib_of_all_processes'] / 1024:.1f} GiB in all processes together, one of a"
        f" minute {short['peak_mib_of_all_processes'] / 1024:.1f} GiB (`long-cpu.json`)."
    )
