"""The folder of a training run: state, history, checkpoints and their cards; it trains nothing.

::

    OUTPUT/run.json                 what decides the numbers; another run is refused
    OUTPUT/split.csv                the recordings, as jobs.label and jobs.evaluate read them
    OUTPUT/history.csv              a line per epoch
    OUTPUT/state.pt                 all that the epochs so far have made
    OUTPUT/metrics.json             best and last, on validation and test
    OUTPUT/best/, OUTPUT/last/      what jobs.label --model takes
"""

import hashlib
import io
import json
from collections.abc import Mapping
from typing import Any

import pandas as pd
import safetensors.torch
import torch

from ser_core.errors import OutputError
from ser_core.storage.folder import Folder

CHECKPOINTS = ("best", "last")
History = list[dict[str, float]]


class TrainingOutput:
    """The files of one run, each written whole or not at all."""

    def __init__(self, uri: str) -> None:
        self.folder = Folder(uri)

    def begin(self, decisive: Mapping[str, Any], split: pd.DataFrame) -> None:
        """Claims the folder for a run, or finds that the run there is the same.

        Args:
            decisive: the settings that decide the numbers.
            split: the recordings with their split.

        Raises:
            OutputError: it cannot be written to, or holds another run.
        """
        why = self.folder.why_unusable()
        if why:
            raise OutputError(f"--output {self.folder.uri}: cannot be used ({why})")
        table = split.to_csv(index=False).encode()
        run = dict(decisive) | {"split": hashlib.blake2b(table, digest_size=16).hexdigest()}
        if "run.json" in self.folder.names():
            before = json.loads(self.folder.read("run.json"))
            changed = [name for name in run if before.get(name) != run[name]]
            if changed:
                words = f"holds a run with another {', '.join(changed)}; choose another folder"
                raise OutputError(f"--output {self.folder.uri}: {words}")
            return
        self.folder.write("split.csv", table)
        self.write_json("run.json", run)

    def state(self) -> dict[str, Any] | None:
        """What the last finished epoch left, or None before the first."""
        if "state.pt" not in self.folder.names():
            return None
        state: dict[str, Any] = torch.load(
            io.BytesIO(self.folder.read("state.pt")), map_location="cpu", weights_only=True
        )
        return state

    def write_state(self, state: Mapping[str, Any], history: History) -> None:
        """An epoch is done once this is."""
        buffer = io.BytesIO()
        torch.save({**state, "history": history}, buffer)
        self.folder.write("state.pt", buffer.getvalue())
        self.folder.write("history.csv", pd.DataFrame(history).to_csv(index=False).encode())

    def weights(self, checkpoint: str) -> dict[str, torch.Tensor]:
        """The tensors of ``best`` or ``last``."""
        return safetensors.torch.load(self.folder.read(f"{checkpoint}/model.safetensors"))

    def write_weights(self, checkpoint: str, weights: dict[str, torch.Tensor]) -> None:
        """Writes the tensors of ``best`` or ``last``."""
        data = safetensors.torch.save(weights, metadata={"format": "pt"})
        self.folder.write(f"{checkpoint}/model.safetensors", data)

    def write_json(self, name: str, content: Any) -> None:
        """Writes a JSON file, its keys sorted."""
        text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
        self.folder.write(name, f"{text}\n".encode())
