"""Each method keeps apart what it promises to, and overlaps are counted."""

import hashlib
from itertools import product

import numpy as np
import pandas as pd
import pytest

from ser_core.corpora.layouts import read_corpus
from ser_core.corpora.splits import SPLITS, describe_split, overlaps, split_corpus
from ser_core.errors import CorpusError
from ser_core.sources.forms import open_source

EMOTIONS = ("angry", "fear", "happy", "neutral", "sad", "surprise")


@pytest.fixture(scope="module")
def casia():
    """CASIA's grid: 4 speakers × 6 emotions × 50 sentences."""
    grid = product("WXYZ", EMOTIONS, map(str, range(201, 251)))
    frame = pd.DataFrame(grid, columns=["speaker", "truth", "sentence"], dtype=object)
    return frame.assign(path=["/".join(row) + ".wav" for row in frame.to_numpy()])


def shared(split, column, left, right):
    values = {name: set(rows[column]) for name, rows in split.groupby("split")}
    return values[left] & values[right]


def sizes(split):
    counts = split["split"].value_counts()
    return tuple(counts[name] for name in SPLITS)


def test_random_equals_the_cards(casia):
    split = split_corpus(casia.sample(frac=1, random_state=1), "random")
    np.random.seed(34)
    order = np.random.permutation(1_200)
    paths = np.array(sorted(casia["path"]))
    for name, rows in zip(SPLITS, (order[:720], order[720:960], order[960:]), strict=True):
        assert set(split.loc[split["split"] == name, "path"]) == set(paths[rows])
    assert sizes(split) == (720, 240, 240)


@pytest.mark.parametrize("seed", [34, 35])
def test_speakers_are_kept_apart(casia, seed):
    split = split_corpus(casia, "speaker", seed)
    assert sizes(split) == (600, 300, 300)
    assert not any(
        shared(split, "speaker", *pair) for pair in (SPLITS[:2], SPLITS[1:], SPLITS[::2])
    )


@pytest.mark.parametrize("seed", [34, 35])
def test_sentences_are_kept_apart(casia, seed):
    split = split_corpus(casia, "speaker-sentence", seed)
    assert sizes(split) == (2 * 6 * 30, 6 * 30, 6 * 20)
    for name in ("train", "validation"):
        assert not shared(split, "speaker", name, "test")
        assert not shared(split, "sentence", name, "test")
    assert not shared(split, "speaker", "train", "validation")


def test_one_speaker_is_held_out(casia):
    split = split_corpus(casia, "leave-one-speaker-out", held_out="Y")
    assert set(split.loc[split["split"] == "test", "speaker"]) == {"Y"}
    assert sizes(split) == (600, 300, 300)
    drawn = {
        split_corpus(casia, "leave-one-speaker-out", seed)
        .query("split == 'test'")["speaker"]
        .iloc[0]
        for seed in range(20)
    }
    assert drawn == set("WXYZ")
    with pytest.raises(CorpusError, match=r"--held-out Q: .* W, X, Y, Z"):
        split_corpus(casia, "leave-one-speaker-out", held_out="Q")


@pytest.mark.parametrize("method", ["random", "speaker", "speaker-sentence"])
def test_a_seed_decides_the_split(casia, method):
    first, again, other = (split_corpus(casia, method, seed) for seed in (1, 1, 2))
    assert first.equals(again)
    assert not first.equals(other)


@pytest.mark.parametrize(
    ("method", "digest"),
    [
        ("random", "55efd5aac0dcb8ff"),
        ("speaker", "2dbb706c3c512a85"),
        ("speaker-sentence", "4ce4572cf671e2d9"),
        ("leave-one-speaker-out", "2dbb706c3c512a85"),
    ],
)
def test_a_seed_gives_the_same_split_in_every_release(casia, method, digest):
    """Runs of release 0.1 are continued, and its figures compared, on the same split."""
    table = split_corpus(casia, method)[["path", "split"]].to_csv(index=False)
    assert hashlib.blake2b(table.encode(), digest_size=8).hexdigest() == digest


