"""Corpora with truth, by their published naming → tables of recordings; it opens no recording.

A corpus is an entry of ``LAYOUTS``: where its files' names say speaker, sentence and emotion. What
a name does not say is None, and a file that does not fit is named in a warning, never guessed at.
"""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import pandas as pd
import pyarrow as pa

from ser_core.emotions import EMOTIONS, canonical
from ser_core.errors import CorpusError
from ser_core.sources.manifest import is_manifest, read_manifest
from ser_core.storage.filesystem import absolute, is_local, join, printable, resolve
from ser_core.storage.listing import is_hidden, list_files

COLUMNS = ["path", "truth", "speaker", "sentence"]
_OPTIONAL = {"speaker", "sentence", "split"}
_NAMED = 5  # strays or missing recordings that a warning names

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Layout:
    """How a corpus names its files.

    Attributes:
        pattern: the end of a path, in any case; groups ``emotion``, ``speaker`` and ``sentence``.
        example: such a path, for whoever has another one.
        published: how many recordings the corpus has.
        codes: what ``emotion`` means, in lower case; without, ``canonical`` knows it.
        sentence: what the sentence is called, if not by its group alone.
        grid: whether every speaker says every sentence in every emotion, once.
    """

    pattern: str
    example: str
    published: int
    codes: Mapping[str, str] = field(default_factory=dict)
    sentence: Callable[[re.Match[str]], str] = lambda match: match["sentence"].casefold()
    grid: bool = False


def _esd_sentence(match: re.Match[str]) -> str:
    """350 sentences a language, numbered on through the emotions; speakers 1 to 10 are Chinese."""
    language = "zh" if int(match["speaker"]) <= 10 else "en"
    return f"{language}-{(int(match['sentence']) - 1) % 350 + 1:03}"


