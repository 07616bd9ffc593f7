"""The protocols side by side: a corpus split each way, with several seeds, and trained on each.

The three differ in what test shares with training alone, so that their distance is what a random
split promises and other people's speech does not keep.
"""

import json
import sys
from collections.abc import Mapping
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from ser_core.console import say
from ser_core.corpora.layouts import read_corpus
from ser_core.corpora.splits import SPLITS, audio_digests, overlaps, split_corpus
from ser_core.evaluation.job import as_json, open_report
from ser_core.reporting.html import page
from ser_core.settings import SplitMethod
from ser_core.storage.folder import Folder
from ser_core.training.config import CompareSplitsConfig, TrainConfig
from ser_core.training.job import train

PROTOCOLS: tuple[SplitMethod, ...] = ("random", "speaker", "speaker-sentence")
_MEASURES = ("uar", "accuracy")
_SHARED = ("speaker", "sentence", "audio")


def compare_splits(config: CompareSplitsConfig) -> pd.DataFrame:
    """Runs every protocol with every seed, and writes and prints what came out.

    Returns:
        A row a run: protocol, seed, UAR and accuracy on test, sizes, and what test shares with
        train.

    Raises:
        UsageError: the command cannot run as written, or a protocol cannot split the corpus.
        RunError: a run did not finish; the same command goes on with it.
    """
    output = open_report(config.output)
    recordings = read_corpus(config.corpus, config.data)
    recordings = recordings.assign(audio=audio_digests(recordings["path"]))
    seeds = range(config.seed, config.seed + config.seeds)
    splits = {
        (protocol, seed): split_corpus(recordings, protocol, seed)
        for protocol in PROTOCOLS
        for seed in seeds
    }  # all of them before the first is trained on: a corpus that lacks speakers is told at once
    rows = [
        _run(config, output, protocol, seed, split) for (protocol, seed), split in splits.items()
    ]
    runs = pd.DataFrame(rows)
    _write(output, config, runs)
    _print(runs, output.uri)
    return runs


def _run(
    config: CompareSplitsConfig,
    output: Folder,
    protocol: SplitMethod,
    seed: int,
    split: pd.DataFrame,
) -> dict[str, Any]:
    """One run's row: as it was written when the run ended, or by training now."""
    name = f"{protocol}-{seed}"
    kept = config.model_dump(exclude={"output", "seeds", "seed", "split", "held_out"})
    asked = TrainConfig(**kept, seed=seed, split=protocol, output=f"{output.uri}/{name}")
    paths = split[["path", "split"]].to_dict("list")
    if "result.json" in output.names(name):
        before = json.loads(output.read(f"{name}/result.json"))
        if before["asked"] == asked.model_dump() and before["paths"] == paths:
            say(f"{protocol}, seed {seed}: done before")
            return dict(before["row"])
    say(f"{protocol}, seed {seed}:")
    tested = train(asked, split.drop(columns="audio")).metrics["best"]["test"]
    row = {
        "protocol": protocol,
        "seed": seed,
        **{measure: tested[measure] for measure in _MEASURES},
        **{part: int((split["split"] == part).sum()) for part in SPLITS},
        **{f"shared_{kind}": n for kind, n in overlaps(split).loc["train/test"].items()},
    }
    result = {"asked": asked.model_dump(), "row": row, "paths": paths}
    output.write(f"{name}/result.json", as_json(result))
    return row


def summarize(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over the seeds, a row a protocol.

    Args:
        runs: as of ``compare_splits``.
    """
    by_protocol = runs.groupby("protocol", sort=False)
    measures = by_protocol[list(_MEASURES)].agg(["mean", "std"])
    measures.columns = ["_".join(name) for name in measures.columns.to_flat_index()]
    others = by_protocol[[*SPLITS, *(f"shared_{kind}" for kind in _SHARED)]].mean()
    table: pd.DataFrame = measures.join(others).assign(runs=by_protocol.size()).reset_index()
    return table


# ---- output --------------------------------------------------------------------------------------


def _write(output: Folder, config: CompareSplitsConfig, runs: pd.DataFrame) -> None:
    table = summarize(runs)
    content = {
        "config": config.model_dump(exclude={"split", "held_out"}),
        "protocols": table.astype(object).where(table.notna(), None).to_dict("records"),
        "runs": runs.to_dict("records"),
    }
    lines = [_line(row) for row in table.to_dict("records")]
    title = f"{config.corpus}, {config.model}"
    html = page("protocols.html", {}, title=title, columns=_COLUMNS, lines=lines)
    files = {
        "protocols.json": as_json(content),
        "runs.csv": runs.to_csv(index=False).encode(),
        "index.html": html.encode(),
    }
    for name, file in files.items():
        output.write(name, file)


_COLUMNS = (
    *("protocol", "UAR", "accuracy", "train", "test"),
    *("speakers shared", "sentences shared", "files shared"),
)
_WIDTH = 120  # characters that the table may take where there is no terminal


def _line(row: Mapping[Any, Any]) -> list[str]:
    """A protocol's cells for reading, in the order of ``_COLUMNS``."""
    measures = (_with_deviation(row[f"{m}_mean"], row[f"{m}_std"]) for m in _MEASURES)
    counts = [row["train"], row["test"], *(row[f"shared_{kind}"] for kind in _SHARED)]
    return [row["protocol"], *measures, *(f"{count:,.0f}" for count in counts)]


def _with_deviation(mean: float, deviation: float) -> str:
    """A mean over seeds; of one seed there is no deviation.

    >>> _with_deviation(0.5, 0.01), _with_deviation(0.5, float("nan"))
    ('0.500 ± 0.010', '0.500')
    """
    return f"{mean:.3f}" + ("" if pd.isna(deviation) else f" ± {deviation:.3f}")


def _print(runs: pd.DataFrame, output: str) -> None:
    table = Table(*_COLUMNS)
    for row in summarize(runs).to_dict("records"):
        table.add_row(*_line(row))
    width = None if sys.stdout.isatty() else _WIDTH
    console = Console(width=width, soft_wrap=True, highlight=False, markup=False)
    console.print(table)
    console.print(f"page: {output}/index.html")
