"""The table of jobs, `ser-batch`, and that both answer before anything heavy is imported."""

import inspect
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from jobs.command import parse
from jobs.ser_batch import JOBS, main
from ser_core.versions import installed_version

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "ray", "pandas", "pyarrow", "numpy", "scipy", "sklearn", "matplotlib"}
HEAVY |= {"transformers", "huggingface_hub", "librosa", "soundfile", "av", "fsspec", "rich"}
NEEDED = {
    "label": ["--input", "in", "--output", "out"],
    "train": ["--corpus", "casia", "--data", "in", "--output", "out"],
    "evaluate": ["--labels", "in", "--output", "out"],
    "report": ["--labels", "in", "--output", "out"],
    "verify": ["--labels", "in"],
    "compare-splits": ["--corpus", "casia", "--data", "in", "--output", "out"],
}


def ser_batch(argv, monkeypatch):
    """Runs `ser-batch` and returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["ser-batch", *argv])
    try:
        return main()
    except SystemExit as exited:
        return exited.code


@pytest.mark.parametrize("name", JOBS)
def test_a_job_takes_its_own_config(name):
    job = JOBS[name]
    config, *others = inspect.signature(pkgutil.resolve_name(job.function)).parameters.values()
    assert config.annotation is job.config
    assert all(parameter.default is not parameter.empty for parameter in others)


@pytest.mark.parametrize("name", JOBS)
def test_every_job_is_a_subcommand_and_a_module(name, monkeypatch, capsys):
    module = f"jobs.{name.replace('-', '_')}"
    for flag, code in ("--zzz", 2), ("--help", 0):
        assert ser_batch([name, flag], monkeypatch) == code
        printed = capsys.readouterr()
        command = [sys.executable, "-m", module, flag]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (code, printed.err)
        assert done.stdout.partition("options:")[2] == printed.out.partition("options:")[2]
    assert done.stdout.startswith(f"usage: python -m {module} ")
    assert printed.out.startswith(f"usage: ser-batch {name} ")


def test_no_job_module_is_missing_from_the_table():
    modules = {path.stem for path in (ROOT / "jobs").glob("*.py")}
    assert modules - {"__init__", "command", "dates", "ser_batch", "start"} == {
        n.replace("-", "_") for n in JOBS
    }


def test_help_has_one_line_for_each_job(monkeypatch, capsys):
    assert ser_batch(["--help"], monkeypatch) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, job in JOBS.items():
        (line,) = [line for line in lines if line.split()[:1] == [name]]
        assert line.endswith(f" {job.summary}")
        assert len(line) <= 79


@pytest.mark.parametrize("argv", [["--version"], *([name, "--version"] for name in JOBS)])
def test_version(argv, monkeypatch, capsys):
    assert ser_batch(argv, monkeypatch) == 0
    assert capsys.readouterr().out == f"ser-batch {installed_version('ser-batch')}\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "a command is missing"),
        (["lable"], "there is no command lable; did you mean label?"),
        (["--input", "x"], "there is no command --input; `ser-batch --help` lists them"),
    ],
)
def test_an_unknown_command(argv, message, monkeypatch, capsys):
    assert ser_batch(argv, monkeypatch) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def modules_after(code: str) -> set[str]:
    """The top-level packages that a new interpreter has imported after running the code."""
    code += "\nimport json, sys; print(json.dumps([*sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, check=True
    )
    return {name.split(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


@pytest.mark.parametrize("name", JOBS)
def test_nothing_heavy_is_imported_before_the_arguments_are_known_to_be_right(name):
    """Counts modules rather than seconds: an idle machine and a busy one give the same result."""
    module = f"jobs.{name.replace('-', '_')}"
    code = f"""
import runpy, sys
from jobs.command import parse
from jobs.ser_batch import JOBS, main
for flag in "--help", "--version", "--precison":
    sys.argv = ["ser-batch", {name!r}, flag]
    for run in main, lambda: runpy.run_module({module!r}, run_name="__main__"):
        try:
            run()
        except SystemExit:
            pass
    sys.argv.remove({name!r})
parse(JOBS[{name!r}].config, {NEEDED[name]!r})
"""
    modules = modules_after(code)
    assert "pydantic" in modules
    assert not modules & HEAVY


def test_nothing_heavy_is_imported_for_help_and_version():
    code = """
import sys
from jobs.ser_batch import main
for argv in [], ["--help"], ["--version"], ["lable"]:
    sys.argv = ["ser-batch", *argv]
    try:
        main()
    except SystemExit:
        pass
"""
    assert not modules_after(code) & HEAVY


@pytest.mark.parametrize(("name", "file"), [("label", "settings.yaml"), ("train", "train.yaml")])
def test_the_example_settings_are_settings(name, file):
    path = ROOT / "examples" / file
    config = parse(JOBS[name].config, ["--config", str(path)])
    for key, value in yaml.safe_load(path.read_text()).items():
        assert getattr(config, key.replace("-", "_")) in (value, (value,))
