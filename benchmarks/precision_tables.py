"""The figures of docs/verification.md: how far lower precision is from the model card's scores."""

from collections.abc import Iterator

from benchmarks.measuring import markdown_table, read_result

_PAGE = "docs/verification.md"
_SIDES = {
    "fp32": "fp32",
    "fp16": "fp16",
    "bf16": "bf16",
    "transformers bf16": "transformers in bf16",
}


def precision_sentences() -> Iterator[tuple[str, str]]:
    """The rows of the table, each with the page that has it."""
    for line in precision_table():
        yield _PAGE, " ".join(line.split())


def precision_table() -> list[str]:
    """The differences of each network and precision, as lines of Markdown."""
    rows = [
        [
            f"{network}, {figures['recordings']} recordings",
            name,
            *(f"{figures[side][key]:.2g}" for key in ("median", "nine_in_ten", "largest")),
            f"{figures[side]['equal_labels']:.1%}",
        ]
        for network, figures in read_result("precision-cpu")["networks"].items()
        for side, name in _SIDES.items()
    ]
    header = ["network", "precision", "median", "nine in ten", "largest", "equal labels"]
    return markdown_table(header, rows)
