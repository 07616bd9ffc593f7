"""The rules of a label store: which row is current, which recordings are done; it reads nothing.

One row per recording is current:

- A row is *final* if the recording's content caused it, and *transient* if the content could not
  be read (`Status.final`). A transient row never replaces a final one.
- A newer final row replaces an older one of the same recording.
- A recording is done if its current row is final and has its `file_id` and the model's digest;
  with ``--precision fp32``, its scores must also have been computed in fp32; with
  ``--embeddings``, it must have one if it has a label. ``--retry`` names statuses that are tried
  again.
"""

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ser_core.audio.constants import SEGMENT_SECONDS
from ser_core.errors import FINAL, Status
from ser_core.schema import EMBEDDING_SIZE
from ser_core.settings import Channels, Precision, Rows
from ser_core.sources.identity_hashes import hashes, is_in

RULE_COLUMNS = ("uri", "start", "channel", "status", "labeled_at")
_MOST_CHANNELS = 1024
_COMPUTED = [Status.OK, Status.NOT_FINITE]  # by a model, in some precision


def superseded(
    recording: np.ndarray, segment: np.ndarray, final: np.ndarray, labeled_at: np.ndarray
) -> np.ndarray:
    """Which rows are not current.

    The rows of a recording that were made together are current together: the newest final ones
    or, if it has none, the newest ones. A segment that is there twice counts once.

    Args:
        recording: what identifies each row's recording, shape ``(num_rows,)``.
        segment: what identifies each row among those of its recording.
        final: whether each row is final.
        labeled_at: when each row was made.

    >>> superseded(np.array([7, 7, 8]), np.zeros(3), np.array([True, False, False]),
    ...            np.array([1, 2, 3]))
    array([False,  True, False])
    """
    order = np.lexsort((segment, labeled_at, final, recording))  # the current rows come last
    recording, segment, final, labeled_at = (
        column[order] for column in (recording, segment, final, labeled_at)
    )
    ends = np.flatnonzero(np.append(recording[1:] != recording[:-1], True)[: len(order)])
    last = np.repeat(ends, np.diff(ends, prepend=-1))  # of each row's recording
    current = (final == final[last]) & (labeled_at == labeled_at[last])
    current[1:] &= ~(
        (recording[1:] == recording[:-1]) & (segment[1:] == segment[:-1]) & current[:-1]
    )
    stale = np.ones(len(order), bool)
    stale[order[current]] = False
    return stale


def labeling_digest(checkpoint: str, rows: Rows, hop: float, channels: Channels) -> str:
    """Identifies what made a row: the checkpoint, and how recordings are cut and become rows.

    Args:
        checkpoint: its digest, which is the result where all else is as the model card has it.
        rows: per recording or segment.
        hop: between windows, s.
        channels: mixed or each by itself.
    """
    if (rows, hop, channels) == ("recording", SEGMENT_SECONDS, "mix"):
        return checkpoint
    content = f"{checkpoint}\0{rows}\0{hop}\0{channels}".encode()
    return hashlib.blake2b(content, digest_size=len(checkpoint) // 2).hexdigest()


def is_final(status: pa.ChunkedArray) -> pa.ChunkedArray:
    """Which rows are valid until the file changes."""
    return pc.is_in(status.cast(pa.string()), pa.array(sorted(FINAL), pa.string()))


def is_ok(status: pa.ChunkedArray) -> pa.ChunkedArray:
    """Which rows have a label."""
    return pc.equal(status.cast(pa.string()), Status.OK).fill_null(False)


def is_done(
    rows: pa.Table,
    model_digest: str,
    precision: Precision,
    retry: Collection[str] = (),
    embeddings: bool = False,
) -> pa.ChunkedArray:
    """Which current rows need not be made again.

    Args:
        rows: columns `model_digest`, `status` and `precision`; `embedding_size` with embeddings.
        model_digest: of the model that a run uses.
        precision: that it asks for.
        retry: statuses that it tries again.
        embeddings: whether it asks for them.
    """
    status = rows["status"].cast(pa.string())
    same_model = pc.equal(rows["model_digest"].cast(pa.string()), model_digest)
    done = pc.and_(same_model, pc.is_in(status, pa.array(sorted(FINAL - set(retry)), pa.string())))
    if embeddings:
        done = pc.and_(
            done, pc.or_(rows[EMBEDDING_SIZE].is_valid(), pc.invert(is_ok(rows["status"])))
        )
    if precision != "fp32":
        return done
    precise = pc.equal(rows["precision"].cast(pa.string()).fill_null("unknown"), "fp32")
    computed = pc.is_in(status, pa.array(_COMPUTED, pa.string()))
    return pc.and_(done, pc.or_(precise, pc.invert(computed)))


def is_useful(status: pa.ChunkedArray, has_final: np.ndarray) -> np.ndarray:
    """Which new rows may become current: a transient one never does beside a final one.

    Args:
        status: of each row.
        has_final: whether its recording has final rows already.

    >>> is_useful(pa.chunked_array([["ok", "unavailable"]]), np.array([True, True]))
    array([ True, False])
    """
    useful: np.ndarray = is_final(status).to_numpy() | ~has_final
    return useful


@dataclass(frozen=True)
class AllRows:
    """What the rules need of all rows of a folder, about 19 bytes each.

    Attributes:
        identity_hash: of each row's recording.
        final: whether each row is final.
        ok: whether each row has a label.
        current: whether each row is current.
        labeled_at: when each row was made, in µs since 1970.
    """

    identity_hash: np.ndarray
    final: np.ndarray
    ok: np.ndarray
    current: np.ndarray
    labeled_at: np.ndarray

    @classmethod
    def from_tables(cls, tables: Iterable[pa.Table]) -> "AllRows":
        """Applies the rules to tables with `RULE_COLUMNS`."""
        none = (np.empty(0, kind) for kind in (np.uint64, np.int64, bool, bool, np.int64))
        columns = zip(none, *map(_rule_columns, tables), strict=True)
        identity_hash, segment, final, ok, labeled_at = map(np.concatenate, columns)
        current = ~superseded(identity_hash, segment, final, labeled_at)
        return cls(identity_hash, final, ok, current, labeled_at)

    def without_label(self, listed: np.ndarray) -> int:
        """How many recordings have no current row that is ``ok``.

        Args:
            listed: hashes of recordings.
        """
        labeled = np.sort(self.identity_hash[self.current & self.ok])
        return int((~is_in(listed, labeled)).sum())

    def unlisted(self, listed: np.ndarray) -> int:
        """How many recordings have rows and are not listed.

        Args:
            listed: hashes of recordings.
        """
        current = np.unique(self.identity_hash[self.current])
        return int((~is_in(current, np.sort(listed))).sum())


def _rule_columns(rows: pa.Table) -> tuple[np.ndarray, ...]:
    return (
        hashes(rows["uri"]),
        _segments(rows),
        is_final(rows["status"]).to_numpy(),
        is_ok(rows["status"]).to_numpy(),
        rows["labeled_at"].cast(pa.int64()).to_numpy(),
    )


def _segments(rows: pa.Table) -> np.ndarray:
    """A number for each segment of a recording: its start, µs, and its channel."""
    start, channel = (
        np.nan_to_num(rows[name].to_numpy(), nan=-1.0) for name in ("start", "channel")
    )
    segment: np.ndarray = np.round(start * 1e6).astype(np.int64) * _MOST_CHANNELS
    segment += channel.astype(np.int64)
    return segment
