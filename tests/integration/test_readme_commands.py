"""The printed commands run as printed, in the shell that somebody has after `make demo`.

tests/test_docs.py parses every printed command; here those that can run without a bucket or a
cluster do run.
"""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from examples import demo

ROOT = Path(__file__).parents[2]
ACTIVATE = "source .venv/bin/activate"
# What stands for the reader's own data → what this repository has.
PLACEHOLDERS = {
    "s3://bucket/calls.csv": "examples/corpus.csv",
    "s3://bucket/calls": "examples/corpus",
    "s3://bucket/labels": "labels",
}
# The only checkpoint that is there without a download.
OFFLINE = f"--model {demo.CHECKPOINT}"


def bash_commands(text: str) -> list[str]:
    """The lines of a Markdown text's bash blocks, with continued lines joined."""
    blocks = re.findall(r"```bash\n(.*?)```", text, re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip()]


README = bash_commands((ROOT / "README.md").read_text())
LABEL = [c for c in dict.fromkeys(README) if c.startswith(("ser-batch label", "python -m jobs.l"))]


@pytest.fixture
def shell(tmp_path):
    """Runs lines in a plain bash with a clean PATH, in a folder that looks like the clone."""
    if sys.prefix == sys.base_prefix:
        pytest.skip("these tests do not run in a virtual environment, which the README activates")
    clone = tmp_path / "ser-batch"
    clone.mkdir()
    for path in ROOT.iterdir():  # links, so that outputs do not land in the real clone
        if path.name not in (".venv", demo.OUTPUT, "labels"):
            (clone / path.name).symlink_to(path)
    (clone / ".venv").symlink_to(sys.prefix)

    def run(*lines: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-c", "\n".join(["set -e", *lines])],
            cwd=clone,
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "LANG": "C.UTF-8"},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def local(command: str) -> str:
    """The command with the reader's data replaced by the example corpus and checkpoint."""
    for placeholder, path in PLACEHOLDERS.items():
        command = command.replace(placeholder, path)
    assert "://" not in command
    return command if " --model " in command else f"{command} {OFFLINE}"


def test_the_readme_activates_the_environment_before_it_runs_a_command():
    commands = [line for line in README if line.startswith(("ser-batch", "python"))]
    assert README.index("make demo") < README.index(ACTIVATE) < README.index(commands[0])


def test_without_the_activation_there_is_no_ser_batch(shell):
    assert shell("ser-batch --version").returncode == 127


@pytest.mark.parametrize("command", ["ser-batch", "ser-batch label", "python -m jobs.label"])
def test_version_and_help(command, shell):
    done = shell(ACTIVATE, f"{command} --version", f"{command} --help")
    assert done.returncode == 0, done.stderr
    version, usage = done.stdout.splitlines()[:2]
    assert re.fullmatch(r"ser-batch \d+\.\d+\.\d+", version)
    assert usage.startswith(f"usage: {command} ")


@pytest.mark.parametrize("command", LABEL)
def test_a_printed_label_command_labels_every_recording(command, shell, tmp_path):
    done = shell(ACTIVATE, local(command))
    assert done.returncode == 0, done.stderr
    recordings = list((ROOT / "examples" / "corpus").rglob("*.*"))
    assert len(pd.read_parquet(tmp_path / "ser-batch" / "labels")) == len(recordings)


def test_the_demo_ends_with_the_commands_of_the_readme(monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(ROOT / ".venv"))  # where `make demo` installs
    printed = re.findall(r"^  (.*)$", demo.next_steps(), re.M)
    assert printed[0] == ACTIVATE
    assert set(printed) <= set(README)
