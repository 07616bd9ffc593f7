"""Compares the ways to split a corpus: trains on each split, with several seeds.

The splits differ only in what test shares with training, so the difference between their figures
is how much a random split overstates the accuracy on other people's speech.
"""

import json
import sys
from collections.abc import Mapping
from typing import Any

import pandas as pd
from rich.table import Table

from ser_core.cluster import check_address
from ser_core.console import phase, say, show
from ser_core.corpora.layouts import read_corpus
from ser_core.corpora.splits import SPLITS, audio_digests, overlaps, split_corpus
from ser_core.reporting.html import number, page
from ser_core.reporting.libraries import require_libraries
from ser_core.settings import SplitMethod
from ser_core.storage.claim import Claim
from ser_core.storage.folder import Folder
from ser_core.training.config import CompareSplitsConfig, TrainConfig
from ser_core.training.job import train
from ser_core.training.run_folder import CLAIM, TrainingOutput, to_json

SPLIT_METHODS: tuple[SplitMethod, ...] = ("random", "speaker", "speaker-sentence")
_MEASURES = ("uar", "accuracy")
_SHARED = ("speaker", "sentence", "audio")


def compare_splits(config: CompareSplitsConfig) -> pd.DataFrame:
    """Trains with every split method and every seed, and writes and prints the comparison.

    Returns:
        A row per run: split, seed, UAR and accuracy on test, sizes, and what test shares with
        train.

    Raises:
        UsageError: the command cannot run as written, or the corpus cannot be split so.
        RunError: a run did not finish; the same command continues it.
    """
    require_libraries("train")
    check_address()
    output = Folder(config.output)
    TrainingOutput(config.output).refuse_unusable()
    phase("reading the corpus")
    recordings = read_corpus(config.corpus, config.data)
    recordings = recordings.assign(audio=audio_digests(recordings["path"]))
    seeds = range(config.seed, config.seed + config.seeds)
    splits = {
        (method, seed): split_corpus(recordings, method, seed)
        for method in SPLIT_METHODS
        for seed in seeds
    }  # all of them before the first run, so that too few speakers are an error at once
    with Claim(output, CLAIM):
        rows = [
            _run(config, output, method, seed, split) for (method, seed), split in splits.items()
        ]
        runs = pd.DataFrame(rows)
        _write(output, config, runs, chance=1 / recordings["truth"].nunique())
    _print(runs, output.uri)
    return runs


def _run(
    config: CompareSplitsConfig,
    output: Folder,
    method: SplitMethod,
    seed: int,
    split: pd.DataFrame,
) -> dict[str, Any]:
    """The row of one run, which is trained unless it has finished before."""
    name = f"{method}-{seed}"
    kept = config.model_dump(exclude={"output", "seeds", "seed", "split", "held_out"})
    asked = TrainConfig(**kept, seed=seed, split=method, output=f"{output.uri}/{name}")
    paths = split[["path", "split"]].to_dict("list")
    if "result.json" in output.names(name):
        before = json.loads(output.read(f"{name}/result.json"))
        if before["asked"] == asked.model_dump() and before["paths"] == paths:
            say(f"{method}, seed {seed}: finished earlier")
            before["row"].pop("protocol", None)  # what release 0.1 called the split
            return {"split": method, **before["row"]}
    say(f"{method}, seed {seed}:")
    metrics = train(asked, split).metrics["best"]["test"]
    row = {
        "split": method,
        "seed": seed,
        **{measure: metrics[measure] for measure in _MEASURES},
        **{part: int((split["split"] == part).sum()) for part in SPLITS},
        **{f"shared_{kind}": n for kind, n in overlaps(split).loc["train/test"].items()},
    }
    result = {"asked": asked.model_dump(), "row": row, "paths": paths}
    output.write(f"{name}/result.json", to_json(result, sort_keys=False))
    return row


def summarize(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over the seeds, a row per split method.

    Args:
        runs: what ``compare_splits`` returns.
    """
    by_method = runs.groupby("split", sort=False)
    measures = by_method[list(_MEASURES)].agg(["mean", "std"])
    measures.columns = ["_".join(name) for name in measures.columns.to_flat_index()]
    others = by_method[[*SPLITS, *(f"shared_{kind}" for kind in _SHARED)]].mean()
    table: pd.DataFrame = measures.join(others).assign(runs=by_method.size()).reset_index()
    return table


# ---- output --------------------------------------------------------------------------------------


def _write(output: Folder, config: CompareSplitsConfig, runs: pd.DataFrame, chance: float) -> None:
    table = summarize(runs)
    content = {
        "config": config.model_dump(exclude={"split", "held_out"}),
        "splits": table.astype(object).where(table.notna(), None).to_dict("records"),
        "runs": runs.to_dict("records"),
    }
    rows = [_cells(row) for row in table.to_dict("records")]
    title = f"{config.corpus}, {config.model}"
    columns = [(name, name, "number" if at else "text") for at, name in enumerate(_COLUMNS)]
    html = page("compare_splits.html", {}, title=title, columns=columns, rows=rows, chance=chance)
    files = {
        "splits.json": to_json(content, sort_keys=False),
        "runs.csv": runs.to_csv(index=False).encode(),
        "index.html": html.encode(),
    }
    for name, file in files.items():
        output.write(name, file)


_COLUMNS = (
    *("split", "UAR", "accuracy", "train", "test"),
    *("speakers shared", "sentences shared", "files shared"),
)
_WIDTH = 120  # characters of the table where there is no terminal


def _cells(row: Mapping[Any, Any]) -> dict[str, str | int]:
    """A split method's cells by column: text, or counts."""
    measures = (_with_deviation(row[f"{m}_mean"], row[f"{m}_std"]) for m in _MEASURES)
    counts = [row["train"], row["test"], *(row[f"shared_{kind}"] for kind in _SHARED)]
    cells = [row["split"], *measures, *(round(count) for count in counts)]
    return dict(zip(_COLUMNS, cells, strict=True))


def _with_deviation(mean: float, deviation: float) -> str:
    """A mean over seeds with its deviation, which a single seed does not have.

    >>> _with_deviation(0.5, 0.01), _with_deviation(0.5, float("nan"))
    ('0.500 ± 0.010', '0.500')
    """
    return f"{mean:.3f}" + ("" if pd.isna(deviation) else f" ± {deviation:.3f}")


def _print(runs: pd.DataFrame, output: str) -> None:
    table = Table(*_COLUMNS)
    for row in summarize(runs).to_dict("records"):
        table.add_row(*map(number, _cells(row).values()))
    width = None if sys.stdout.isatty() else _WIDTH
    show(table, f"page: {output}/index.html", width=width)
