"""The figures that the pages on reports and verification quote, from the result files."""

from collections.abc import Iterator
from typing import Any

from benchmarks.measuring import markdown_table, read_result

_SIDES = {"fp32": "fp32", "fp16": "fp16", "bf16": "bf16", "transformers bf16": "transformers, bf16"}


def report_sentences() -> Iterator[tuple[str, str]]:
    """The sentences, each with the document that contains it."""
    yield "docs/reports.md", _cost(read_result("report-cpu"))
    yield "docs/reports.md", _drift(read_result("drift-emodb"))
    for row in _precision(read_result("precision-cpu")["networks"]):
        yield "docs/verification.md", row


def _cost(result: dict[str, Any]) -> str:
    largest = result["reports"][-1]
    assert largest["rows"] == 10_000_000
    report, since = largest["report"], largest["with_since"]
    return (
        f"Ten million rows take {report['seconds']:.0f} s and {report['peak_mib'] / 1024:.1f} GiB"
        f" on two cores, with `--since` {since['seconds']:.0f} s and"
        f" {since['peak_mib'] / 1024:.1f} GiB (`report-cpu.json`)."
    )


def _drift(result: dict[str, Any]) -> str:
    found = {name: set(drift) for name, drift in result["drift"].items()}
    assert "rms_db" in found["quarter_of_the_level"]
    assert "sampling_rate" in found["8_khz"]
    assert {"label", "score"} <= found["another_checkpoint"]
    assert found["without_a_speaker"] == {"speaker"}
    return (
        f"Of {result['draws']} pairs of random halves of EMO-DB, {result['false_alarms']} were said"
        " to have drifted; one of ten speakers taken out, a quarter of the level, 8 kHz and another"
        " checkpoint were each found (`drift-emodb.json`)."
    )


def _precision(networks: dict[str, Any]) -> list[str]:
    rows = [
        [
            f"{network}, {figures['recordings']} recordings",
            name,
            *(f"{figures[side][key]:.2g}" for key in ("median", "nine_in_ten", "largest")),
            f"{figures[side]['equal_labels']:.1%}",
        ]
        for network, figures in networks.items()
        for side, name in _SIDES.items()
    ]
    header = ["network", "precision", "median", "nine in ten", "largest", "equal labels"]
    return markdown_table(header, rows)
