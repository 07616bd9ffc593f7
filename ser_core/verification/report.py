"""What a verification found, as tables on the terminal and as JSON; it computes no score."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.table import Table

from ser_core.console import counted, show
from ser_core.reporting.html import percent
from ser_core.storage.folder import Folder
from ser_core.verification.comparison import Compared, Tolerance, beyond, tolerance_of
from ser_core.verification.origin import Origin
from ser_core.verification.rows import Skipped

_MOST_SHOWN = 20  # rows that differ; verification.json has all


@dataclass(frozen=True)
class Verification:
    """What a verification found.

    Attributes:
        labels: the folder.
        origin: of the rows.
        device: that the card's script ran on.
        seed: that the rows were drawn with.
        tolerance: ``--tolerance``.
        compared: the rows that were compared.
        skipped: the rows that were drawn and could not be.
    """

    labels: str
    origin: Origin
    device: str
    seed: int
    tolerance: float | None
    compared: list[Compared]
    skipped: list[Skipped]

    def by_precision(self) -> Iterator[tuple[str, list[Compared], Tolerance]]:
        """The rows of each precision, and what holds for them."""
        for precision in sorted({row.precision for row in self.compared}):
            rows = [row for row in self.compared if row.precision == precision]
            yield precision, rows, tolerance_of(precision, self.tolerance)

    @property
    def beyond(self) -> list[Compared]:
        """The rows that differ by more than they may, the worst first."""
        found = [row for _, rows, limits in self.by_precision() for row in beyond(rows, limits)]
        return sorted(found, key=lambda row: row.difference, reverse=True)

    def summary(self) -> dict[str, Any]:
        """Everything, as JSON has it."""
        return {
            "labels": self.labels,
            "model": self.origin.model,
            "revision": self.origin.revision,
            "model_digest": self.origin.digest,
            "device": self.device,
            "seed": self.seed,
            "rows": self.origin.rows,
            "rows_of_others": self.origin.rows_of_others,
            "rows_without_stretches": self.origin.rows_without_stretches,
            "compared": len(self.compared),
            "skipped": len(self.skipped),
            "passed": bool(self.compared) and not self.beyond,
            "by_precision": {
                precision: _figures(rows, limits) for precision, rows, limits in self.by_precision()
            },
            "rows_skipped": [asdict(row) for row in self.skipped],
            "rows_beyond": [row._asdict() for row in self.beyond],
            "rows_compared": [row._asdict() for row in self.compared],
        }


def _figures(rows: list[Compared], limits: Tolerance) -> dict[str, Any]:
    differences = [row.difference for row in rows]
    return {
        "rows": len(rows),
        "equal_labels": float(np.mean([row.label == row.card_label for row in rows])),
        "median_difference": float(np.median(differences)),
        "largest_difference": max(differences),
        "usual_tolerance": limits.usual,
        "largest_tolerance": limits.largest,
        "beyond": len(beyond(rows, limits)),
    }


def write_verification(found: Verification, output: Folder) -> None:
    """Writes ``verification.json``.

    Raises:
        RunError: it could not be written.
    """
    text = json.dumps(found.summary(), indent=2, ensure_ascii=False)
    output.write("verification.json", text.encode())


def print_verification(found: Verification) -> None:
    """Prints the figures, the rows that differ, and what was not compared."""
    columns = "precision rows equal_labels median largest tolerance beyond".split()
    table = Table(*(name.replace("_", " ") for name in columns))
    for precision, rows, limits in found.by_precision():
        figures = _figures(rows, limits)
        table.add_row(
            precision,
            f"{len(rows):,}",
            percent(figures["equal_labels"]),
            f"{figures['median_difference']:.1e}",
            f"{figures['largest_difference']:.1e}",
            _shown(limits),
            f"{figures['beyond']:,}",
        )
    show(table, *_differing(found), *_notes(found))


def _shown(limits: Tolerance) -> str:
    """Limits in words.

    >>> _shown(Tolerance(0.05, 0.4)), _shown(Tolerance(1e-4, 1e-4))
    ('0.05, rarely 0.4', '0.0001')
    """
    rarely = f", rarely {limits.largest:g}" if limits.usual < limits.largest else ""
    return f"{limits.usual:g}{rarely}"


def _differing(found: Verification) -> Iterator[str]:
    """A line for each row beyond the tolerance, then for those with another label."""
    beyond = found.beyond
    others = [row for row in found.compared if row.label != row.card_label and row not in beyond]
    rows = beyond + sorted(others, key=lambda row: row.difference, reverse=True)
    for row in rows[:_MOST_SHOWN]:
        start = "" if row.start is None else f" at {row.start:g} s"
        scores = f"{row.label} {row.score:.4f}, card {row.card_label} {row.card_score:.4f}"
        within = "" if row in beyond else " (within the tolerance)"
        yield f"{row.path}{start}: {scores}, difference {row.difference:.2g}{within}"
    if len(rows) > _MOST_SHOWN:
        yield f"and {counted(len(rows) - _MOST_SHOWN, 'more row')}"


def _notes(found: Verification) -> Iterator[str]:
    origin = found.origin
    yield (
        f"{len(found.compared):,} of {counted(origin.rows, 'label')} compared with the model card's"
        f" script in fp32 on {found.device}"
    )
    for reason, count in Counter(row.reason for row in found.skipped).most_common():
        example = next(row for row in found.skipped if row.reason == reason)
        detail = f", {example.detail}" if example.detail else ""
        yield f"{count:,} skipped: {reason} (as {example.path}{detail})"
    if origin.rows_of_others:
        yield f"not compared: {counted(origin.rows_of_others, 'label')} of other checkpoints"
    if origin.rows_without_stretches:
        yield (
            f"not compared: {counted(origin.rows_without_stretches, 'label')} of --segments speech;"
            " only with --rows segment do rows say which stretches they are of"
        )
