"""Versions: one that cannot be found never raises, and the lower bounds are those tested."""

import re
import sys
import tomllib
from pathlib import Path

import numpy
import pytest

from ser_core.versions import NOT_INSTALLED, installed_version, installed_versions

ROOT = Path(__file__).parents[1]


def test_the_version_of_an_installed_package():
    assert installed_version("numpy") == numpy.__version__


def test_versions_keep_the_given_order():
    versions = installed_versions(["pyarrow", "no-such-package", "numpy"])
    assert list(versions) == ["pyarrow", "no-such-package", "numpy"]
    assert versions["no-such-package"] == NOT_INSTALLED


@pytest.mark.parametrize("content", ["", "Name: half-removed\n"])
def test_a_package_whose_metadata_is_incomplete(content, tmp_path, monkeypatch):
    """What an interrupted `pip uninstall` leaves behind."""
    (tmp_path / "half_removed-1.0.dist-info").mkdir()
    (tmp_path / "half_removed-1.0.dist-info" / "METADATA").write_text(content)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert installed_version("half-removed") == NOT_INSTALLED


def lower_bounds() -> dict[str, str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = ("s3", "gcs", "azure", "speech", "report", "verify")
    extras = [line for name in names for line in project["optional-dependencies"][name]]
    requirements = [*project["dependencies"], *extras]
    return dict(re.fullmatch(r"([\w-]+)(?:\[.*\])?>=([\d.]+).*", r).groups() for r in requirements)


def test_the_lowest_versions_tested_are_the_lower_bounds():
    """`make test-lowest` installs constraints-lowest.txt."""
    constraints = (ROOT / "constraints-lowest.txt").read_text()
    assert dict(re.findall(r"^([\w-]+)==(\S+)$", constraints, re.M)) == lower_bounds()


def test_the_pinned_versions_are_within_the_bounds():
    def numbers(version: str) -> list[int]:
        return [int(n) for n in version.split(".")[:3] if n.isdigit()]

    lines = re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)
    pins = {name.lower().replace("_", "-"): version for name, version in lines}
    bounds = lower_bounds()
    for package, bound in bounds.items():
        assert numbers(pins[package]) >= numbers(bound), package
