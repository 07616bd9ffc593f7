"""Imports only go down, and ray and torch stay where they belong."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LEVELS = [
    {"errors", "emotions", "schema", "waveform"},
    {"audio", "storage", "metrics", "pages"},
    {"checkpoint", "fetch", "manifest", "output", "splits"},
    {"model", "blocks", "cluster", "corpora"},
    {"elision", "cpu_kernels"},
    {"classifier", "judged", "pretrained", "utterances", "training_output", "model_card"},
    {"pipeline", "progress", "scorecard", "finetuning"},
    {"train_workers"},
    {"labeling", "evaluation", "training"},
    {"protocols"},
]
RAY = {"cluster", "pipeline", "train_workers"}
TORCH = {"checkpoint", "model", "elision", "cpu_kernels", "classifier"}
TORCH |= {"pretrained", "finetuning", "training_output", "train_workers"}


def imports(path):
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


MODULES = sorted(path.stem for path in (ROOT / "ser_core").glob("*.py") if path.stem != "__init__")


def test_every_module_has_a_level():
    assert set(MODULES) == set().union(*LEVELS)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module):
    level = next(i for i, names in enumerate(LEVELS) if module in names)
    below = set().union(*LEVELS[:level])
    ours = {
        name.removeprefix("ser_core.").split(".")[0]
        for name in imports(ROOT / "ser_core" / f"{module}.py")
        if name.startswith("ser_core.")
    }
    assert ours <= below, f"{module} imports {ours - below} of its own level or above"


@pytest.mark.parametrize("module", MODULES)
def test_ray_and_torch_stay_where_they_belong(module):
    tops = {name.split(".")[0] for name in imports(ROOT / "ser_core" / f"{module}.py")}
    assert ("ray" in tops) <= (module in RAY)
    assert ("torch" in tops or "transformers" in tops) <= (module in TORCH)


@pytest.mark.parametrize("module", ["ser_core.labeling.pipeline", "ser_core.labeling.stages"])
def test_a_process_that_decodes_loads_no_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules or 'librosa' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_classifier_needs_torch_and_transformers_alone(small_checkpoint):
    """Machines with a GPU to be measured have no more."""
    code = f"""
import sys
for absent in "ray librosa av soundfile soxr tenacity pyarrow pandas pydantic rich".split():
    sys.modules[absent] = None  # importing it fails
import benchmarks.batches, benchmarks.classifier
from benchmarks.measuring import waveforms
compared = benchmarks.classifier.sides({str(small_checkpoint)!r}, 2)
assert all(scores(waveforms([1.0])).shape == (1, 6) for scores in compared.values())
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_sizes_stay_small():
    for path in [*(ROOT / "ser_core").glob("*.py"), *(ROOT / "jobs").glob("*.py")]:
        source = path.read_text()
        assert source.count("\n") <= 320, f"{path.name} is long"
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 50, f"{path.name}: {node.name} is long"
