"""Checkpoints load strictly from any source and in any format, or are refused in one line."""

import errno
import io
import json
import os
import pickle
import re
import shutil
import struct
import tarfile
import zipfile
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from recordings import speech_like
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForAudioClassification,
    HubertConfig,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
)

from examples.make_checkpoint import SMALL
from ser_core.errors import CheckpointError, RunError
from ser_core.models import hub
from ser_core.models.card import Card
from ser_core.models.checkpoint import for_segments, load_checkpoint
from ser_core.models.classifier import Classifier
from ser_core.models.network_config import architecture_of

CASIA = ("angry", "fear", "happy", "neutral", "sad", "surprise")


@pytest.fixture
def copy(small_checkpoint, tmp_path) -> Path:
    return Path(shutil.copytree(small_checkpoint, tmp_path / "checkpoint"))


def edit_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    config |= changes
    kept = {key: value for key, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))


def refusal(source, **arguments):
    with pytest.raises(CheckpointError) as caught:
        architecture_of(load_checkpoint(str(source), **arguments))
    message = str(caught.value)
    assert "\n" not in message
    return message


def scores(folder):
    waveforms = [speech_like(s, seed=7) for s in (0.8, 2.5)]
    return Classifier(load_checkpoint(str(folder)), "fp32").scores(waveforms)


