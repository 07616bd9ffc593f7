"""Recordings → train, validation and test; it reads files only to find identical ones.

A test score is only as meaningful as the split is strict: ``overlaps`` counts what its parts share.
"""

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import numpy as np
import pandas as pd

from ser_core.console import counted
from ser_core.errors import CorpusError
from ser_core.settings import SEED, SplitMethod
from ser_core.storage.filesystem import resolve

SPLITS = ("train", "validation", "test")
_SHARES = (0.6, 0.2, 0.2)  # the model card's
_TEST_SENTENCES = 0.4  # share of the sentences that are reserved for test
_CANDIDATES = 20  # group draws; the one with the best class balance is used
_CONCURRENT_READS = 16


def split_corpus(
    recordings: pd.DataFrame, method: SplitMethod, seed: int = SEED, held_out: str | None = None
) -> pd.DataFrame:
    """Adds a column ``split``: ``train``, ``validation`` or ``test``.

    ``to_csv(index=False)`` makes the result a manifest that every job reads. The methods:

    - ``random``: the model card's, a permutation of the sorted paths, cut at 0.6 and 0.8. Speakers
      and sentences occur in all splits.
    - ``speaker``: no speaker occurs in two splits; the same shares, of the speakers.
    - ``speaker-sentence``: in addition, no sentence of test occurs in the other splits. Recordings
      of a test speaker with another sentence, or the reverse, are dropped.
    - ``leave-one-speaker-out``: one speaker is test, another is validation.

    Args:
        recordings: columns ``path``, ``truth``, ``speaker``, ``sentence``.
        method: how to split.
        seed: of the random draws; the same seed gives the same split.
        held_out: the test speaker of ``leave-one-speaker-out``; by default drawn at random.

    Raises:
        CorpusError: the speakers or sentences that the method needs are unknown or too few.
    """
    recordings = recordings.sort_values("path", ignore_index=True)
    random = np.random.RandomState(seed)
    if method == "random":
        split = _split_at_random(len(recordings), random)
    elif method == "leave-one-speaker-out":
        split = _leave_one_speaker_out(recordings, random, held_out)
    else:
        draws = (_draw_groups(recordings, method, random) for _ in range(_CANDIDATES))
        split = min(draws, key=lambda draw: _class_imbalance(recordings["truth"], draw))
    assigned = recordings.assign(split=split)
    return assigned[assigned["split"] != ""].reset_index(drop=True)


def _split_at_random(count: int, random: np.random.RandomState) -> np.ndarray:
    """The card's split, without scikit-learn, whose ShuffleSplit takes test from the front."""
    split = np.empty(count, object)
    ends = [round(share * count) for share in np.cumsum(_SHARES)[:-1]]
    for name, rows in zip(SPLITS, np.split(random.permutation(count), ends), strict=True):
        split[rows] = name
    return split


def _leave_one_speaker_out(
    recordings: pd.DataFrame, random: np.random.RandomState, held_out: str | None
) -> np.ndarray:
    """One fold; scikit-learn's LeaveOneGroupOut makes all of them, and no validation split."""
    speakers = [str(name) for name in random.permutation(_groups(recordings, "speaker", 3))]
    if held_out is not None and held_out not in speakers:
        known = ", ".join(sorted(speakers))
        raise CorpusError(f"--held-out {held_out}: no such speaker; there are {known}")
    test = held_out if held_out is not None else speakers[0]
    validation = next(speaker for speaker in speakers if speaker != test)
    column = recordings["speaker"]
    return np.select([column == test, column == validation], ["test", "validation"], "train")


def _draw_groups(
    recordings: pd.DataFrame, method: SplitMethod, random: np.random.RandomState
) -> np.ndarray:
    """The split of each recording under one random draw; empty for a dropped one."""
    count = max(1, round(_SHARES[-1] * len(_groups(recordings, "speaker", 3))))
    validation, test = _draw(recordings["speaker"], count, count, random)
    split = np.full(len(recordings), "train", object)
    split[validation], split[test] = "validation", "test"
    if method == "speaker-sentence":
        total = len(_groups(recordings, "sentence", 2))
        count = max(1, round(_TEST_SENTENCES * total))
        _, reserved = _draw(recordings["sentence"], total - count, count, random)
        split[(split == "test") != np.isin(np.arange(len(split)), reserved)] = ""
    return split


