"""The output folder of a training run: what lies where, and how it is written; it trains nothing.

::

    OUTPUT/claim.json               which run is writing here; gone when it has ended
    OUTPUT/run.json                 the settings that affect the results; others are refused
    OUTPUT/split.csv                the recordings, as jobs.label and jobs.evaluate read them
    OUTPUT/history.csv              a row per epoch
    OUTPUT/checkpoints/             Ray Train's: the best and the latest epoch, with optimizer state
    OUTPUT/metrics.json             best and last, on validation and test
    OUTPUT/best/, OUTPUT/last/      what jobs.label --model takes
"""

import hashlib
import io
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, NoReturn

import pandas as pd
import pyarrow.fs

from ser_core.errors import OutputError
from ser_core.storage.folder import Folder, storage_errors
from ser_core.training.checkpoint_storage import checkpoint_storage, write_file

BEST, LAST = "best", "last"
CHECKPOINTS = "checkpoints"
CLAIM = "claim.json"
_STATE_OF_0_1 = "state.pt"
History = list[dict[str, float]]


def to_json(content: Any, sort_keys: bool = True) -> bytes:
    """Indented JSON, UTF-8."""
    text = json.dumps(content, indent=2, sort_keys=sort_keys, ensure_ascii=False)
    return f"{text}\n".encode()


def best_epoch(history: History) -> dict[str, float]:
    """The epoch with the highest UAR on validation, and of these the one with the lowest loss."""
    return max(history, key=lambda row: (row["validation_uar"], -row["validation_loss"]))


class TrainingOutput:
    """The files of one run, each of which appears whole or not at all."""

    def __init__(self, uri: str) -> None:
        self.folder = Folder(uri)

    def refuse_unusable(self) -> None:
        """Fails if the folder cannot be written to, as far as can be told without writing.

        Raises:
            OutputError: it cannot.
            RunError: its storage cannot be reached.
        """
        if why := self.folder.why_unusable():
            raise OutputError(f"--output {self.folder.uri}: cannot be used ({why})")

    def begin(self, decisive: Mapping[str, Any], split: pd.DataFrame) -> None:
        """Prepares the folder for a run, or checks that the run in it is the same.

        Args:
            decisive: the settings that affect the results.
            split: the recordings with their split; a column ``audio`` is left out.

        Raises:
            OutputError: it cannot be written to, contains a different run, or one of release 0.1.
            RunError: its storage failed.
        """
        table = split.drop(columns="audio", errors="ignore").to_csv(index=False).encode()
        run = dict(decisive) | {"split": hashlib.blake2b(table, digest_size=16).hexdigest()}
        before = self._run_there()
        if before is not None:
            changed = [name for name in run if before.get(name) != run[name]]
            if changed:
                self._refuse(f"contains a run with a different {', '.join(changed)}")
            with self._reading(CHECKPOINTS):
                if self.folder.exists(_STATE_OF_0_1) and not self.folder.exists(CHECKPOINTS):
                    self._refuse("trained by release 0.1, which cannot be continued")
            return
        self.folder.write("split.csv", table)
        self.folder.write("run.json", to_json(run))

    def _run_there(self) -> dict[str, Any] | None:
        with self._reading("run.json"):
            try:
                return dict(json.loads(self.folder.read("run.json")))
            except FileNotFoundError:
                return None

    def _reading(self, name: str) -> AbstractContextManager[None]:
        return storage_errors(f"--output {self.folder.uri}: {name} could not be read")

    def _refuse(self, problem: str) -> NoReturn:
        raise OutputError(f"--output {self.folder.uri}: {problem}; choose another folder")

    def history(self) -> History:
        """The finished epochs, as far as they have been written.

        Raises:
            RunError: its storage failed.
        """
        with self._reading("history.csv"):
            try:
                content = self.folder.read("history.csv")
            except FileNotFoundError:
                return []
        return pd.read_csv(io.BytesIO(content)).to_dict("records")  # type: ignore[return-value]

    def write_history(self, history: History) -> None:
        """Writes ``history.csv``."""
        self.write("history.csv", pd.DataFrame(history).to_csv(index=False).encode())

    def write(self, name: str, content: bytes) -> None:
        """Writes a file of any size, and tries for minutes.

        Raises:
            RunError: it could not be written.
        """
        filesystem, path = self.storage()
        write_file(filesystem, f"{path}/{name}", content)

    def storage(self) -> tuple[pyarrow.fs.FileSystem, str]:
        """File system and path of the folder, as Ray Train takes them."""
        return checkpoint_storage(self.folder)