@pytest.mark.parametrize("method", ["speaker", "speaker-sentence"])
def test_a_rare_class_is_in_every_split(method):
    """4 of 10 speakers have it: 4 in 10 draws put one of them into each split."""
    truth = {"angry": "ABCDEFGHIJ", "sad": "ABCD"}
    rows = [
        (f"{speaker}/{label}/{sentence}.wav", label, speaker, sentence)
        for label, speakers in truth.items()
        for speaker, sentence in product(speakers, "12345")
    ]
    recordings = pd.DataFrame(rows, columns=["path", "truth", "speaker", "sentence"])
    for seed in range(10):
        split = split_corpus(recordings, method, seed)
        assert split.groupby("split")["truth"].nunique().tolist() == [2, 2, 2]


def test_every_class_is_in_every_split_of_emodb(shared_data):
    """Disgust is rare: most draws of two speakers have little or none of it."""
    recordings = read_corpus("emodb", str(shared_data / "emodb"))
    for method, seed in product(("speaker", "speaker-sentence"), range(3)):
        split = split_corpus(recordings, method, seed)
        assert split.groupby("split")["truth"].nunique().eq(7).all()
        assert split[split["split"] == "test"]["speaker"].nunique() == 2


@pytest.mark.parametrize("method", ["speaker", "speaker-sentence", "leave-one-speaker-out"])
def test_speakers_that_are_unknown_or_too_few(casia, method):
    with pytest.raises(CorpusError, match=r"speaker of 1 of 1,200 recordings is unknown"):
        split_corpus(casia.assign(speaker=[None, *casia["speaker"][1:]]), method)
    with pytest.raises(CorpusError, match=r"at least 3 speakers, the corpus has 2"):
        split_corpus(casia[casia["speaker"].isin(["W", "X"])], method)


def test_sentences_that_are_unknown(casia):
    with pytest.raises(CorpusError, match="sentence of 1,200 of 1,200"):
        split_corpus(casia.assign(sentence=None), "speaker-sentence")


@pytest.fixture
def copies(tmp_path):
    """Six recordings; the first and the last have the same bytes, the fourth is missing."""
    rows = []
    for number, split in enumerate(["train", "train", "validation", "validation", "test", "test"]):
        path = tmp_path / f"{number}.wav"
        path.write_bytes(b"same" if number in (0, 5) else f"{number}".encode())
        rows.append((str(path), "sad", "AABBBC"[number], None, split))
    (tmp_path / "3.wav").unlink()
    return pd.DataFrame(rows, columns=["path", "truth", "speaker", "sentence", "split"])


def test_overlaps_are_counted(copies):
    counts = overlaps(copies)
    assert counts["speaker"].to_dict() == {
        "train/validation": 0,
        "train/test": 0,
        "validation/test": 1,
    }
    assert counts["audio"].tolist() == [0, 1, 0]
    text = describe_split(copies, counts, dropped=3)
    assert "train: 2 recordings; sad 2; speakers: 1" in text
    assert "train and test: speakers 0, sentences ?, identical files 1" in text
    assert "3 recordings left out: their speaker or sentence belongs to another split" in text


def test_overlaps_of_the_cards_split(casia):
    counts = overlaps(split_corpus(casia, "random").assign(audio=None))
    assert counts.loc["train/test"].tolist() == [4, 50, 0]


def test_a_split_is_a_manifest(copies, tmp_path):
    uri = str(tmp_path / "split.csv")
    copies.to_csv(uri, index=False)
    listed = next(open_source([uri]).pages())  # as jobs.label reads it
    assert [recording.path for recording in listed.recordings] == copies["path"].tolist()
    assert listed.columns["split"].to_pylist() == copies["split"].tolist()
    again = read_corpus("manifest", uri)
    assert again.to_dict("records") == copies.to_dict("records")
