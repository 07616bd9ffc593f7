"""Labels speech with emotion; this is what Python code may use of ser-batch.

- `label`: recordings in, a DataFrame out
- `load_checkpoint`: a hub id, folder or URI to a checkpoint in memory
- `Classifier`: a checkpoint on a device; waveforms in, scores out

Errors are those of `ser_core.errors`. Nothing else is imported before it is used.

>>> import ser_core
>>> checkpoint = ser_core.load_checkpoint("examples/checkpoint")
>>> classifier = ser_core.Classifier(checkpoint, precision="fp32")
>>> labels = ser_core.label(["examples/corpus/sad/answer-m3.wav"], classifier)
>>> labels.loc[0, "label"]
'sad'
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["Classifier", "__version__", "label", "load_checkpoint"]

if TYPE_CHECKING:
    from ser_core.labeling.in_process import label
    from ser_core.models.checkpoint import load_checkpoint
    from ser_core.models.classifier import Classifier

    __version__: str
else:
    _MODULES = {
        "Classifier": "ser_core.models.classifier",
        "label": "ser_core.labeling.in_process",
        "load_checkpoint": "ser_core.models.checkpoint",
    }

    def __getattr__(name: str) -> Any:
        """Imports a public name when it is first used."""
        if name == "__version__":
            from ser_core.versions import installed_version

            return installed_version("ser-batch")
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_MODULES[name]), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
