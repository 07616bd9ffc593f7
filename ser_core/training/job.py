"""The training job: read a corpus, split it, train, and report on the checkpoints."""

from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pandas as pd

from ser_core.cluster import check_address, join
from ser_core.console import phase, say
from ser_core.corpora.layouts import read_corpus
from ser_core.corpora.splits import describe_split, overlaps, split_corpus
from ser_core.errors import names_flag
from ser_core.evaluation.metrics import fit_temperature
from ser_core.reporting.libraries import require_libraries
from ser_core.storage.claim import Claim
from ser_core.training.config import TrainConfig
from ser_core.training.dataset import labels_of_train, load_waveforms, split_datasets
from ser_core.training.driver import run_workers, scale
from ser_core.training.initialization import initialize_model
from ser_core.training.model_card import curves, measure, render_card
from ser_core.training.run_folder import BEST, CLAIM, LAST, TrainingOutput, best_epoch, to_json
from ser_core.training.trainer import BETAS, BODY_RATE, GAMMA, STEP_EPOCHS, WEIGHT_DECAY, Recipe
from ser_core.training.worker import Outcome, TrainingTask
from ser_core.versions import installed_versions

_PACKAGES = ("ser-batch", "ray", "torch", "transformers", "numpy", "soundfile", "soxr")

# The settings that affect the results: a run is continued with the same ones only.
_DECISIVE = {"model", "revision", "seed", "batch_size", "learning_rate", "precision"}


class TrainResult(NamedTuple):
    """What a run leaves.

    Attributes:
        best: folder of the checkpoint that did best on validation, for ``jobs.label --model``.
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
        """Each checkpoint's folder and UAR, a line each."""
        return "\n".join(
            f"{name}: {folder}: "
            + ", ".join(f"{split} UAR {m['uar']:.3f}" for split, m in self.metrics[name].items())
            for name, folder in ((BEST, self.best), (LAST, self.last))
        )


def train(config: TrainConfig, split: pd.DataFrame | None = None) -> TrainResult:
    """Trains on a corpus and leaves its best and its last checkpoint in the output folder.

    Args:
        config: what to train on, and how.
        split: recordings with a column ``split``, instead of those that the config names; with a
            column ``audio`` of ``audio_digests``, no file is read only to compare it.

    Raises:
        UsageError: the command cannot run as written; nothing was trained.
        RunError: the run did not finish; the same command continues after its last epoch.
    """
    require_libraries("train")
    check_address()
    output = TrainingOutput(config.output)
    output.refuse_unusable()
    split, method, dropped = _read_split(config) if split is None else (split, config.split, 0)
    labels = labels_of_train(split)
    phase("loading the model")
    with names_flag("--model"):
        initial = initialize_model(config.model, config.revision, labels, config.seed)
    phase("starting Ray")
    join(config.verbose)
    scaling = scale(config.workers)
    with Claim(output.folder, CLAIM) as claim:
        output.folder.probe()
        loaded = load_waveforms(split)
        datasets = split_datasets(loaded, labels)
        split = loaded.drop(columns="waveform")
        description = describe_split(split, overlaps(split), dropped)
        output.begin(config.model_dump(include=_DECISIVE), split)
        say(description)
        say(initial.description)
        task = TrainingTask(output.folder.uri, config.epochs, _recipe(config), initial, datasets)
        phase("training: starting workers")
        outcome = run_workers(task, scaling, claim.check)
        facts = {"method": method, "split": description}
        metrics = {name: _write_report(name, config, task, outcome, facts) for name in (BEST, LAST)}
        output.write("metrics.json", to_json(metrics))
    best, last = (f"{output.folder.uri}/{name}" for name in (BEST, LAST))
    result = TrainResult(best, last, pd.DataFrame(outcome.history), metrics)
    say(result.summary)
    return result


def _recipe(config: TrainConfig) -> Recipe:
    return Recipe(**config.model_dump(include={field.name for field in fields(Recipe)}))


def _read_split(config: TrainConfig) -> tuple[pd.DataFrame, str, int]:
    """The recordings with their split, how they were split, and how many are in no split."""
    phase("reading the corpus")
    recordings = read_corpus(config.corpus, config.data)
    if "split" in recordings:
        return recordings, "the manifest's own", 0
    split = split_corpus(recordings, config.split, config.seed, config.held_out)
    return split, config.split, len(recordings) - len(split)


def _write_report(
    name: str, config: TrainConfig, task: TrainingTask, outcome: Outcome, facts: Mapping[str, str]
) -> dict[str, Any]:
    """Writes the files beside a checkpoint's weights; returns its metrics by split."""
    phase(f"measuring {name}")
    initial, logits = task.initial, outcome.logits[name]
    temperature = None
    if config.calibrate:
        temperature = fit_temperature(logits["validation"], task.datasets["validation"].truth)
    metrics = {
        split: measure(predicted, task.datasets[split].truth, temperature or 1.0)
        for split, predicted in logits.items()
        if len(predicted)
    }
    epoch = outcome.history[-1] if name == LAST else best_epoch(outcome.history)
    card = render_card(
        title=f"{task.output.rsplit('/', 1)[-1]}/{name}",
        labels=list(initial.config["id2label"].values()),
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        config=config,
        start=initial.description,
        **facts,
        metrics=metrics,
        temperature=temperature,
        epoch=int(epoch["epoch"]),
        settings=_settings(config, initial.config, outcome.device),
    )
    files = initial.files() | {"README.md": card} | curves(pd.DataFrame(outcome.history))
    if temperature:
        files["config.json"] = to_json({**initial.config, "temperature": temperature})
    output = TrainingOutput(task.output)
    for file, content in files.items():
        output.write(f"{name}/{file}", content)
    return metrics


def _settings(config: TrainConfig, network: Mapping[str, Any], device: str) -> dict[str, Any]:
    """What the card lists under "Training"."""
    return {
        "seed": config.seed,
        "batch size": config.batch_size,
        "learning rate": f"{config.learning_rate:g}; body {BODY_RATE:g} times that",
        "optimizer": f"AdamW(betas={BETAS}, weight_decay={WEIGHT_DECAY})",
        "scheduler": f"StepLR(step_size={STEP_EPOCHS}, gamma={GAMMA}), per epoch",
        "classifier dropout": network["classifier_dropout"],
        "epochs": config.epochs,
        "device": device,
        "versions": ", ".join(f"{name} {v}" for name, v in installed_versions(_PACKAGES).items()),
    }
