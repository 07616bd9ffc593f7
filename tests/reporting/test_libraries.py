"""A missing optional library is one line that says how to install it."""

import importlib.util

import pytest

from ser_core.errors import UsageError
from ser_core.reporting.libraries import require_libraries


@pytest.mark.parametrize("extra", ["report", "train", "verify"])
def test_all_are_installed(extra):
    require_libraries(extra)


METRICS = ["matplotlib", "jinja2", "sklearn"]
CASES = [
    *[("train", name) for name in METRICS],
    *[("report", name) for name in (*METRICS, "duckdb")],
    ("verify", "librosa"),
]
MESSAGES = {
    "train": "matplotlib, jinja2 and scikit-learn are required for metrics and reports",
    "report": "matplotlib, jinja2, scikit-learn and duckdb are required for metrics and reports",
    "verify": "librosa is required for the model card's script",
}


@pytest.mark.parametrize(("extra", "missing"), CASES)
def test_each_is_required(monkeypatch, extra, missing):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else name)
    with pytest.raises(UsageError) as caught:
        require_libraries(extra)
    assert str(caught.value) == f"{MESSAGES[extra]}: pip install 'ser-batch[{extra}]'"
