"""jobs.train with Ray: killed and typed again, one process and two, and what jobs.label loads."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
from checkpoints import NOTHING_DRAWN
from recordings import speech_like, write_audio

from examples.make_checkpoint import SMALL
from ser_core.errors import CorpusError, OutputError, UsageError
from ser_core.labeling.config import LabelConfig
from ser_core.labeling.job import label_corpus
from ser_core.reporting import html as pages
from ser_core.training.config import TrainConfig
from ser_core.training.job import train

PLACES = ["train"] * 7 + ["validation"] * 3 + ["test"] * 4


pytestmark = pytest.mark.usefixtures("ray_of_two_cores")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A manifest of recordings of two classes, one of which is no audio."""
    folder = tmp_path_factory.mktemp("corpus")
    rows = []
    for index, place in enumerate(PLACES):
        write_audio(folder / f"{index}.wav", speech_like(0.5 + 0.1 * index, seed=index))
        rows.append((f"{index}.wav", ("sad", "angry")[index % 2], f"speaker{index % 3}", place))
    (folder / "broken.wav").write_bytes(b"This is not audio.\n")
    rows.append(("broken.wav", "sad", "speaker0", "train"))
    table = pd.DataFrame(rows, columns=["path", "label", "speaker", "split"])
    table.to_csv(folder / "manifest.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def config_of(corpus):
    def config(output, settings=SMALL, **changes):
        model = corpus / f"{output.name}.json"
        model.write_text(json.dumps(settings))
        return TrainConfig(
            corpus="manifest",
            data=str(corpus / "manifest.csv"),
            model=str(model),
            output=str(output),
            **{"epochs": 4, "batch_size": 3, "learning_rate": 1e-3, "precision": "fp32"} | changes,
        )

    return config


@pytest.fixture(scope="module")
def whole(config_of, tmp_path_factory):
    """A run that nobody disturbed, its config and what it left."""
    config = config_of(tmp_path_factory.mktemp("runs") / "run", calibrate=True)
    return config, train(config)


def weights(folder):
    return safetensors.numpy.load_file(f"{folder}/model.safetensors")


def assert_same(one, other, tolerance):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=0, atol=tolerance)


def test_a_killed_run_goes_on_to_the_same_end(whole, tmp_path):
    config, undisturbed = whole
    config = config.model_copy(update={"output": str(tmp_path / "run")})
    flags = [
        f"--{name.replace('_', '-')}={value}"
        for name, value in config.model_dump(exclude_defaults=True, exclude={"calibrate"}).items()
    ]
    command = [sys.executable, "-m", "jobs.train", *flags]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    assert any(line.startswith("epoch 2 of 4") for line in process.stderr)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = len(pd.read_csv(tmp_path / "run" / "history.csv"))
    assert 2 <= done < 4
    resumed = train(config)
    pd.testing.assert_frame_equal(resumed.history, undisturbed.history, check_exact=True)
    for one, other in ((resumed.best, undisturbed.best), (resumed.last, undisturbed.last)):
        assert_same(weights(one), weights(other), tolerance=0)


def test_two_processes_are_one(config_of, tmp_path):
    """Seven recordings in batches of three: the last batch has one, and a process none."""
    one, two = (
        train(config_of(tmp_path / f"{n}", NOTHING_DRAWN | SMALL, epochs=2, workers=n))
        for n in (1, 2)
    )
    # AdamW divides a gradient by its own size: where it is 0 but for rounding, as of the keys'
    # biases, a weight moves as far as any other. A gradient summed wrongly moves all of them.
    differences = np.concatenate(
        [np.abs(weights(one.last)[name] - of).ravel() for name, of in weights(two.last).items()]
    )
    assert (differences > 1e-5).mean() < 0.01
    pd.testing.assert_frame_equal(one.history, two.history, rtol=0, atol=1e-4)
    assert one.metrics["last"]["test"]["recordings"] == 4


def test_jobs_label_takes_what_was_trained(whole, tmp_path):
    config, trained = whole
    manifest = f"{config.output}/split.csv"
    label_corpus(
        LabelConfig(input=manifest, output=str(tmp_path), model=trained.best, precision="fp32")
    )
    rows = pd.read_parquet(tmp_path)
    test = rows[rows["split"] == "test"]
    right = (test["label"].astype(str) == test["truth"]).mean()
    assert right == trained.metrics["best"]["test"]["accuracy"]


def test_a_checkpoint_says_what_it_is(whole):
    config, trained = whole
    settings = json.loads(Path(trained.best, "config.json").read_bytes())
    assert settings["id2label"] == {"0": "angry", "1": "sad"}
    assert settings["label2id"] == {"angry": 0, "sad": 1}
    assert settings["num_class"] == 2
    assert settings["classifier_dropout"] == 0.1
    assert settings["temperature"] > 0
    card = Path(trained.best, "README.md").read_text()
    split = pd.read_csv(f"{config.output}/split.csv")
    assert len(split) == len(PLACES)
    assert "broken.wav" not in set(split["path"].str.rsplit("/").str[-1])
    for fact in ("seed 34", "speakers 3", "AdamW", f"{trained.metrics['best']['test']['uar']:.3f}"):
        assert fact in card
    for picture in ("accuracy.png", "loss.png"):
        assert Path(trained.best, picture).read_bytes()[:4] == b"\x89PNG"
    best = trained.history.sort_values(["validation_uar", "validation_loss"]).iloc[-1]
    assert trained.metrics["best"]["validation"]["uar"] >= best["validation_uar"]


@pytest.mark.parametrize(
    "changes", [{"learning_rate": 2e-3}, {"seed": 35}, {"batch_size": 4}, {"precision": "bf16"}]
)
def test_another_run_in_the_same_folder_is_refused(whole, changes):
    config, _ = whole
    with pytest.raises(OutputError, match=rf"--output .*another {next(iter(changes))};"):
        train(config.model_copy(update=changes))


def test_a_split_without_validation_is_refused(config_of, corpus, tmp_path):
    table = pd.read_csv(corpus / "manifest.csv")
    data = corpus / "poor.csv"
    table[table["split"] != "validation"].to_csv(data, index=False)
    with pytest.raises(CorpusError, match="`validation`"):
        train(config_of(tmp_path / "run").model_copy(update={"data": str(data)}))
    assert not (tmp_path / "run").exists()


def test_what_draws_is_missed_before_training_not_after_it(config_of, tmp_path, monkeypatch):
    monkeypatch.setattr(pages.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"pip install 'ser-batch\[train\]'"):
        train(config_of(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
