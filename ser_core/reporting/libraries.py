"""Checks that the libraries of optional jobs are installed; it imports none of them."""

import importlib.util

from ser_core.errors import UsageError

# Module → distribution, by extra of `ser-batch`. Modules import them where they are used: labeling
# runs without them.
_METRICS = {"matplotlib": "matplotlib", "jinja2": "jinja2", "sklearn": "scikit-learn"}
_LIBRARIES = {
    "report": _METRICS | {"duckdb": "duckdb"},
    "train": _METRICS,
    "verify": {"librosa": "librosa"},
}
_PURPOSES = {"verify": "for the model card's script"}


def require_libraries(extra: str) -> None:
    """Fails at the start of a job rather than after a long run.

    Args:
        extra: the extra of ``ser-batch`` that installs them.

    Raises:
        UsageError: a library is not installed.
    """
    libraries = _LIBRARIES[extra]
    if not all(map(importlib.util.find_spec, libraries)):
        *others, last = libraries.values()
        names = f"{', '.join(others)} and {last} are" if others else f"{last} is"
        purpose = _PURPOSES.get(extra, "for metrics and reports")
        raise UsageError(f"{names} required {purpose}: pip install 'ser-batch[{extra}]'")
