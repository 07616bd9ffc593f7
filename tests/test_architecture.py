"""Packages import in one direction, and Ray and torch are imported only where allowed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = ROOT / "ser_core"

# A package may import itself and those before it.
ORDER = (
    "vocabulary storage audio sources corpora models labeling reporting evaluation training"
    " verification"
)
PACKAGES = ORDER.split()
VOCABULARY = {"errors", "emotions", "schema", "settings", "isolation", "versions"}
VOCABULARY |= {"console", "log", "terminal"}
RAY = {
    "cluster",
    "labeling.classifier_actor",
    "labeling.listing",
    "labeling.metrics",
    "labeling.one_machine",
    "labeling.pipeline",
    "labeling.resources",
    "labeling.rounds",
    "training.driver",
    "training.worker",
}
TORCH = {"models", "training"}
# `cluster` joins Ray for these packages; it imports only the vocabulary.
ABOVE_CLUSTER = {"labeling", "training"}


def modules() -> dict[str, set[str]]:
    """The modules of ser_core, each with the names that it imports."""
    imported = {}
    for path in CORE.rglob("*.py"):
        name = ".".join(path.relative_to(CORE).with_suffix("").parts)
        imported[name.removesuffix(".__init__")] = set(imports(path))
    return imported


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
def test_imports_follow_the_order_of_packages(module):
    own = package(module)
    allowed = {*PACKAGES[: PACKAGES.index(own) + 1]} if own in PACKAGES else {"vocabulary"}
    allowed |= {"cluster"} if own in ABOVE_CLUSTER else set()
    assert {package(name) for name in OURS[module]} <= allowed


def test_no_circular_imports():
    remaining = dict(OURS)
    while leaves := [
        module
        for module, imported in remaining.items()
        if not imported & (remaining.keys() - {module})
    ]:
        for module in leaves:
            del remaining[module]
    assert not remaining, f"circular imports: {sorted(remaining)}"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_ray_and_torch_are_imported_only_where_allowed(module):
    libraries = {name.split(".")[0] for name in MODULES[module]}
    assert module in RAY or "ray" not in libraries
    assert package(module) in TORCH or not libraries & {"torch", "transformers"}


def test_the_cards_script_shares_no_code_with_what_it_checks():
    assert not OURS["models.card"]


def test_packages_have_a_docstring_and_no_code():
    for name in PACKAGES[1:]:
        tree = ast.parse((CORE / name / "__init__.py").read_text())
        assert ast.get_docstring(tree), f"{name} has no docstring"
        assert len(tree.body) == 1, f"{name}/__init__.py contains code"


LISTING = ("sources.forms", "labeling.listing", "labeling.label_store", "labeling.coverage")


@pytest.mark.parametrize("module", ["labeling.pipeline", "labeling.stages", *LISTING])
def test_processes_that_list_and_decode_do_not_import_torch(module):
    code = (
        f"import sys, ser_core.{module}; sys.exit('torch' in sys.modules or"
        " 'librosa' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_the_classifier_needs_only_torch_and_transformers(small_checkpoint):
    """GPU machines on which it is measured have nothing else installed."""
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


def test_files_and_functions_are_short():
    for path in [*CORE.rglob("*.py"), *(ROOT / "jobs").glob("*.py")]:
        source = path.read_text()
        assert source.count("\n") <= 320, f"{path.name} is long"
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 43, f"{path.name}: {node.name} is long"
