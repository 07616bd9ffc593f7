"""Published corpora → tables of recordings, read from file names; it opens no recording.

A corpus is an entry of ``LAYOUTS``: where its file names state speaker, sentence and emotion. A
file that does not match is listed in a warning; nothing is guessed.
"""

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import product

import pandas as pd

from ser_core.corpora.truth import COLUMNS, read_truth
from ser_core.emotions import EMOTIONS, canonical
from ser_core.errors import CorpusError, first_few
from ser_core.sources.inputs import input_errors
from ser_core.sources.manifest import recording_uris
from ser_core.storage.filesystem import printable, resolve
from ser_core.storage.listing import is_hidden, list_files

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Layout:
    """How a corpus names its files.

    Attributes:
        pattern: the end of a path, case-insensitive; groups ``emotion``, ``speaker`` and
            ``sentence``.
        example: a path of the corpus, for error messages.
        published: number of recordings in the published corpus.
        codes: emotion by the lower-case text of ``emotion``; if empty, ``canonical`` translates it.
        sentence: the sentence's name from the match; by default the group ``sentence``.
        grid: whether every speaker says every sentence in every emotion, exactly once.
    """

    pattern: str
    example: str
    published: int
    codes: Mapping[str, str] = field(default_factory=dict)
    sentence: Callable[[re.Match[str]], str] = lambda match: match["sentence"].casefold()
    grid: bool = False


def _esd_sentence(match: re.Match[str]) -> str:
    """ESD numbers 350 sentences per language on through the emotions; speakers 1–10 are Chinese."""
    language = "zh" if int(match["speaker"]) <= 10 else "en"
    return f"{language}-{(int(match['sentence']) - 1) % 350 + 1:03}"


LAYOUTS = {
    "casia": Layout(  # the distributed part: 4 speakers × 6 emotions × 50 sentences
        r"(?P<speaker>[^/]+)/(?P<emotion>[^/]+)/(?P<sentence>\d+)\.wav",
        "liuchanhg/angry/201.wav",
        1_200,
        grid=True,
    ),
    "cremad": Layout(  # the level of one file is X, not XX
        r"(?P<speaker>\d{4})_(?P<sentence>[a-z]{3})_(?P<emotion>[a-z]{3})_(lo|md|hi|xx?)\.wav",
        "AudioWAV/1001_DFA_ANG_XX.wav",
        7_442,
    ),
    "emodb": Layout(
        r"(?P<speaker>\d\d)(?P<sentence>[ab]\d\d)(?P<emotion>[a-z])[a-z]?\.wav",
        "wav/03a01Fa.wav",
        535,
        {
            "w": "angry",  # Wut
            "l": "boredom",  # Langeweile
            "e": "disgust",  # Ekel
            "a": "fear",  # Angst
            "f": "happy",  # Freude
            "t": "sad",  # Trauer
            "n": "neutral",
        },
    ),
    "esd": Layout(
        r"(?P<speaker>\d{4})/(?P<emotion>[^/]+)/((train|evaluation|test)/)?"
        r"(?P=speaker)_(?P<sentence>\d+)\.wav",
        "0011/Angry/0011_000351.wav",
        35_000,
        sentence=_esd_sentence,
    ),
    "ravdess": Layout(  # audio-only speech; not the songs and videos
        r"03-01-(?P<emotion>\d\d)-0[12]-(?P<sentence>\d\d)-\d\d-(?P<speaker>\d\d)\.wav",
        "Actor_01/03-01-05-01-02-01-01.wav",
        1_440,
        {
            "01": "neutral",
            "02": "calm",
            "03": "happy",
            "04": "sad",
            "05": "angry",
            "06": "fear",
            "07": "disgust",
            "08": "surprise",
        },
    ),
    "savee": Layout(  # numbered per emotion: names do not show shared sentences
        r"(?P<speaker>dc|je|jk|kl)[/_](?P<sentence>(?P<emotion>a|d|f|h|n|sa|su)\d\d)\.wav",
        "AudioData/DC/a01.wav",
        480,
        {
            "a": "angry",
            "d": "disgust",
            "f": "fear",
            "h": "happy",
            "n": "neutral",
            "sa": "sad",
            "su": "surprise",
        },
    ),
    "tess": Layout(  # older (OAF) and younger actress (YAF); one file: OA_bite_neutral.wav
        r"(?P<speaker>[oy]a)f?_(?P<sentence>[a-z]+)_(?P<emotion>[a-z]+)\.wav",
        "OAF_angry/OAF_back_angry.wav",
        2_800,
        grid=True,
    ),
}
MANIFEST = "manifest"  # the name for a corpus whose truth is a table


