"""README and docs/ are true: commands parse, Python runs, figures are measured, links resolve."""

import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import MagicMock

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import yaml
from label_folders import label_rows, random_scores, write_labels

from benchmarks.tables import sentences, tables
from jobs.command import LogSettings, parse
from jobs.ser_batch import JOBS
from ser_core import sources
from ser_core.audio.decode import decode
from ser_core.errors import Status
from ser_core.labeling.config import LabelConfig
from ser_core.labeling.progress import RunStats
from ser_core.labeling.run_report import RunReport
from ser_core.models.checkpoint import load_checkpoint
from ser_core.models.classifier import Classifier
from ser_core.reporting.config import ReportConfig
from ser_core.reporting.job import report_labels
from ser_core.schema import output_schema
from ser_core.sources.forms import open_source, read_members
from ser_core.storage.reading import Stopwatch
from ser_core.verification.report import Verification

ROOT = Path(__file__).parents[1]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted((ROOT / "docs").glob("*.md")),
    ]
}
README, OUTPUT, ARCHITECTURE = (
    PAGES[name] for name in ("README.md", "docs/output.md", "docs/architecture.md")
)


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page, re.S)


def rows(page, header):
    """The cells of the Markdown table that begins with this header."""
    table = page.split(f"\n{header}\n")[1].split("\n\n")[0]
    lines = [line for line in table.splitlines() if line.strip().startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[1:]]


# ---- commands ------------------------------------------------------------------------------------

COMMANDS = [
    (name, command)
    for name, page in PAGES.items()
    for block in blocks(page, "bash")
    for command in block.splitlines()
]
NOT_OURS = (
    "git clone",
    "source .venv/bin/activate",  # integration/test_readme_commands.py runs what follows it
    "ray up cluster.yaml",  # cluster.yaml itself is tested in test_deploy.py
    "ray down cluster.yaml",
    "ray dashboard cluster.yaml",
)


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_commands(page, command):
    if command.startswith(NOT_OURS):
        return
    arguments = shlex.split(command)
    match arguments:
        case [*places, "deploy/nightly.sh"] if places:  # test_nightly.py runs it
            assert all(re.fullmatch(r"(INPUT|LABELS|REPORTS)=\S+", place) for place in places)
        case ["make", target]:
            assert target in re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
        case ["pip", "install", "-e", target]:
            extras = re.fullmatch(r"\.\[([\w,]+)\]", target)[1].split(",")
            project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
            assert set(extras) <= set(project["optional-dependencies"])
        case ["ser-batch", job, *flags]:
            parse(JOBS[job].config, flags)
        case ["ray", "job", "submit", *_]:
            test_commands(page, shlex.join(arguments[arguments.index("--") + 1 :]))
        case ["python", "-m", module, *flags]:
            package, name = module.split(".")
            assert (ROOT / package / f"{name}.py").is_file()
            if package == "jobs":
                parse(JOBS[name.replace("_", "-")].config, flags)
            else:
                assert not flags
        case _:
            pytest.fail(f"{page} shows a command that no test knows: {command}")


def test_the_first_commands_are_the_demo():
    first = [command for page, command in COMMANDS if page == "README.md"][:4]
    assert first[1:3] == ["make demo", "source .venv/bin/activate"]
    assert first[3].startswith("ser-batch label")
    assert re.search(r"\bdemo\b", (ROOT / ".ci" / "run").read_text())  # and it runs there


FLAGS_OF_ALL = {"--help", "--version", "--config", "--date"}
FLAGS_OF_OTHERS = FLAGS_OF_ALL | {
    "--working-dir", "--address", "--no", "--metrics-export-port",
    "--nodes", "--gpus-per-node", "--jobs", "--format",  # of SLURM
}  # fmt: skip


def test_every_flag_exists():
    ours = {
        f"--{no}{name.replace('_', '-')}"
        for config in (LogSettings, *(job.config for job in JOBS.values()))
        for name, field in config.model_fields.items()
        for no in (("", "no-") if field.annotation is bool else ("",))
    }
    for name, page in PAGES.items():
        flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", page))
        assert flags <= ours | FLAGS_OF_OTHERS, f"{name}: {flags - ours - FLAGS_OF_OTHERS}"


