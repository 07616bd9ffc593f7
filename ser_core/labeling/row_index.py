"""What a label store knows of each recording, as sorted arrays; it reads no file."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ser_core.sources.identity_hashes import hashes, is_in
from ser_core.sources.recording import Recording

_NO_HASHES = np.empty(0, np.uint64)


@dataclass(frozen=True)
class RowIndex:
    """The recordings that have rows, 18 bytes each; processes of one machine share the arrays.

    A recording is known by the hashes of its identity and of its `file_id`, 128 bits together.

    Attributes:
        identity_hash: of each recording, sorted.
        file_id_hash: of its current rows.
        is_done: whether it need not be labelled again as long as its `file_id` is the same.
        is_final: whether its current rows are final.
        skipped: further recordings that count as done, sorted.
    """

    identity_hash: np.ndarray = field(default_factory=_NO_HASHES.copy)
    file_id_hash: np.ndarray = field(default_factory=_NO_HASHES.copy)
    is_done: np.ndarray = field(default_factory=lambda: np.empty(0, bool))
    is_final: np.ndarray = field(default_factory=lambda: np.empty(0, bool))
    skipped: np.ndarray = field(default_factory=_NO_HASHES.copy)

    @classmethod
    def from_rows(
        cls,
        identity_hash: np.ndarray,
        file_id_hash: np.ndarray,
        is_done: np.ndarray,
        is_final: np.ndarray,
        skipped: np.ndarray = _NO_HASHES,
    ) -> "RowIndex":
        """Of current rows; a recording is done if all of its rows are."""
        order = np.argsort(identity_hash, kind="stable")
        identity = identity_hash[order]
        first = np.flatnonzero(np.append(True, identity[1:] != identity[:-1])[: len(identity)])
        done = np.logical_and.reduceat(is_done[order], first) if len(first) else is_done
        at = order[first]
        return cls(identity[first], file_id_hash[at], done, is_final[at], skipped)

    def done(self, recordings: Sequence[Recording]) -> tuple[np.ndarray, np.ndarray]:
        """Which recordings need no labelling, and which of these only release 0.1 has seen.

        Returns:
            Two arrays of booleans, shape ``(len(recordings),)``.
        """
        identity = hashes([recording.identity for recording in recordings])
        done = self._has(identity, hashes([recording.file_id for recording in recordings]))
        old = np.zeros(len(recordings), bool)
        rest = [n for n in np.flatnonzero(~done).tolist() if recordings[n].name is not None]
        if rest and len(self.identity_hash):
            file_ids = hashes([recordings[n].file_id_of_0_1 for n in rest])
            paths = hashes([recordings[n].path for n in rest])
            old[rest] = self._has(identity[rest], file_ids) | self._has(paths, file_ids)
        return done | old | is_in(identity, self.skipped), old

    def has_rows(self, identity_hash: np.ndarray) -> np.ndarray:
        """Which recordings have rows."""
        return is_in(identity_hash, self.identity_hash)

    def has_final_rows(self, identity_hash: np.ndarray) -> np.ndarray:
        """Which recordings have final rows, beside which a transient one is of no use."""
        return is_in(identity_hash, self.identity_hash[self.is_final])

    def _has(self, identity_hash: np.ndarray, file_id_hash: np.ndarray) -> np.ndarray:
        if not len(self.identity_hash):
            return np.zeros(len(identity_hash), bool)
        last = len(self.identity_hash) - 1
        at = np.searchsorted(self.identity_hash, identity_hash).clip(max=last)
        found = (self.identity_hash[at] == identity_hash) & (self.file_id_hash[at] == file_id_hash)
        done: np.ndarray = found & self.is_done[at]
        return done
