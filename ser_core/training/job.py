"""The training job: read a corpus, split it, train, say what the checkpoints are worth."""

from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pandas as pd

from ser_core.cluster import join
from ser_core.console import say
from ser_core.corpora.layouts import read_corpus
from ser_core.corpora.splits import describe_split, overlaps, split_corpus
from ser_core.evaluation.metrics import fit_temperature
from ser_core.reporting.html import require_libraries
from ser_core.training.config import TrainConfig
from ser_core.training.dataset import readable, utterances_of
from ser_core.training.initialization import start_from
from ser_core.training.model_card import curves, measure, render_card
from ser_core.training.run_folder import CHECKPOINTS, TrainingOutput
from ser_core.training.trainer import BETAS, BODY_RATE, GAMMA, STEP_EPOCHS, WEIGHT_DECAY, Recipe
from ser_core.training.worker import Job, Learned, best_of, run
from ser_core.versions import installed_versions

_PACKAGES = ("ser-batch", "ray", "torch", "transformers", "numpy", "soundfile", "soxr")


# What decides the numbers: a run is continued with the same only.
_DECISIVE = {"model", "revision", "seed", "batch_size", "learning_rate", "precision"}


class Trained(NamedTuple):
    """What a run leaves.

    Attributes:
        best: folder of the checkpoint that did best on validation, as ``jobs.label --model`` takes.
        last: folder of the checkpoint after the last epoch.
        history: a row per epoch, as in ``history.csv``.
        metrics: by checkpoint, then split, as in ``metrics.json``.
    """

    best: str
    last: str
    history: pd.DataFrame
    metrics: dict[str, dict[str, Any]]

    @property
    def summary(self) -> str:
        """What they are worth, a line each."""
        return "\n".join(
            f"{name}: {folder}: "
            + ", ".join(f"{part} UAR {of['uar']:.3f}" for part, of in self.metrics[name].items())
            for name, folder in (("best", self.best), ("last", self.last))
        )


def train(config: TrainConfig, split: pd.DataFrame | None = None) -> Trained:
    """Trains on a corpus and leaves its best and its last checkpoint in the output folder.

    Args:
        config: what to train on, and how.
        split: recordings with a column ``split``, instead of those that the config names.

    Raises:
        UsageError: the command cannot run as written; nothing was trained.
        RunError: the run did not finish; the same command goes on after its last epoch.
    """
    require_libraries("train")
    protocol: str = config.split
    if split is None:
        split, protocol = _read_split(config)
    heard = readable(split)
    split = heard.drop(columns="waveform")
    described = describe_split(split, overlaps(split))
    say(described)
    labels = sorted(set(split["truth"][split["split"] == "train"]))
    utterances = utterances_of(heard, labels)
    start = start_from(config.model, config.revision, labels, config.seed)
    say(start.words)
    output = TrainingOutput(config.output)
    output.begin(config.model_dump(include=_DECISIVE), split)
    join(config.verbose)
    recipe = Recipe(**config.model_dump(include={field.name for field in fields(Recipe)}))
    job = Job(output.folder.uri, config.epochs, recipe, start, utterances)
    learned = run(job, config.workers)
    facts = {"protocol": protocol, "split": described}
    metrics = {name: _conclude(name, config, job, learned, facts) for name in CHECKPOINTS}
    output.write_json("metrics.json", metrics)
    best, last = (f"{output.folder.uri}/{name}" for name in CHECKPOINTS)
    trained = Trained(best, last, pd.DataFrame(learned.history), metrics)
    say(trained.summary)
    return trained


def _read_split(config: TrainConfig) -> tuple[pd.DataFrame, str]:
    """The recordings with their split, and a word for who made it."""
    recordings = read_corpus(config.corpus, config.data)
    if "split" in recordings:
        return recordings, "the manifest's own"
    split = split_corpus(recordings, config.split, config.seed, config.held_out)
    if len(split) < len(recordings):
        say(f"left out, as they fall between: {len(recordings) - len(split):,} recordings")
    return split, config.split


def _conclude(
    name: str, config: TrainConfig, job: Job, learned: Learned, facts: Mapping[str, str]
) -> dict[str, Any]:
    """Writes what stands beside a checkpoint's weights; its metrics by split."""
    start, logits = job.start, learned.logits[name]
    temperature = None
    if config.calibrate:
        temperature = fit_temperature(logits["validation"], job.utterances["validation"].truth)
    metrics = {
        part: measure(of, job.utterances[part].truth, temperature or 1.0)
        for part, of in logits.items()
        if len(of)
    }
    history = pd.DataFrame(learned.history)
    chosen = history.iloc[-1] if name == "last" else best_of(learned.history)
    card = render_card(
        title=f"{job.output.rsplit('/', 1)[-1]}/{name}",
        labels=list(start.config["id2label"].values()),
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        config=config,
        start=start.words,
        **facts,
        metrics=metrics,
        temperature=temperature,
        epoch=int(chosen["epoch"]),
        settings=_settings(config, start.config, learned.device),
    )
    calibration = {"temperature": temperature} if temperature else {}
    output = TrainingOutput(job.output)
    output.write_json(f"{name}/config.json", {**start.config, **calibration})
    output.write_json(f"{name}/preprocessor_config.json", start.preprocessor)
    for file, data in {"README.md": card, **curves(history)}.items():
        output.folder.write(f"{name}/{file}", data)
    return metrics


def _settings(config: TrainConfig, network: Mapping[str, Any], device: str) -> dict[str, Any]:
    """What the card lists under "Training"."""
    return {
        "seed": config.seed,
        "batch size": config.batch_size,
        "learning rate": f"{config.learning_rate:g}, of the body {BODY_RATE:g} of it",
        "optimizer": f"AdamW(betas={BETAS}, weight_decay={WEIGHT_DECAY})",
        "scheduler": f"StepLR(step_size={STEP_EPOCHS}, gamma={GAMMA}), per epoch",
        "classifier dropout": network["classifier_dropout"],
        "epochs": config.epochs,
        "device": device,
        "versions": ", ".join(f"{name} {v}" for name, v in installed_versions(_PACKAGES).items()),
    }
