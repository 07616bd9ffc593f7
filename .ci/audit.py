"""Known vulnerabilities of the pinned dependencies, as far as data about them can be had."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
# What does not affect this project: the id of a vulnerability → the reason.
ACCEPTED: dict[str, str] = {}


def main() -> int:
    """1 if a vulnerability is known that a newer version fixes; 0 also where there is no data."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(CONSTRAINTS), "--no-deps"]
    command += ["--disable-pip", "--progress-spinner", "off", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except ValueError:  # it printed no report
        reason = (done.stderr.strip() or "no output").splitlines()[-1]
        print(f"audit: not audited: no data could be had ({reason})")
        return 0
    lines, code = summary(packages)
    print("\n".join(f"audit: {line}" for line in lines))
    return code


def summary(packages: list[dict[str, Any]]) -> tuple[list[str], int]:
    """What to print about the packages of a report, and the exit code."""
    found = [vulnerability for package in packages for vulnerability in _vulnerabilities(package)]
    skipped = [package["skip_reason"] for package in packages if "skip_reason" in package]
    audited, total = len(packages) - len(skipped), len(packages)
    lines = list(found)
    if audited and not found:
        lines.append(f"audited {audited} of {total}: no known vulnerability that has a fix")
    if skipped:
        reason = f"no data could be had ({skipped[0]})"
        lines.append(f"not audited {len(skipped)} of {total}: {reason}")
    return lines, 1 if found else 0


def _vulnerabilities(package: dict[str, Any]) -> list[str]:
    """Those that a newer version fixes and that are not accepted, each in one line."""
    return [
        f"{package['name']} {package['version']}: {each['id']}, fixed in {each['fix_versions'][0]}"
        for each in package.get("vulns", [])
        if each["fix_versions"] and ACCEPTED.keys().isdisjoint([each["id"], *each["aliases"]])
    ]


if __name__ == "__main__":
    sys.exit(main())
