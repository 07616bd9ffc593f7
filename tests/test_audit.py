"""The audit fails for a known vulnerability with a fix, and says what it has no data for."""

import importlib.util
import json
import subprocess
from pathlib import Path

import pytest

VULNERABLE = {
    "name": "pillow",
    "version": "9.0.0",
    "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["9.0.1", "9.1"]}],
}
WITHOUT_FIX = {
    "name": "numpy",
    "version": "2.0.0",
    "vulns": [{"id": "PYSEC-2", "aliases": [], "fix_versions": []}],
}
FINE = {"name": "rich", "version": "14.0.0", "vulns": []}
UNKNOWN = {"name": "torch", "skip_reason": "Dependency not found: torch (2.13.0)"}


@pytest.fixture
def audit(monkeypatch, capsys):
    """Runs the audit with what pip-audit prints; returns its exit code and lines."""
    path = Path(__file__).parents[1] / ".ci" / "audit.py"
    spec = importlib.util.spec_from_file_location("audit", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(printed, error="", accepted=()):
        done = subprocess.CompletedProcess([], 1, printed, error)
        monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: done)
        monkeypatch.setattr(module, "ACCEPTED", dict.fromkeys(accepted, "not called here"))
        return module.main(), capsys.readouterr().out.splitlines()

    return run


def report(*packages):
    return json.dumps({"dependencies": packages, "fixes": []})


def test_a_vulnerability_with_a_fix_fails(audit):
    code, lines = audit(report(FINE, VULNERABLE, UNKNOWN))
    assert code == 1
    assert lines[0] == "audit: pillow 9.0.0: PYSEC-1, fixed in 9.0.1"


@pytest.mark.parametrize("accepted", ["PYSEC-1", "CVE-1"])
def test_one_that_does_not_affect_this_project_is_accepted(audit, accepted):
    assert audit(report(VULNERABLE), accepted=[accepted])[0] == 0
    assert audit(report(VULNERABLE), accepted=["CVE-2"])[0] == 1


def test_without_a_fix_or_a_vulnerability_it_passes(audit):
    fine = "audit: audited 2 of 2: no known vulnerability that has a fix"
    assert audit(report(FINE, WITHOUT_FIX)) == (0, [fine])


def test_missing_data_is_told_and_does_not_fail(audit):
    reason = "no data could be had (Dependency not found: torch (2.13.0))"
    assert audit(report(UNKNOWN)) == (0, [f"audit: not audited 1 of 1: {reason}"])
    offline = "Traceback\nConnectionError: no answer"
    line = "audit: not audited: no data could be had (ConnectionError: no answer)"
    assert audit("", offline) == (0, [line])
