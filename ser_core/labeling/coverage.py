"""What an output has of a listing: what a run checks at its end, and which rows stay."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from ser_core.labeling.label_store import CurrentRows, LabelStore
from ser_core.labeling.plan import Plan
from ser_core.sources.identity_hashes import is_in


@dataclass(frozen=True)
class Coverage:
    """What the rows of an output say about the recordings of a plan.

    Attributes:
        missing: those that were to be labelled and have no row of this run.
        failed: those that are listed and have no label.
        unlisted: those that have rows and are not listed.
        superseded: rows that are not current.
        current: the rows that stay.
    """

    missing: int
    failed: int
    unlisted: int
    superseded: int
    current: CurrentRows


def coverage(
    store: LabelStore,
    plan: Plan,
    since: datetime,
    dropped: Sequence[np.ndarray] = (),
    prune: bool = False,
) -> Coverage:
    """Looks at all rows of an output.

    Args:
        store: the output.
        plan: with the hashes of its recordings.
        since: the time of the run's first rows.
        dropped: hashes of recordings whose rows were of no use, since they have better ones.
        prune: whether only the rows of listed recordings stay.
    """
    listed = np.sort(_joined(plan.identity_hashes))
    rows = store.rows()
    microseconds = np.datetime64(since.replace(tzinfo=None), "us").astype(np.int64)
    made = _joined([rows.identity_hash[rows.labeled_at >= microseconds], *dropped])
    return Coverage(
        missing=int((~is_in(_joined(plan.to_do_hashes), np.sort(made))).sum()),
        failed=rows.without_label(listed),
        unlisted=0 if plan.limited else rows.unlisted(listed),
        superseded=int((~rows.current).sum()),
        current=store.current_rows(listed if prune else None),
    )


def _joined(hashes: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty(0, np.uint64), *hashes])
