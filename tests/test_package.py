"""What `import ser_core` offers, and what it costs."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import ser_core
from ser_core.versions import installed_version

ROOT = Path(__file__).parents[1]
HEAVY = {"numpy", "pandas", "pyarrow", "pydantic", "ray", "rich", "torch", "transformers"}


def test_importing_the_package_imports_nothing_heavy():
    look = "dir(ser_core); ser_core.__version__"
    code = f"import sys, ser_core; {look}; print({HEAVY} & {{*sys.modules}})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


def test_all_names_can_be_had_and_no_others():
    assert ser_core.__all__ == ["Classifier", "__version__", "label", "load_checkpoint"]
    assert {*ser_core.__all__} <= {*dir(ser_core)}
    for name in ("Classifier", "label", "load_checkpoint"):
        assert getattr(ser_core, name).__name__ == name
        assert getattr(ser_core, name).__doc__
    assert ser_core.__version__ == installed_version("ser-batch")
    with pytest.raises(AttributeError, match="'ser_core' has no attribute 'lable'"):
        _ = ser_core.lable


def test_type_checkers_are_told_that_the_package_has_types():
    assert (ROOT / "ser_core" / "py.typed").is_file()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "py.typed" in project["tool"]["setuptools"]["package-data"]["ser_core"]