LAYOUTS = {
    "casia": Layout(  # the distributed quarter of it: 4 speakers × 6 emotions × 50 sentences
        r"(?P<speaker>[^/]+)/(?P<emotion>[^/]+)/(?P<sentence>\d+)\.wav",
        "liuchanhg/angry/201.wav",
        1_200,
        grid=True,
    ),
    "cremad": Layout(  # one file's level is X rather than XX
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
    "ravdess": Layout(  # audio only, speech only: its songs and videos are other material
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
    "savee": Layout(  # numbered within an emotion: what two of them share, the names do not say
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
    "tess": Layout(  # the older (OAF) and the younger actress; one file is called OA_bite_neutral
        r"(?P<speaker>[oy]a)f?_(?P<sentence>[a-z]+)_(?P<emotion>[a-z]+)\.wav",
        "OAF_angry/OAF_back_angry.wav",
        2_800,
        grid=True,
    ),
}
MANIFEST = "manifest"  # the corpus whose truth stands in a table


def read_corpus(name: str, data: str) -> pd.DataFrame:
    """A corpus's recordings with their truth.

    Args:
        name: a key of ``LAYOUTS`` or ``manifest``, in any case.
        data: its folder, or the manifest; local or any fsspec URI.

    Returns:
        Columns ``path`` (absolute), ``truth`` (canonical), ``speaker`` and ``sentence`` (None where
        unknown), and a manifest's ``split``; sorted by path.

    Raises:
        CorpusError: no such corpus, or nothing there that is named as it should be.
    """
    key = name.casefold().replace("-", "")  # EMO-DB is emodb
    if key == MANIFEST:
        recordings = read_truth(data, "--data")
        base = absolute(data).rsplit("/", 1)[0]
        recordings["path"] = [join(base, path) for path in recordings["path"]]
    elif key in LAYOUTS:
        recordings = _read_layout(key, data)
    else:
        known = ", ".join([*LAYOUTS, MANIFEST])
        raise CorpusError(f"--corpus {name}: not one of {known}")
    return recordings.sort_values("path", ignore_index=True)


def read_truth(uri: str, flag: str) -> pd.DataFrame:
    """A manifest's recordings with their truth, as it names them.

    Args:
        uri: a Parquet, CSV or JSONL table with ``path`` and ``truth`` or ``label``.
        flag: what asked for it, for the messages.

    Returns:
        Columns as of ``read_corpus``, in the manifest's order; rows without truth are left out.

    Raises:
        CorpusError: it cannot be read, or lacks a column.
    """
    if not is_manifest(uri):
        raise CorpusError(f"{flag} {uri}: not a manifest (.parquet, .csv, .jsonl) by its name")
    try:
        table = pa.concat_tables(read_manifest(absolute(uri)), promote_options="default")
    except FileNotFoundError:
        raise CorpusError(f"{flag} {uri}: there is no such file") from None
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        words = str(error).splitlines()[0]
        raise CorpusError(f"{flag} {uri}: not a manifest that can be read ({words})") from None
    truth = next((name for name in ("truth", "label") if name in table.column_names), None)
    if "path" not in table.column_names or truth is None:
        found = ", ".join(table.column_names)
        words = f"the manifest needs the columns `path` and `truth` (or `label`); it has {found}"
        raise CorpusError(f"{flag} {uri}: {words}")
    return _with_truth(table, truth, f"{flag} {uri}")


def _with_truth(table: pa.Table, truth: str, where: str) -> pd.DataFrame:
    given = {"truth": truth, **{name: name for name in table.column_names if name in _OPTIONAL}}
    recordings = pd.DataFrame({"path": table["path"].to_pylist()}, dtype=object)
    for name in [*COLUMNS[1:], "split"]:
        if name in given:
            texts = table[given[name]].cast(pa.string()).to_pylist()
            recordings[name] = pd.Series([text or None for text in texts], dtype=object)
        elif name != "split":
            recordings[name] = None
    without = recordings["truth"].isna()
    if without.any():
        strays = recordings["path"][without].tolist()
        logger.warning(
            "%s: rows without truth left out: %d (%s)", where, len(strays), _first(strays)
        )
    twice = recordings["path"].duplicated()
    if twice.any():
        path = recordings["path"][twice].iloc[0]
        raise CorpusError(f"{where}: the manifest has a path twice: {path}")
    recordings = recordings[~without].reset_index(drop=True)
    if recordings.empty:
        raise CorpusError(f"{where}: no row has a truth")
    recordings["truth"] = recordings["truth"].map(canonical)
    return recordings


def _read_layout(name: str, data: str) -> pd.DataFrame:
    layout, rows, strays = LAYOUTS[name], [], []
    spelling: dict[str, str] = {}  # of speakers, whose folders may differ in case
    for path, below in _listed(data):
        match = _match(layout, below)
        truth = _truth(layout, match["emotion"]) if match else None
        if match is None or truth is None:
            strays.append(below)
            continue
        speaker = spelling.setdefault(match["speaker"].casefold(), match["speaker"])
        rows.append((path, truth, speaker, layout.sentence(match)))
    if not rows:
        words = f"no recording there is named as {name} names them, like {layout.example}"
        raise CorpusError(f"--data {data}: {words}")
    recordings = pd.DataFrame(rows, columns=COLUMNS, dtype=object)
    if strays:
        words = "--data %s: files left out, not named as in %s: %d (%s)"
        logger.warning(words, data, name, len(strays), _first(strays))
    _warn_of_missing(layout, recordings, f"--data {data}")
    return recordings


def _listed(data: str) -> list[tuple[str, str]]:
    """Every file of a folder, hidden ones too: its path, and its path below the folder."""
    try:
        paths = sorted(entry.path for entry in list_files(data, lambda _: True, hidden=True))
    except (FileNotFoundError, NotADirectoryError):
        raise CorpusError(f"--data {data}: there is no such folder") from None
    except Exception as error:  # remote file systems share no base for what they raise
        if is_local(data) and not isinstance(error, OSError):
            raise
        raise CorpusError(f"--data {data}: cannot be listed ({error})") from None
    root = printable(resolve(data)[1])
    below = (printable(resolve(path)[1]).removeprefix(root).lstrip("/") for path in paths)
    return list(zip(paths, below, strict=True))


def _match(layout: Layout, below: str) -> re.Match[str] | None:
    if any(map(is_hidden, below.split("/"))):  # ._201.wav is no recording
        return None
    return re.fullmatch(f"(?:.*/)?{layout.pattern}", below, re.IGNORECASE)


def _truth(layout: Layout, code: str) -> str | None:
    truth = layout.codes.get(code.casefold()) if layout.codes else canonical(code)
    return truth if truth in EMOTIONS else None


def _warn_of_missing(layout: Layout, recordings: pd.DataFrame, where: str) -> None:
    if len(recordings) >= layout.published:
        return
    words = f"{where}: {len(recordings):,} of the {layout.published:,} published recordings"
    if layout.grid:
        fields = ["speaker", "truth", "sentence"]
        there = set(recordings[fields].itertuples(index=False, name=None))
        full = product(*(sorted(recordings[name].unique()) for name in fields))
        missing = ["/".join(clip) for clip in full if clip not in there]
        words += f"; missing: {_first(missing)}" if missing else "; whole rows of the grid missing"
    logger.warning("%s", words)


def _first(names: Sequence[str]) -> str:
    """The first few of some names.

    >>> _first(["a", "b", "c", "d", "e", "f", "g"])
    'a, b, c, d, e and 2 more'
    """
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
