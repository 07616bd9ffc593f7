"""The README's commands are ones that exist, and its Python runs."""

import re
import shlex
from pathlib import Path

import pyarrow as pa
import pytest
import yaml

from benchmarks.tables import tables
from jobs.command import parse
from ser_core.errors import Status
from ser_core.evaluation.config import EvaluateConfig
from ser_core.labeling.config import LabelConfig
from ser_core.labeling.label_store import Output
from ser_core.labeling.stages import Blocks
from ser_core.schema import output_schema, plan_schema
from ser_core.training.config import CompareSplitsConfig, TrainConfig

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


COMMANDS = [line for block in blocks("bash") for line in block.splitlines()]
CONFIGS = {
    "jobs.evaluate": EvaluateConfig,
    "jobs.label": LabelConfig,
    "jobs.protocols": CompareSplitsConfig,
    "jobs.train": TrainConfig,
}
SEEN_ELSEWHERE = (
    "git clone",  # whoever reads this has
    "ray up cluster.yaml",  # cluster.yaml itself is tested in test_deploy.py
    "ray down cluster.yaml",
    "ray dashboard cluster.yaml",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands(command):
    if command.startswith(SEEN_ELSEWHERE):
        return
    words = shlex.split(command)
    if words[0] == "make":  # and .ci/run calls them
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
        assert words[1] in targets
        return
    if words[:1] == ["python"] and words[1].endswith(".py"):
        assert (ROOT / words[1]).is_file()
        return
    start = words.index("python")  # by itself, or behind `ray job submit … --`
    assert start == 0 or words[:3] == ["ray", "job", "submit"]
    assert words[start : start + 2] == ["python", "-m"]
    parse(CONFIGS[words[start + 2]], words[start + 3 :])


def test_the_two_first_commands_are_the_demo():
    assert COMMANDS[1] == "make demo"
    assert "make demo" in (ROOT / ".ci" / "run").read_text()


def test_python(tmp_path, monkeypatch):
    schema = output_schema(["sad"], pa.schema([]))
    planned = pa.table([[0], ["a.wav"], ["id"], [1]], schema=plan_schema(pa.schema([])))
    work = Blocks("", False, ("sad",), pa.schema([]))
    rows = work.finish(work.failed(planned, Status.CRASHED, "why"), schema, "m", "d")
    Output(str(tmp_path / "demo-output"), schema).write_part(rows)
    monkeypatch.chdir(tmp_path)
    for code in blocks("python"):
        exec(code, {})


def test_the_tree_names_every_module():
    tree = README.split("## Where things are")[1].split("```")[1]
    for path in [*(ROOT / "ser_core").glob("*.py"), *(ROOT / "jobs").glob("*.py")]:
        assert path.name in tree or path.name == "__init__.py"


def test_the_example_settings_are_settings():
    settings = yaml.safe_load((ROOT / "examples" / "settings.yaml").read_text())
    LabelConfig(**{key.replace("-", "_"): value for key, value in settings.items()})


def test_the_figures_are_those_of_the_result_files():
    for table in tables():
        assert "\n".join(table) in README
