"""The output folder of a training run: what lies where, and how it is written; it trains nothing.

::

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
import os
from collections.abc import Mapping
from typing import Any, NoReturn

import pandas as pd
import pyarrow
import pyarrow.fs

from ser_core.errors import OutputError
from ser_core.storage.filesystem import is_local
from ser_core.storage.folder import Folder

BEST, LAST = "best", "last"
CHECKPOINTS = "checkpoints"
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
        """
        if why := self.folder.why_unusable():
            raise OutputError(f"--output {self.folder.uri}: cannot be used ({why})")

    def begin(self, decisive: Mapping[str, Any], split: pd.DataFrame) -> None:
        """Claims the folder for a run, or checks that the run in it is the same.

        Args:
            decisive: the settings that affect the results.
            split: the recordings with their split.

        Raises:
            OutputError: it cannot be written to, contains a different run, or one of release 0.1.
        """
        self.refuse_unusable()
        table = split.to_csv(index=False).encode()
        run = dict(decisive) | {"split": hashlib.blake2b(table, digest_size=16).hexdigest()}
        names = self.folder.names()
        if "run.json" in names:
            before = json.loads(self.folder.read("run.json"))
            changed = [name for name in run if before.get(name) != run[name]]
            if changed:
                self._refuse(f"contains a run with a different {', '.join(changed)}")
            if _STATE_OF_0_1 in names and not self.folder.fs.exists(self.folder.path(CHECKPOINTS)):
                self._refuse("trained by release 0.1, which cannot be continued")
            return
        self.folder.write("split.csv", table)
        self.folder.write("run.json", to_json(run))

    def _refuse(self, problem: str) -> NoReturn:
        raise OutputError(f"--output {self.folder.uri}: {problem}; choose another folder")

    def history(self) -> History:
        """The finished epochs, as far as they have been written."""
        try:
            content = self.folder.read("history.csv")
        except FileNotFoundError:
            return []
        return pd.read_csv(io.BytesIO(content)).to_dict("records")  # type: ignore[return-value]

    def write_history(self, history: History) -> None:
        """Writes ``history.csv``."""
        self.folder.write("history.csv", pd.DataFrame(history).to_csv(index=False).encode())

    def storage(self) -> tuple[pyarrow.fs.FileSystem, str]:
        """File system and path of the folder, as Ray Train takes them."""
        if is_local(self.folder.uri):
            return pyarrow.fs.PyFileSystem(_WholeFiles(self.folder.fs)), self.folder.root
        # Several processes write here: a listing that one of them remembers is soon out of date.
        options = {**self.folder.fs.storage_options, "use_listings_cache": False}
        fs = type(self.folder.fs)(*self.folder.fs.storage_args, **options)
        return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(fs)), self.folder.root


class _WholeFiles(pyarrow.fs.FSSpecHandler):  # type: ignore[misc]
    """A local file system whose files appear whole or not at all, as objects in a bucket do.

    Ray Train rewrites its list of checkpoints in place. A process that is killed meanwhile would
    leave half a list, from which no later run could continue.
    """

    def open_output_stream(self, path: str, metadata: Mapping[str, str]) -> pyarrow.NativeFile:  # noqa: ARG002
        return pyarrow.PythonFile(_WholeFile(path), mode="w")


class _WholeFile(io.BufferedWriter):
    """A file that gets its name once it is closed and everything has been written."""

    def __init__(self, path: str) -> None:
        self._path = path
        super().__init__(io.FileIO(f"{path}.tmp", "wb"))

    def close(self) -> None:
        if not self.closed:
            super().close()  # raises if the rest of the buffer cannot be written
            os.replace(f"{self._path}.tmp", self._path)