def test_the_example_settings_are_settings():
    settings = yaml.safe_load((ROOT / "examples" / "settings.yaml").read_text())
    LabelConfig(**{key.replace("-", "_"): value for key, value in settings.items()})


# ---- Python --------------------------------------------------------------------------------------

SCRIPTS = [
    pytest.param(code, id=name)
    for name, page in PAGES.items()
    for code in blocks(page, "python")
    if not code.startswith("# ser_core/")  # a module of a worked example, see below
]


@pytest.mark.parametrize("code", SCRIPTS)
def test_python(code, tmp_path):
    schema = output_schema(["sad"], pa.schema([]), 2)
    embedding = {"embedding_size": 2, "embedding": [0.5, -1.0]}
    values = {
        "path": "/a.wav",
        "status": "ok",
        "label": "sad",
        "score": 0.5,
        "score_sad": 0.5,
    } | embedding
    table = pa.table([pa.array([values.get(f.name)]).cast(f.type) for f in schema], schema=schema)
    (tmp_path / "demo-output" / "__runs").mkdir(parents=True)
    (tmp_path / "demo-output" / "__runs" / "run.json").write_text("{}")
    pq.write_table(table, tmp_path / "demo-output" / "part-1.parquet")
    env = os.environ | {"HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, check=True)


SESSIONS = {name: page for name, page in PAGES.items() if blocks(page, "pycon")}
RUN_SESSION = """
import doctest, sys
sys.modules["ray"] = None  # importing it fails
flags = doctest.NORMALIZE_WHITESPACE
sys.exit(doctest.testfile(sys.argv[1], module_relative=False, optionflags=flags).failed)
"""


@pytest.mark.parametrize("page", SESSIONS)
def test_sessions(page, tmp_path):
    """They print what the page shows, in a fresh clone and without Ray."""
    (tmp_path / "session").write_text("\n".join(blocks(SESSIONS[page], "pycon")))
    command = [sys.executable, "-c", RUN_SESSION, str(tmp_path / "session")]
    env = os.environ | {"OMP_NUM_THREADS": "1"}  # the network is small
    run = subprocess.run(command, cwd=ROOT, env=env, check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


# ---- what the pages say of the code --------------------------------------------------------------


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 140


def test_the_columns_are_those_of_the_output():
    names = [name.strip("`") for name, *_ in rows(OUTPUT, "| column | type | |")]
    assert names[:-1] == output_schema(["<label>"], pa.schema([]), 768).names
    in_readme = " ".join(name for name, _ in rows(README, "| column | |"))
    assert re.findall(r"`([^`]+)`", in_readme) == names[:-1]


def test_the_statuses_are_those_of_the_code():
    kinds = {name.strip("`"): kind for name, kind, _ in rows(OUTPUT, "| `status` | kind | |")}
    assert kinds == {s.value: "final" if s.final else "transient" for s in Status}
    for status in Status:
        assert f"`{status.value}`" in README


def test_the_run_report_is_described():
    """All its keys, in the order of the file."""
    written = {}
    run, checkpoint = MagicMock(started=datetime.now(UTC)), MagicMock(labels=["sad"])
    run.checkpoint, run.store.write_report = checkpoint, lambda _, report: written.update(report)
    RunReport(run, RunStats()).write(None)
    assert sorted(described(OUTPUT)) == sorted(written)  # each once
    outcomes = {word.strip("`") for word, *_ in rows(OUTPUT, "| `outcome` | `exit_code` | |")}
    assert outcomes == {"complete", "nothing_to_do", "check_failed", "incomplete"}


def described(page, header="| key | |"):
    """The keys in the first column of a table, in order."""
    return [key for keys, *_ in rows(page, header) for key in re.findall(r"`(\w+)`", keys)]


def test_the_summary_of_a_report_is_described(tmp_path):
    labels = write_labels(tmp_path / "labels", label_rows(["a"], random_scores(1)))
    settings = {"labels": str(labels), "baseline": str(labels), "audio": False}
    summary = report_labels(ReportConfig(output=str(tmp_path / "report"), **settings))
    assert sorted(described(PAGES["docs/reports.md"])) == sorted(summary)
    (words,) = (
        text for key, text in rows(PAGES["docs/reports.md"], "| key | |") if key == "`drift`"
    )
    assert set(summary["drift"]) < set(re.findall(r"`(\w+)`", words))


def test_the_file_of_a_verification_is_described():
    found = Verification("labels", MagicMock(), "cpu", 0, None, [], [])
    assert sorted(described(PAGES["docs/verification.md"])) == sorted(found.summary())


def test_the_phases_and_the_metrics_are_those_of_the_code():
    page = PAGES["docs/monitoring.md"]
    code = {path: path.read_text() for path in (ROOT / "ser_core" / "labeling").glob("*.py")}
    all_code = "".join(code.values()) + (ROOT / "jobs" / "ser_batch.py").read_text()
    for name, _ in rows(page, "| phase | what takes the time |"):
        assert f'"{name.strip("`")}"' in all_code
    described = {name.strip("`") for name, _ in rows(page, "| metric | |")}
    metrics = code[ROOT / "ser_core" / "labeling" / "metrics.py"]
    kinds = {"Counter": "_total", "Gauge": ""}
    assert described == {
        f"ray_{name}{kinds[kind]}"
        for kind, name in re.findall(r'\b(Counter|Gauge)\(\s*"(\w+)"', metrics)
    }


def test_every_module_is_in_the_layout():
    modules = {
        str(path.relative_to(ROOT))
        for package in ("ser_core", "jobs")
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__init__.py"
    }
    layout = ARCHITECTURE.split("\n## Layout\n")[1].split("\n## ")[0]
    listed = re.findall(r"^\| `((?:ser_core|jobs)/[\w/]+\.py)` \|", layout, re.M)
    assert sorted(listed) == sorted(modules)


def test_every_module_that_a_page_names_exists():
    # A module of a worked example does not exist, and neither does the test of it.
    examples = {code.split("\n")[0].removeprefix("# ") for code in blocks(ARCHITECTURE, "python")}
    examples |= {re.sub(r"ser_core/(.*/)(\w+\.py)", r"tests/\1test_\2", path) for path in examples}
    for name, page in PAGES.items():
        for path in re.findall(r"`((?:ser_core|jobs|benchmarks|examples|tests)/[\w./-]+)`", page):
            assert (ROOT / path).exists() or path in examples, f"{name}: {path}"


def test_the_demo_rows_are_those_of_the_checkpoint(monkeypatch):
    monkeypatch.chdir(ROOT)
    shown = README.split("## The demo")[1].split("```")[1]
    lines = [line.split() for line in shown.strip().splitlines()[1:]]
    truth = pd.read_csv("examples/corpus.csv").set_index("path")["truth"]
    checkpoint = load_checkpoint("examples/checkpoint")
    classifier = Classifier(checkpoint, "fp32")
    for path, *shown_truth, label, score, status in lines:
        if status != "ok":
            assert (label, score) == ("-", "-")
            continue
        with open(f"examples/{path}", "rb", buffering=0) as handle:
            (scores,) = classifier.scores([decode(handle).waveform])
        # The demo runs in bf16 where the hardware has it.
        assert scores.max() == pytest.approx(float(score), abs=0.02)
        assert checkpoint.labels[scores.argmax()] == label
        assert [label] == shown_truth == [truth[path]]


# ---- figures and links ---------------------------------------------------------------------------


def test_the_tables_are_those_of_the_result_files():
    for table in tables():
        assert "\n".join(table) in PAGES["docs/performance.md"]


@pytest.mark.parametrize(("page", "sentence"), list(sentences()))
def test_the_figures_are_those_of_the_result_files(page, sentence):
    assert sentence in " ".join(PAGES[page].split())


def anchor(heading):
    """GitHub's anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_links_resolve(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if target.startswith(("http://", "https://")):
            continue
        path, _, section = target.partition("#")
        linked = ((ROOT / page).parent / path) if path else ROOT / page
        assert linked.exists(), target
        if section:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.M)
            assert section in map(anchor, headings), target


def test_every_page_is_linked_from_the_readme():
    for name in PAGES:
        assert name == "README.md" or f"]({name})" in README


# ---- worked examples -----------------------------------------------------------------------------


def test_the_example_of_an_input_form_works(tmp_path, monkeypatch):
    """The module in docs/architecture.md, in a folder of its own: nothing else is edited."""
    (code,) = [c for c in blocks(ARCHITECTURE, "python") if c.startswith("# ser_core/sources/")]
    module = Path(code.split("\n")[0]).name
    (tmp_path / "forms").mkdir()
    (tmp_path / "forms" / module).write_text(code)
    monkeypatch.setattr(sources, "__path__", [*sources.__path__, str(tmp_path / "forms")])
    importlib.invalidate_caches()
    recording = ROOT / "examples" / "corpus" / "sad" / "answer-m3.wav"
    with zipfile.ZipFile(tmp_path / "calls.zip", "w") as archive:
        archive.write(recording, "monday/1.wav")
        archive.writestr("notes.txt", "not a recording")
    try:
        source = open_source([str(tmp_path / "calls.zip")])
        (reference,) = [found for page in source.pages() for found in page.recordings]
        assert reference.path == f"{tmp_path}/calls.zip::monday/1.wav"
        (content,) = read_members(reference.uri, [reference], Stopwatch())
        assert content == recording.read_bytes()
    finally:
        sys.modules.pop(f"ser_core.sources.{Path(module).stem}", None)


def apply_diff(diff, root):
    """Applies a unified diff whose hunks have no line numbers; each must match exactly once."""
    for part in re.split(r"^(?=--- )", diff, flags=re.M)[1:]:
        header, *hunks = re.split(r"^@@.*\n", part, flags=re.M)
        path = root / re.search(r"^\+\+\+ (\S+)$", header, re.M)[1]
        source = path.read_text()
        for hunk in hunks:
            lines = [line or " " for line in hunk.rstrip("\n").split("\n")]
            before = "\n".join(line[1:] for line in lines if line[0] in " -") + "\n"
            after = "\n".join(line[1:] for line in lines if line[0] in " +") + "\n"
            assert source.count(before) == 1, f"{path.name}:\n{before}"
            source = source.replace(before, after)
        path.write_text(source)


LABEL_ONE_FILE = """
from contextlib import nullcontext
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from ser_core.labeling.plan import plan_page
from ser_core.labeling.row_index import RowIndex
from ser_core.labeling.assembly import assembled_rows
from ser_core.labeling.output_rows import output_rows
from ser_core.labeling.stages import StageSettings, classify_block, decode_block
from ser_core.models.outputs import Outputs
from ser_core.reporting.config import ReportConfig
from ser_core.reporting.job import report_labels
from ser_core.schema import output_schema
from ser_core.sources.decoder import Decoder, DecoderSettings
from ser_core.sources.forms import open_source


class Scorer:
    precision, description = "fp32", "none"

    def prepare(self, waveforms):
        return waveforms

    def compute(self, waveforms):
        return Outputs(np.ones((len(waveforms), 1), np.float32))


none = pa.schema([])
settings = StageSettings(("sad",), none)
(page,) = open_source(["tone.wav"]).pages()
_, planned = plan_page(page, none, RowIndex())
decoder = Decoder(DecoderSettings())
(decoded,) = decode_block(planned, settings, decoder, 4 << 20)
labeled = classify_block(decoded, settings, Scorer(), lambda: nullcontext(0.0))
labeled = assembled_rows(labeled, ("sad",), "recording")
origin = {"model": "m", "model_digest": "d"}
rows = output_rows(labeled, settings, output_schema(("sad",), none), origin, datetime.now(UTC))
print(rows["dc_offset"][0].as_py())
"""


def test_the_example_of_an_output_column_works(tmp_path):
    """The diff in docs/architecture.md applies to this code, and its column reaches the rows."""
    # Other tests may be compiling modules: what they write there comes and goes.
    compiled = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "ser_core", tmp_path / "ser_core", ignore=compiled)
    (diff,) = blocks(ARCHITECTURE, "diff")
    apply_diff(diff, tmp_path)
    soundfile.write(tmp_path / "tone.wav", [0.0, -0.25] * 4000, 16_000)
    command = [sys.executable, "-c", LABEL_ONE_FILE]
    run = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert float(run.stdout) == -0.125
