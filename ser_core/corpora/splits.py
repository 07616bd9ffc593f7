"""Recordings → train, validation and test, by protocol; it reads bytes only to compare them.

What a split is worth depends on what its parts share: see ``overlaps``.
"""

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import numpy as np
import pandas as pd

from ser_core.errors import CorpusError
from ser_core.settings import SEED, SplitMethod
from ser_core.storage.filesystem import resolve

SPLITS = ("train", "validation", "test")
_SHARES = (0.6, 0.2, 0.2)  # the model card's
_TEST_SENTENCES = 0.4  # of the sentences: test keeps only where its speakers say them
_DRAWS = 20  # of which the one that keeps the classes in balance is taken
_READERS = 16  # files read at once


def split_corpus(
    recordings: pd.DataFrame, protocol: SplitMethod, seed: int = SEED, held_out: str | None = None
) -> pd.DataFrame:
    """Recordings with a column ``split``: ``train``, ``validation`` or ``test``.

    Its ``to_csv(index=False)`` is a manifest that every job reads.

    - ``random`` is the model card's: one permutation of the sorted paths, cut at 0.6 and 0.8. The
      same speakers and sentences stand in every split.
    - ``speaker``: each speaker in one split only, by the same shares.
    - ``speaker-sentence``: test shares neither speaker nor sentence with the others, which share
      sentences with each other. Recordings that fall between are left out.
    - ``leave-one-speaker-out``: one speaker is test, another one validation.

    Args:
        recordings: columns ``path``, ``truth``, ``speaker``, ``sentence``.
        protocol: how to split.
        seed: of whatever is drawn.
        held_out: the test speaker of ``leave-one-speaker-out``; without, one is drawn.

    Raises:
        CorpusError: the recordings have not the speakers or sentences that the protocol needs.
    """
    recordings = recordings.sort_values("path", ignore_index=True)
    random = np.random.RandomState(seed)
    if protocol == "random":
        split = _random(len(recordings), random)
    elif protocol == "leave-one-speaker-out":
        split = _leave_one_out(recordings, random, held_out)
    else:
        draws = (_draw(recordings, protocol, random) for _ in range(_DRAWS))
        split = min(draws, key=lambda drawn: _imbalance(recordings["truth"], drawn))
    placed = recordings.assign(split=split)
    return placed[placed["split"] != ""].reset_index(drop=True)


def _random(count: int, random: np.random.RandomState) -> np.ndarray:
    split = np.empty(count, object)
    ends = [round(share * count) for share in np.cumsum(_SHARES)[:-1]]
    for name, rows in zip(SPLITS, np.split(random.permutation(count), ends), strict=True):
        split[rows] = name
    return split


def _leave_one_out(
    recordings: pd.DataFrame, random: np.random.RandomState, held_out: str | None
) -> np.ndarray:
    speakers = [str(name) for name in random.permutation(_groups(recordings, "speaker", 3))]
    if held_out is not None and held_out not in speakers:
        known = ", ".join(sorted(speakers))
        raise CorpusError(f"--held-out {held_out}: no such speaker; there are {known}")
    test = held_out if held_out is not None else speakers[0]
    validation = next(speaker for speaker in speakers if speaker != test)
    column = recordings["speaker"]
    return np.select([column == test, column == validation], ["test", "validation"], "train")


def _draw(
    recordings: pd.DataFrame, protocol: SplitMethod, random: np.random.RandomState
) -> np.ndarray:
    """The split of each recording, empty where it falls between."""
    speakers = random.permutation(_groups(recordings, "speaker", 3))
    held = max(1, round(_SHARES[-1] * len(speakers)))
    place = dict.fromkeys(speakers, "train")
    place |= dict.fromkeys(speakers[: 2 * held], "validation") | dict.fromkeys(
        speakers[:held], "test"
    )
    split = recordings["speaker"].map(place).to_numpy(object)
    if protocol == "speaker-sentence":
        sentences = random.permutation(_groups(recordings, "sentence", 2))
        test = sentences[: max(1, round(_TEST_SENTENCES * len(sentences)))]
        split[(split == "test") != recordings["sentence"].isin(test).to_numpy()] = ""
    return split


