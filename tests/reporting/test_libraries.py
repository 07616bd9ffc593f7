"""A missing optional library is one line that says how to install it."""

import importlib.util

import pytest

from ser_core.errors import UsageError
from ser_core.reporting.libraries import require_libraries


@pytest.mark.parametrize("extra", ["report", "train", "verify"])
def test_all_are_installed(extra):
    require_libraries(extra)


@pytest.mark.parametrize("missing", ["matplotlib", "jinja2", "sklearn", "duckdb"])
def test_each_is_required(monkeypatch, missing):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else name)
    with pytest.raises(UsageError) as caught:
        require_libraries("train")
    assert str(caught.value) == (
        "matplotlib, jinja2, scikit-learn and duckdb are required for metrics and reports:"
        " pip install 'ser-batch[train]'"
    )