def as_published(folder):
    """Rewrites a checkpoint in the card's format: pickled weights, old keys of the weight norm."""
    weights = load_file(folder / "model.safetensors")
    old = {}
    for name, tensor in weights.items():
        name = name.replace("parametrizations.weight.original0", "weight_g")
        old[name.replace("parametrizations.weight.original1", "weight_v")] = tensor
    assert any(name.endswith("weight_g") for name in old)
    torch.save(old, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def test_the_published_format_is_the_same_checkpoint(copy, small_checkpoint):
    as_published(copy)
    assert load_checkpoint(str(copy)).digest == load_checkpoint(str(small_checkpoint)).digest
    # Not bit-identical: the alignment of the arrays affects the order of additions in BLAS.
    np.testing.assert_allclose(scores(copy), scores(small_checkpoint), atol=1e-5, rtol=0)
    speech = speech_like(2.5, seed=7)  # `verify` loads it by transformers alone
    np.testing.assert_allclose(Card(copy).scores_of(speech), scores(copy)[1], atol=1e-5, rtol=0)


def test_labels_default_to_the_cards(copy):
    edit_config(copy, id2label=None)
    assert load_checkpoint(str(copy)).labels == CASIA
    edit_config(copy, id2label={str(i): f"LABEL_{i}" for i in range(6)})
    assert load_checkpoint(str(copy)).labels == CASIA


def test_labels_from_the_config(copy):
    edit_config(copy, id2label=dict(zip("012345", "abcdef", strict=True)))
    assert load_checkpoint(str(copy)).labels == tuple("abcdef")


def test_digest_depends_on_weights_config_and_preprocessing(copy):
    digests = {load_checkpoint(str(copy)).digest, load_checkpoint(str(copy), segments="all").digest}
    edit_config(copy, hidden_act="relu")
    digests.add(load_checkpoint(str(copy)).digest)
    weights = load_file(copy / "model.safetensors")
    weights["classifier.out_proj.bias"][0] += 1e-6
    save_file(weights, copy / "model.safetensors")
    digests.add(load_checkpoint(str(copy)).digest)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(copy)
    digests.add(load_checkpoint(str(copy)).digest)
    assert len(digests) == 5


def test_from_a_uri(small_checkpoint):
    fs = fsspec.filesystem("memory")
    fs.put(str(small_checkpoint), "/models/tiny", recursive=True)
    assert (
        load_checkpoint("memory://models/tiny").digest
        == load_checkpoint(str(small_checkpoint)).digest
    )


def test_missing_key_is_named(copy):
    weights = load_file(copy / "model.safetensors")
    del weights["classifier.dense.weight"]
    save_file(weights, copy / "model.safetensors")
    assert "missing: classifier.dense.weight" in refusal(copy)


def test_unexpected_and_misshapen_keys_are_named(copy):
    weights = load_file(copy / "model.safetensors")
    weights["extra"] = torch.zeros(1)
    weights["classifier.dense.bias"] = torch.zeros(3)
    save_file(weights, copy / "model.safetensors")
    message = refusal(copy)
    assert "unexpected: extra" in message
    assert "wrong shape: classifier.dense.bias" in message


def standard(folder, config):
    torch.manual_seed(0)
    model = AutoModelForAudioClassification.from_config(config).eval()
    model.save_pretrained(folder)
    return model


def test_a_standard_head_with_the_cards_config_is_recognized(copy):
    config = (copy / "config.json").read_text()
    standard(copy, HubertConfig(num_labels=6, **SMALL))
    (copy / "config.json").write_text(config)
    message = refusal(copy)
    assert "HubertForSequenceClassification" in message
    assert '"architectures"' in message
    assert "projector.weight" in message


def test_the_cards_head_with_a_standard_config_is_recognized(copy):
    edit_config(copy, architectures=["HubertForSequenceClassification"])
    assert "model card's head" in refusal(copy)


@pytest.mark.parametrize("config_class", [HubertConfig, Wav2Vec2Config])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("norm", ["group", "layer"])
def test_standard_checkpoints(tmp_path, config_class, masked, norm):
    names = {0: "neu", 1: "hap", 2: "ang"}
    config = config_class(
        id2label=names, label2id={v: k for k, v in names.items()}, feat_extract_norm=norm, **SMALL
    )
    model = standard(tmp_path, config)
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=masked)
    extractor.save_pretrained(tmp_path)
    waveforms = [speech_like(s, seed=3) for s in (0.7, 2.2, 9.0)]
    inputs = extractor(
        waveforms,
        padding="max_length",
        truncation=True,
        max_length=96000,
        return_tensors="pt",
        sampling_rate=16000,
    )
    with torch.no_grad():
        expected = torch.softmax(model(**inputs).logits, dim=-1).numpy()
    checkpoint = load_checkpoint(str(tmp_path))
    assert checkpoint.labels == ("neu", "hap", "ang")
    classifier = Classifier(checkpoint, "fp32", 2)
    classifier.embeddings = True
    outputs = classifier.compute(classifier.prepare([w[:96000] for w in waveforms]))
    np.testing.assert_allclose(outputs.scores, expected, atol=1e-5)
    with torch.no_grad():
        frames = model.base_model(**inputs).last_hidden_state
    used = [299] * 3
    if masked:  # 320 samples a frame, of which the first sees 400
        used = [(min(len(w), 96000) - 400) // 320 + 1 for w in waveforms]
    pooled = [each[:count].mean(dim=0).numpy() for each, count in zip(frames, used, strict=True)]
    np.testing.assert_allclose(outputs.embeddings, pooled, rtol=1e-3, atol=2e-5)


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


def as_zip(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def as_legacy(content):
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def as_tar(content):
    buffer, data = io.BytesIO(), pickle.dumps(content)
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("storages", "tensors", "pickle"):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def as_torchscript(content):
    buffer, data = io.BytesIO(), pickle.dumps(content)
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("data.pkl", "constants.pkl"):
            archive.writestr(f"archive/{name}", data)
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("form", [as_zip, as_legacy, as_tar, as_torchscript, pickle.dumps])
def test_pickled_code_is_not_executed(copy, tmp_path, form, nested):
    payload = Payload(tmp_path / "ran")
    content = form({"a": {"b": [payload]}} if nested else {"weight": payload})
    (copy / "pytorch_model.bin").write_bytes(content)
    (copy / "model.safetensors").unlink()
    message = refusal(copy)
    assert "never executed" in message or "may contain code" in message
    assert "weights_only" not in message  # torch suggests to turn the check off
    assert not (tmp_path / "ran").exists()
    pickle.loads(pickle.dumps(payload))
    assert (tmp_path / "ran").exists()  # the payload works


@pytest.mark.parametrize(
    "content",
    [
        [torch.zeros(1)],
        {"state_dict": {"a": torch.zeros(1)}},
        {1: torch.zeros(1)},
        {"a": torch.zeros(3, 3).to_sparse()},
        {"a": torch.zeros(2, device="meta")},
    ],
    ids=["list", "nested", "number", "sparse", "meta"],
)
def test_pickles_that_are_no_table_of_weights(copy, content):
    torch.save(content, copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    assert "not a table of names and dense tensors" in refusal(copy)


@pytest.mark.parametrize(
    ("length", "shape", "offsets"),
    [(None, [10**9, 10**3], [0, 4 * 10**12]), (None, [4], [0, 8]), (2**62, [2], [0, 8])],
    ids=["size", "shape", "header"],
)
def test_safetensors_with_a_lying_header(copy, length, shape, offsets):
    entry = {"dtype": "F32", "shape": shape, "data_offsets": offsets}
    header = json.dumps({"classifier.dense.weight": entry}).encode()
    start = struct.pack("<Q", length or len(header))
    (copy / "model.safetensors").write_bytes(start + header + bytes(8))
    assert "model.safetensors is damaged" in refusal(copy)


def test_code_beside_the_weights_is_not_executed(copy, tmp_path, small_checkpoint):
    code = f"from pathlib import Path; Path({str(tmp_path / 'ran')!r}).touch()"
    for name in ("modeling_hubert.py", "configuration_hubert.py"):
        (copy / name).write_text(code)
    classes = {"AutoConfig": "configuration_hubert.Config", "AutoModel": "modeling_hubert.Model"}
    edit_config(copy, auto_map=classes)
    np.testing.assert_array_equal(scores(copy), scores(small_checkpoint))
    assert not (tmp_path / "ran").exists()


def test_no_code_of_a_checkpoint_is_ever_trusted():
    root = Path(hub.__file__).parents[2]
    for path in [
        p for name in ("ser_core", "jobs", "examples") for p in (root / name).rglob("*.py")
    ]:
        code = path.read_text()
        assert "trust_remote_code" not in code, path
        loads = re.findall(r"(?<!safetensors\.)torch\.load\(", code)
        assert len(loads) == code.count("weights_only=True"), path


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_missing_config(copy, name):
    (copy / name).unlink()
    assert f"{name} is missing" in refusal(copy)


def test_damaged_files(copy):
    (copy / "model.safetensors").write_bytes(b"\x10")
    assert "damaged" in refusal(copy)
    (copy / "model.safetensors").unlink()
    assert "neither model.safetensors" in refusal(copy)
    (copy / "config.json").write_text("{")
    assert "not JSON" in refusal(copy)


@pytest.mark.parametrize("model_type", ["bert", "wavlm", "wav2vec2"])
def test_the_cards_head_on_another_network_is_refused(copy, model_type):
    edit_config(copy, model_type=model_type)
    assert f"{model_type!r} with the model card's head is not supported" in refusal(copy)


def test_unsupported_networks_are_refused(copy):
    edit_config(copy, model_type="wavlm", num_class=None)
    assert "'wavlm' is not supported (supported: hubert, wav2vec2)" in refusal(copy)


def test_other_sampling_rates_are_refused(copy):
    Wav2Vec2FeatureExtractor(sampling_rate=8000).save_pretrained(copy)
    assert "8000 Hz" in refusal(copy)


def test_a_pretrained_network_without_a_classifier(copy):
    weights = load_file(copy / "model.safetensors")
    backbone = {name: tensor for name, tensor in weights.items() if name.startswith("hubert.")}
    save_file(backbone, copy / "model.safetensors")
    assert "fine-tune it with jobs.train" in refusal(copy)


# ---- sources that do not answer, or do not exist -------------------------------------------------


@pytest.mark.parametrize(
    "source", ["./nowhere", "/nowhere", "a/b/c/d", "~nobody/x", f"/{'a' * 300}"]
)
def test_no_such_folder(source):
    assert refusal(source).startswith(f"{source}: no such folder")


@pytest.fixture
def unreachable_hub(monkeypatch):
    def unreachable(*_, **__):
        raise hub.LocalEntryNotFoundError("no network")

    monkeypatch.setattr(hub.huggingface_hub, "snapshot_download", unreachable)


@pytest.mark.parametrize(
    ("code", "kind"),
    [(errno.ENOSPC, RunError), (errno.EDQUOT, RunError), (errno.EROFS, CheckpointError)],
)
def test_a_disk_that_cannot_take_the_download_is_not_the_hub(monkeypatch, code, kind):
    def full(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(hub.huggingface_hub, "snapshot_download", full)
    with pytest.raises(kind, match=rf"cannot be downloaded from the hub .*{os.strerror(code)}"):
        load_checkpoint("someone/model")


@pytest.mark.usefixtures("unreachable_hub")
def test_an_unreachable_hub():
    with pytest.raises(RunError, match=r"hub cannot be reached \(no network\)"):
        load_checkpoint("somebody/some-model")


@pytest.mark.usefixtures("unreachable_hub")
@pytest.mark.parametrize("source", ["checkpoints/bst", "chekpoints/best", "./checkpoints/bst"])
def test_a_mistyped_folder_is_told_as_such(source, tmp_path, monkeypatch):
    (tmp_path / "checkpoints" / "best").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert refusal(source).startswith(f"{source}: no such folder")
    assert "checkpoints/best?)" in refusal(source)


@pytest.mark.usefixtures("unreachable_hub")
def test_a_folder_that_is_not_there_beside_others(tmp_path, monkeypatch):
    (tmp_path / "checkpoints" / "best").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert "no such folder here, nor a model in the cache" in refusal("checkpoints/zzz")


def test_from_the_cache_of_the_hub(copy, tmp_path, monkeypatch):
    """Reads the cache layout of huggingface_hub without a network, and keeps the commit."""
    as_published(copy)
    cache = tmp_path / "hub"
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = cache / "models--somebody--emotion"
    shutil.copytree(copy, repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    download = hub.huggingface_hub.snapshot_download

    def from_cache(*args, **kwargs):
        return download(*args, cache_dir=cache, local_files_only=True, **kwargs)

    monkeypatch.setattr(hub.huggingface_hub, "snapshot_download", from_cache)
    checkpoint = load_checkpoint("somebody/emotion")
    assert checkpoint.revision == commit
    assert checkpoint.digest == load_checkpoint(str(copy)).digest
    with pytest.raises(RunError, match="its cache does not hold the model"):
        load_checkpoint("somebody/emotion", revision="v9")


@pytest.mark.parametrize("segments", ["first", "all", "speech"])
def test_another_way_to_cut_recordings(small_checkpoint, segments):
    loaded = load_checkpoint(str(small_checkpoint), segments=segments)
    other = load_checkpoint(str(small_checkpoint), segments="all")
    assert for_segments(other, segments).digest == loaded.digest
    assert for_segments(other, segments).preprocessing == loaded.preprocessing