def read_corpus(name: str, data: str) -> pd.DataFrame:
    """A corpus's recordings with their truth.

    Args:
        name: a key of ``LAYOUTS`` or ``manifest``, case-insensitive; hyphens are ignored.
        data: the corpus's folder, or the manifest; a local path or an fsspec URI.

    Returns:
        Columns ``path`` (absolute), ``truth`` (canonical), ``speaker`` and ``sentence`` (None where
        unknown), and ``split`` if a manifest has it; sorted by path.

    Raises:
        CorpusError: the corpus is unknown, cannot be read, or has no file that matches its layout.
        RunError: its storage cannot be reached.
    """
    key = name.casefold().replace("-", "")  # EMO-DB is emodb
    if key == MANIFEST:
        recordings = read_truth(data, "--data")
        recordings["path"] = recording_uris(data, recordings["path"].tolist())
    elif key in LAYOUTS:
        recordings = _read_layout(key, data)
    else:
        known = ", ".join([*LAYOUTS, MANIFEST])
        raise CorpusError(f"--corpus {name}: not one of {known}")
    return recordings.sort_values("path", ignore_index=True)


def _read_layout(name: str, data: str) -> pd.DataFrame:
    layout, rows, unmatched = LAYOUTS[name], [], []
    spelling: dict[str, str] = {}  # a speaker's folders may differ in case
    for path, relative in _list_folder(data):
        match = _match(layout, relative)
        truth = _emotion(layout, match["emotion"]) if match else None
        if match is None or truth is None:
            unmatched.append(relative)
            continue
        speaker = spelling.setdefault(match["speaker"].casefold(), match["speaker"])
        rows.append((path, truth, speaker, layout.sentence(match)))
    if not rows:
        raise CorpusError(
            f"--data {data}: no file name matches {name}; its files are named like {layout.example}"
        )
    recordings = pd.DataFrame(rows, columns=COLUMNS, dtype=object)
    if unmatched:
        message = "--data %s: skipped files whose names do not match %s: %d (%s)"
        logger.warning(message, data, name, len(unmatched), first_few(unmatched))
    _warn_if_incomplete(layout, recordings, f"--data {data}")
    return recordings


def _list_folder(data: str) -> list[tuple[str, str]]:
    """Every file of a folder, hidden files included: its path, and its path within the folder."""
    with input_errors("--data", data):
        try:
            paths = sorted(entry.path for entry in list_files(data, lambda _: True, hidden=True))
        except (FileNotFoundError, NotADirectoryError):
            raise CorpusError(f"--data {data}: there is no such folder") from None
    root = printable(resolve(data)[1])
    relative = (printable(resolve(path)[1]).removeprefix(root).lstrip("/") for path in paths)
    return list(zip(paths, relative, strict=True))


def _match(layout: Layout, relative: str) -> re.Match[str] | None:
    if any(map(is_hidden, relative.split("/"))):  # macOS's ._201.wav is not a recording
        return None
    return re.fullmatch(f"(?:.*/)?{layout.pattern}", relative, re.IGNORECASE)


def _emotion(layout: Layout, code: str) -> str | None:
    emotion = layout.codes.get(code.casefold()) if layout.codes else canonical(code)
    return emotion if emotion in EMOTIONS else None


def _warn_if_incomplete(layout: Layout, recordings: pd.DataFrame, where: str) -> None:
    if len(recordings) >= layout.published:
        return
    message = f"{where}: {len(recordings):,} of the {layout.published:,} published recordings"
    if layout.grid:
        columns = ["speaker", "truth", "sentence"]
        found = set(recordings[columns].itertuples(index=False, name=None))
        grid = product(*(sorted(recordings[name].unique()) for name in columns))
        missing = ["/".join(cell) for cell in grid if cell not in found]
        message += "; missing: " + (
            first_few(missing) if missing else "a whole speaker, emotion or sentence"
        )
    logger.warning("%s", message)
