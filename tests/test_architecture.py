"""Imports point one way between packages, and Ray and torch stay where they belong."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = ROOT / "ser_core"

# A package imports what stands before it.
ORDER = "vocabulary storage audio sources corpora models labeling reporting evaluation training"
PACKAGES = ORDER.split()
VOCABULARY = {"errors", "emotions", "schema", "settings", "console", "versions"}
RAY = {"cluster", "labeling.pipeline", "labeling.resources", "training.worker"}
TORCH = {"models", "training"}
# `cluster` joins Ray for labeling and training; it knows the vocabulary alone.
ABOVE_CLUSTER = {"labeling", "training"}


def modules() -> dict[str, set[str]]:
    """Each module of ser_core, with all that it imports."""
    found = {}
    for path in CORE.rglob("*.py"):
        name = ".".join(path.relative_to(CORE).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = set(imports(path))
    return found


def imports(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def package(module: str) -> str:
    top = module.split(".", maxsplit=1)[0]
    return "vocabulary" if top in VOCABULARY else top


MODULES = modules()
OURS = {
    module: {
        name.removeprefix("ser_core.")
        for name in imported
        if name.removeprefix("ser_core.") in MODULES and name.startswith("ser_core.")
    }
    for module, imported in MODULES.items()
}


@pytest.mark.parametrize("module", sorted(MODULES.keys() - {"__init__"}))
def test_imports_point_one_way(module):
    mine = package(module)
    allowed = {*PACKAGES[: PACKAGES.index(mine) + 1]} if mine in PACKAGES else {"vocabulary"}
    allowed |= {"cluster"} if mine in ABOVE_CLUSTER else set()
    assert {package(name) for name in OURS[module]} <= allowed


def test_no_circles_within_a_package():
    left = dict(OURS)
    while ready := [module for module in left if not left[module] & (left.keys() - {module})]:
        for module in ready:
            del left[module]
    assert not left, f"these import each other: {sorted(left)}"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_ray_and_torch_stay_where_they_belong(module):
    tops = {name.split(".")[0] for name in MODULES[module]}
    assert ("ray" in tops) <= (module in RAY)
    assert bool(tops & {"torch", "transformers"}) <= (package(module) in TORCH)


def test_packages_say_what_they_are_and_hold_nothing():
    for name in PACKAGES[1:]:
        tree = ast.parse((CORE / name / "__init__.py").read_text())
        assert ast.get_docstring(tree), f"{name} has no docstring"
        assert len(tree.body) == 1, f"{name}/__init__.py holds code"


@pytest.mark.parametrize("module", ["labeling.pipeline", "labeling.stages", "sources.forms"])
def test_a_process_that_decodes_loads_no_torch(module):
    code = (
        f"import sys, ser_core.{module}; sys.exit('torch' in sys.modules or"
        " 'librosa' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
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
    for path in [*CORE.rglob("*.py"), *(ROOT / "jobs").glob("*.py")]:
        source = path.read_text()
        assert source.count("\n") <= 320, f"{path.name} is long"
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 50, f"{path.name}: {node.name} is long"