def _groups(recordings: pd.DataFrame, name: str, needed: int) -> np.ndarray:
    """The corpus's speakers or sentences, sorted."""
    unknown = int(recordings[name].isna().sum())
    if unknown:
        words = f"the {name} of {unknown:,} of {len(recordings):,} recordings is not known"
        raise CorpusError(f"--split: {words}; choose random, or give a manifest that says it")
    groups = np.array(sorted(recordings[name].unique()), object)
    if len(groups) < needed:
        words = f"this protocol needs {needed} {name}s at least and the corpus has {len(groups)}"
        raise CorpusError(f"--split: {words}; choose random")
    return groups


def _imbalance(truth: pd.Series, split: np.ndarray) -> float:
    """How far the classes' shares of each split are from their shares of the corpus; 0 is best."""
    overall = truth.value_counts(normalize=True)
    return sum(
        float(
            truth[split == name].value_counts(normalize=True).sub(overall, fill_value=0).abs().sum()
        )
        if (split == name).any()
        else len(overall)
        for name in SPLITS
    )


def overlaps(split: pd.DataFrame) -> pd.DataFrame:
    """How many speakers, sentences and identical recordings two splits share.

    Identical is what has the same bytes, whatever its name. Unknown speakers and sentences, and
    files that cannot be read, are shared with nobody.

    Args:
        split: as of ``split_corpus``; a column ``audio`` saves reading the files again.

    Returns:
        Columns ``speaker``, ``sentence``, ``audio``; index ``train/validation``, ``train/test``,
        ``validation/test``.
    """
    if "audio" not in split:
        split = split.assign(audio=audio_digests(split["path"]))
    parts = {name: split[split["split"] == name] for name in SPLITS}
    names = ["speaker", "sentence", "audio"]
    return pd.DataFrame.from_dict(
        {
            f"{one}/{other}": [
                len(set(parts[one][name].dropna()) & set(parts[other][name].dropna()))
                for name in names
            ]
            for one, other in combinations(SPLITS, 2)
        },
        orient="index",
        columns=names,
    )


def audio_digests(paths: Iterable[str]) -> np.ndarray:
    """A digest of each file's bytes, None where it cannot be read."""
    with ThreadPoolExecutor(_READERS) as pool:
        return np.array(list(pool.map(_digest, paths)), object)


def _digest(path: str) -> str | None:
    fs, name = resolve(path)
    try:
        data = fs.cat_file(name)
    except Exception:  # each file system raises its own; whoever decodes the file will say why
        return None
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def describe_split(split: pd.DataFrame, shared: pd.DataFrame, left_out: int = 0) -> str:
    """A split for reading: its sizes, and what its parts share.

    Args:
        split: as of ``split_corpus``.
        shared: as of ``overlaps``.
        left_out: recordings that the protocol placed nowhere.
    """
    return "\n".join(_description(split, shared, left_out))


def _description(split: pd.DataFrame, shared: pd.DataFrame, left_out: int) -> Iterator[str]:
    for name in SPLITS:
        part = split[split["split"] == name]
        counts = part["truth"].value_counts().sort_index()
        classes = ", ".join(f"{label} {count:,}" for label, count in counts.items())
        speakers = part["speaker"].nunique() or "unknown"
        yield f"{name}: {len(part):,} recordings; {classes}; speakers: {speakers}"
    if left_out:
        yield f"left out, as they fall between: {left_out:,} recordings"
    nouns = {"speaker": "speakers", "sentence": "sentences", "audio": "identical files"}
    for pair, row in shared.iterrows():
        words = ", ".join(
            f"{noun} {row[name]:,}" if name == "audio" or split[name].notna().any() else f"{noun} ?"
            for name, noun in nouns.items()
        )
        yield f"shared by {str(pair).replace('/', ' and ')}: {words}"
