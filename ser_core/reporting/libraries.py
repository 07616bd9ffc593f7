"""Checks that the optional libraries of reports are installed; it imports none of them."""

import importlib.util

from ser_core.errors import UsageError

# Module → distribution. They belong to the extra `report`, so modules import them where they are
# used: labeling runs without them.
_LIBRARIES = {
    "matplotlib": "matplotlib",
    "jinja2": "jinja2",
    "sklearn": "scikit-learn",
    "duckdb": "duckdb",
}


def require_libraries(extra: str) -> None:
    """Fails at the start of a job rather than after a long run.

    Args:
        extra: the extra of ``ser-batch`` that installs them.

    Raises:
        UsageError: a library is not installed.
    """
    if not all(map(importlib.util.find_spec, _LIBRARIES)):
        *others, last = _LIBRARIES.values()
        raise UsageError(
            f"{', '.join(others)} and {last} are required for metrics and reports:"
            f" pip install 'ser-batch[{extra}]'"
        )
