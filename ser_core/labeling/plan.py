"""What is to be labelled: what a source lists, less what the label store has; it runs nothing."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ser_core.audio.constants import SEGMENT_SECONDS
from ser_core.labeling.row_index import RowIndex
from ser_core.schema import DURATION, HAS_FINAL, INDEX, MEMBER, OFFSET, SIZE, START, plan_schema
from ser_core.sources.identity_hashes import hashes
from ser_core.sources.interface import Page
from ser_core.sources.recording import reference_columns

# Whole recordings are cut into blocks by the bytes of their files: 8 minutes of 16-bit WAV, an hour
# or two of Opus.
_BYTES_PER_BLOCK = 16 << 20
_BYTES_PER_SEGMENT = 100_000  # as of 6 s of FLAC at 16 kHz; of WAV it is twice as much
_ROWS_OF_ONE_PASS = 4096  # fewer where a pass has fewer
_BYTES_OF_UNSEEN_FILE = _BYTES_PER_BLOCK // 4  # if the storage reports no size


@dataclass
class Plan:
    """What there is to do, in numbers.

    Attributes:
        listed: recordings of the source.
        done: those that need no labelling again.
        again: those that are labelled again, because they or the way to label them changed.
        segments: of all that are to be labelled, about, if they are labelled to their end.
        unseen: places below the input that could not be looked into and may hold recordings.
        skipped: files that were passed over because of their names, by extension.
        limited: whether the listing was stopped before its end.
        identity_hashes: of all recordings that are listed, in pages.
        to_do_hashes: of those that are to be labelled.
        known_to_0_1: of those done, the ones that release 0.1 labelled under another `file_id`:
            columns ``file_id_of_0_1``, ``uri`` and ``file_id``.
    """

    listed: int = 0
    done: int = 0
    again: int = 0
    segments: int = 0
    unseen: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    limited: bool = False
    identity_hashes: list[np.ndarray] = field(default_factory=list)
    to_do_hashes: list[np.ndarray] = field(default_factory=list)
    known_to_0_1: list[pa.Table] = field(default_factory=list)

    @property
    def to_do(self) -> int:
        """How many recordings this run labels."""
        return self.listed - self.done

    def add(self, other: "Plan") -> None:
        """Adds what another part of the listing has."""
        for name in ("listed", "done", "again", "segments"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("unseen", "identity_hashes", "to_do_hashes", "known_to_0_1"):
            getattr(self, name).extend(getattr(other, name))
        self.skipped.update(other.skipped)
        self.limited = self.limited or other.limited


def _num_segments(table: pa.Table) -> int:
    sizes = table[SIZE.name].fill_null(_BYTES_OF_UNSEEN_FILE).to_numpy() / _BYTES_PER_SEGMENT
    stretches = table[DURATION.name].to_numpy() / SEGMENT_SECONDS
    segments = np.where(np.isnan(stretches), sizes, stretches)
    return int(np.ceil(segments).clip(min=1).sum())


def plan_page(page: Page, manifest: pa.Schema, index: RowIndex) -> tuple[Plan, pa.Table]:
    """Compares a page of the listing with what is done.

    Args:
        page: of the source.
        manifest: the manifest's own columns.
        index: of the label store.

    Returns:
        What the page adds to the plan, and what is to be labelled, of ``plan_schema``.
    """
    done, old = index.done(page.recordings)
    missing = np.flatnonzero(~done)
    identity = hashes([recording.identity for recording in page.recordings])
    has_rows = index.has_rows(identity[missing])
    table = plan_table(page, missing, identity, index.has_final_rows(identity[missing]), manifest)
    plan = Plan(
        listed=len(page.recordings),
        done=len(page.recordings) - len(missing),
        again=int(has_rows.sum()),
        segments=_num_segments(table),
        unseen=list(page.unseen),
        skipped=Counter(page.skipped),
        identity_hashes=[identity],
        to_do_hashes=[identity[missing]],
        known_to_0_1=_identities(page, np.flatnonzero(old)),
    )
    return plan, table


def beginning(page: Page, index: RowIndex, limit: int) -> Page:
    """The page up to so many recordings that are to be labelled."""
    missing = np.flatnonzero(~index.done(page.recordings)[0])
    if len(missing) <= limit:
        return page
    end = int(missing[limit])
    columns = None if page.columns is None else page.columns.slice(0, end)
    return page._replace(recordings=page.recordings[:end], columns=columns)


def _identities(page: Page, rows: np.ndarray) -> list[pa.Table]:
    recordings = [page.recordings[row] for row in rows]
    columns = {
        "file_id_of_0_1": [recording.file_id_of_0_1 for recording in recordings],
        "uri": [recording.identity for recording in recordings],
        "file_id": [recording.file_id for recording in recordings],
    }
    return [pa.table(columns)] if recordings else []


def plan_table(
    page: Page, rows: np.ndarray, identity: np.ndarray, final: np.ndarray, manifest: pa.Schema
) -> pa.Table:
    """Some recordings of a page, of ``plan_schema``.

    Args:
        page: of the source.
        rows: which of its recordings.
        identity: a number for each recording of the page, by which its segments are put together.
        final: whether the output has final rows of each in ``rows``.
        manifest: the manifest's own columns.
    """
    recordings = [page.recordings[row] for row in rows]
    columns: dict[str, Any] = {
        INDEX.name: identity[rows].view(np.int64),
        "file_id": [recording.file_id for recording in recordings],
        HAS_FINAL.name: final,
        **reference_columns(recordings),
    }
    if page.columns is not None:
        kept = page.columns.take(rows)
        columns |= {field.name: kept[field.name].cast(field.type) for field in manifest}
    return pa.table(columns, schema=plan_schema(manifest)).combine_chunks()


def cut_into_blocks(
    table: pa.Table, rows: int, whole: bool, anywhere: bool = False
) -> list[pa.Table]:
    """A page of the plan in blocks.

    What is read in one pass stays together: the stretches of one file, and the members of a file in
    which they cannot be found by their position.

    Args:
        table: of ``plan_schema``.
        rows: of one block, more only where they are read in one pass.
        whole: whether recordings are decoded to their end; blocks are then cut by bytes, too.
        anywhere: cut also what is read in one pass.
    """
    joined = np.zeros(len(table), bool) if anywhere else _continues_a_pass(table)
    pieces = _cut_by_bytes(table, joined) if whole else iter([(0, len(table))])
    blocks = []
    for start, end in pieces:
        edges = _edges(joined[start:end], rows)
        blocks += [table.slice(start + at, to - at) for at, to in pairwise(edges)]
    return blocks


def _edges(joined: np.ndarray, rows: int) -> list[int]:
    """Where blocks begin and end, at rows that are not joined to the one before."""
    allowed, edges = np.flatnonzero(~joined), [0]
    while edges[-1] < len(joined):
        at = np.searchsorted(allowed, edges[-1] + rows)
        after = int(allowed[at]) if at < len(allowed) else len(joined)
        edges.append(min(after, edges[-1] + max(rows, _ROWS_OF_ONE_PASS)))
    return edges


def _continues_a_pass(table: pa.Table) -> np.ndarray:
    """Whether each row is read in one pass with the row before."""
    one_pass = pc.or_(
        table[START.name].is_valid(),
        pc.and_(table[MEMBER.name].is_valid(), table[OFFSET.name].is_null()),
    )
    uri = table["uri"].combine_chunks()
    same = np.zeros(len(table), bool)
    same[1:] = pc.equal(uri[1:], uri[:-1]).to_numpy(zero_copy_only=False)
    continues: np.ndarray = same & one_pass.to_numpy()
    return continues


def _cut_by_bytes(table: pa.Table, joined: np.ndarray) -> Iterator[tuple[int, int]]:
    sizes = table[SIZE.name].fill_null(_BYTES_OF_UNSEEN_FILE).to_numpy()
    piece_of = np.where(joined, 0, sizes).cumsum() // _BYTES_PER_BLOCK
    starts = np.flatnonzero(np.diff(piece_of, prepend=-1))
    return pairwise([*starts.tolist(), len(table)])