def _draw(
    groups: pd.Series, first: int, second: int, random: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """The rows of so many random groups, and of so many others."""
    from sklearn.model_selection import GroupShuffleSplit

    splitter = GroupShuffleSplit(1, train_size=first, test_size=second, random_state=random)
    return next(splitter.split(groups, groups=groups))  # type: ignore[no-any-return]


def _groups(recordings: pd.DataFrame, name: str, minimum: int) -> np.ndarray:
    """The corpus's speakers or sentences, sorted."""
    unknown = int(recordings[name].isna().sum())
    if unknown:
        raise CorpusError(
            f"--split: the {name} of {unknown:,} of {len(recordings):,} recordings is unknown; use"
            f" random, or a manifest with a column `{name}`"
        )
    groups = np.array(sorted(recordings[name].unique()), object)
    if len(groups) < minimum:
        raise CorpusError(
            f"--split: this method needs at least {minimum} {name}s, the corpus has {len(groups)};"
            " use random"
        )
    return groups


def _class_imbalance(truth: pd.Series, split: np.ndarray) -> float:
    """Sum over splits and classes of the difference between class shares in split and corpus."""
    overall = truth.value_counts(normalize=True)
    total = 0.0
    for name in SPLITS:
        part = truth[split == name]
        if part.empty:
            total += len(overall)  # worse than any split that is not empty
        else:
            shares = part.value_counts(normalize=True)
            total += float(shares.sub(overall, fill_value=0).abs().sum())
    return total


# ---- what splits share ---------------------------------------------------------------------------


def overlaps(split: pd.DataFrame) -> pd.DataFrame:
    """The number of speakers, sentences and identical files that each two splits share.

    Files are identical if their bytes are, whatever their names. Unknown speakers and sentences,
    and files that cannot be read, are not counted.

    Args:
        split: the result of ``split_corpus``; with a column ``audio``, as ``audio_digests`` gives
            it, no file is read.

    Returns:
        Columns ``speaker``, ``sentence``, ``audio``; index ``train/validation``, ``train/test``,
        ``validation/test``.
    """
    if "audio" not in split:
        split = split.assign(audio=audio_digests(split["path"]))
    columns = ["speaker", "sentence", "audio"]
    values = {
        name: {column: set(part[column].dropna()) for column in columns}
        for name, part in ((name, split[split["split"] == name]) for name in SPLITS)
    }
    counts = {
        f"{left}/{right}": [len(values[left][c] & values[right][c]) for c in columns]
        for left, right in combinations(SPLITS, 2)
    }
    return pd.DataFrame.from_dict(counts, orient="index", columns=columns)


def audio_digests(paths: Iterable[str]) -> np.ndarray:
    """A digest of each file's bytes; None for a file that cannot be read."""
    with ThreadPoolExecutor(_CONCURRENT_READS) as pool:
        return np.array(list(pool.map(_digest, paths)), object)


def _digest(path: str) -> str | None:
    fs, name = resolve(path)
    try:
        data = fs.cat_file(name)
    except Exception:  # file systems share no base class for errors; decoding will report the file
        return None
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def describe_split(split: pd.DataFrame, shared: pd.DataFrame, dropped: int = 0) -> str:
    """A split in words, several lines: its sizes, and what its parts share.

    Args:
        split: the result of ``split_corpus``.
        shared: the result of ``overlaps``.
        dropped: the number of recordings that the method put in no split.
    """
    return "\n".join(_description(split, shared, dropped))


def _description(split: pd.DataFrame, shared: pd.DataFrame, dropped: int) -> Iterator[str]:
    for name in SPLITS:
        part = split[split["split"] == name]
        counts = part["truth"].value_counts().sort_index()
        classes = ", ".join(f"{label} {count:,}" for label, count in counts.items())
        speakers = part["speaker"].nunique() or "unknown"
        yield f"{name}: {counted(len(part), 'recording')}; {classes}; speakers: {speakers}"
    if dropped:
        reason = "their speaker or sentence belongs to another split"
        yield f"{counted(dropped, 'recording')} left out: {reason}"
    nouns = {"speaker": "speakers", "sentence": "sentences", "audio": "identical files"}
    for pair, row in shared.iterrows():
        counts_ = ", ".join(
            f"{noun} {row[name]:,}" if name == "audio" or split[name].notna().any() else f"{noun} ?"
            for name, noun in nouns.items()
        )
        yield f"shared by {str(pair).replace('/', ' and ')}: {counts_}"
