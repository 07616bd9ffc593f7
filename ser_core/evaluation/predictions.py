"""Labels joined with truth; it computes no metric.

A recording with truth but without a label is kept, without a prediction: dropping it would improve
the figures of a model that fails on difficult recordings.
"""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset

from ser_core.corpora.truth import read_truth
from ser_core.emotions import canonical
from ser_core.errors import FINAL, CorpusError, Status, first_few, one_line
from ser_core.labeling.rules import superseded
from ser_core.schema import NO_LABEL, classes_of, score_columns
from ser_core.sources.inputs import input_errors
from ser_core.sources.manifest import recording_uris
from ser_core.storage.filesystem import resolve
from ser_core.storage.folder import Folder
from ser_core.storage.listing import is_file, is_hidden

NO_ROW = "no row"  # the status of a recording that the labels do not contain
_REQUIRED = ("path", "label", "status")
_TEXTS = (*_REQUIRED, "uri", "model", "truth", "speaker", "split")
_READERS = 8  # footers read at once


@dataclass(frozen=True)
class Predictions:
    """Recordings with truth, and what a model predicted for them.

    Attributes:
        recordings: columns ``path``, ``identity`` (None without a row), ``truth``, ``speaker``,
            ``split``, ``status`` and ``prediction`` (None without a label); emotions have their
            canonical names.
        scores: float32, shape ``(num_recordings, num_classes)``; NaN without a label.
        classes: the model's classes, in the order of the scores.
        models: the names of the models that made the labels.
        labels_without_truth: number of labelled recordings that have no truth.
    """

    recordings: pd.DataFrame
    scores: np.ndarray
    classes: tuple[str, ...]
    models: tuple[str, ...] = ()
    labels_without_truth: int = 0

    def select(self, mask: np.ndarray) -> "Predictions":
        """The recordings where a boolean mask is true."""
        recordings = self.recordings[mask].reset_index(drop=True)
        return replace(self, recordings=recordings, scores=self.scores[mask])

    def of_split(self, split: str) -> "Predictions":
        """The recordings of one split.

        Raises:
            CorpusError: the split has no recording.
        """
        column = self.recordings["split"]
        if not (column == split).any():
            known = ", ".join(sorted(column.dropna().unique())) or "no column `split`"
            raise CorpusError(f"--split {split}: it has no recordings; the truth has {known}")
        return self.select((column == split).to_numpy())


def read_predictions(labels_uri: str, truth_uri: str | None) -> Predictions:
    """Reads labels and joins them with truth.

    Args:
        labels_uri: ``--labels``: the output folder of jobs.label, or a single Parquet file.
        truth_uri: ``--truth``: a manifest; None uses the column ``truth`` of the labels.

    Raises:
        CorpusError: either cannot be read, or they have no recording in common.
    """
    labels, classes = _read_labels(labels_uri)
    if truth_uri is not None:
        truth = read_truth(truth_uri, "--truth")
        rows = _find_rows(truth["path"].tolist(), labels, truth_uri)
        if (rows < 0).all():
            raise CorpusError(
                f"--truth {truth_uri}: none of its paths, like {truth['path'].iloc[0]}, is in the"
                f" labels, which have paths like {labels['path'].iloc[0]}"
            )
    elif "truth" in labels:
        rows = np.flatnonzero(labels["truth"].notna())
        truth = labels.iloc[rows].reset_index(drop=True)
        if not len(rows):
            raise CorpusError(f"--labels {labels_uri}: the column `truth` is empty")
    else:
        raise CorpusError(
            f"--truth is missing: the labels in {labels_uri} have no column `truth`; name a"
            " manifest that has it"
        )
    return _join(truth, labels, rows, classes)


# ---- labels --------------------------------------------------------------------------------------


def _read_labels(uri: str) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The current row of each recording, as the label store would choose it, and the classes.

    Columns are the needed ones of the labels, with None where there is no text, and ``identity``:
    what tells recordings apart, ``uri`` or, in parts of release 0.1, ``path``.
    """
    try:
        with input_errors("--labels", uri):
            table, classes = _read_parts(uri)
    except pa.ArrowException as error:
        raise CorpusError(f"--labels {uri}: cannot be read ({one_line(error)})") from None
    if not table.num_rows:
        raise CorpusError(f"--labels {uri}: not an output of jobs.label (it has no rows)")
    labels: pd.DataFrame = table.to_pandas()
    for name in set(_TEXTS) & set(labels):
        labels[name] = _as_text(labels[name])
    identity = labels["uri"].fillna(labels["path"]) if "uri" in labels else labels["path"]
    when = labels["labeled_at"] if "labeled_at" in labels else pd.Series(range(len(labels)))
    segment = labels.reindex(columns=["start", "channel"]).groupby(
        ["start", "channel"], dropna=False
    )
    stale = superseded(
        pd.factorize(identity)[0],
        segment.ngroup().to_numpy(),
        labels["status"].isin(FINAL).to_numpy(),
        when.to_numpy(),
    )
    current = labels.assign(identity=identity)[~stale].reset_index(drop=True)
    if current["identity"].duplicated().any():
        several = "recordings have several rows, for their segments or channels"
        remedy = "label them with --rows recording and --channels mix"
        raise CorpusError(f"--labels {uri}: {several}; {remedy}")
    return current, classes


def _read_parts(uri: str) -> tuple[pa.Table, tuple[str, ...]]:
    """The needed columns of all parts; a column that a part lacks is null there."""
    fs, _ = resolve(uri)
    parts = pa.dataset.dataset(_part_paths(uri), format="parquet", filesystem=fs)
    fragments = list(parts.get_fragments())
    with ThreadPoolExecutor(_READERS) as pool:
        schemas = list(pool.map(lambda fragment: fragment.physical_schema, fragments))
    classes = tuple(dict.fromkeys(name for schema in schemas for name in classes_of(schema)))
    available = {name for schema in schemas for name in schema.names}
    missing = [name for name in _REQUIRED if name not in available]
    missing += [] if classes else ["score_<label>"]
    if missing:
        columns = ", ".join(missing)
        raise CorpusError(f"--labels {uri}: not an output of jobs.label (no columns {columns})")
    # One type per column, as parts may have been rewritten with text in place of dictionaries.
    types = {
        **dict.fromkeys(_TEXTS, pa.string()),
        "labeled_at": pa.timestamp("us", tz="UTC"),
        "start": pa.float64(),
        "channel": pa.int16(),
        **dict.fromkeys(score_columns(classes), pa.float32()),
    }
    schema = pa.schema([field for field in types.items() if field[0] in available])
    dataset = pa.dataset.FileSystemDataset(fragments, schema, parts.format, parts.filesystem)
    return dataset.to_table(), classes


def _part_paths(uri: str) -> list[str]:
    """The Parquet files directly in a folder; reports of runs lie in a subfolder."""
    fs, path = resolve(uri)
    if is_file(uri):
        return [path]
    names = [n for n in Folder(uri).names() if n.endswith(".parquet") and not is_hidden(n)]
    if not names and not fs.exists(path):
        raise FileNotFoundError(uri)
    if not names:
        raise CorpusError(f"--labels {uri}: not an output of jobs.label (it has no Parquet files)")
    return [f"{path}/{name}" for name in names]


def _as_text(column: pd.Series) -> pd.Series:
    """A column of Python strings, with None for what is null or empty."""
    column = column.astype(object)
    return column.where(column.notna() & (column != ""), None)


# ---- labels and truth ----------------------------------------------------------------------------


def _find_rows(paths: list[str], labels: pd.DataFrame, manifest: str) -> np.ndarray:
    """The row of each of a manifest's paths in the labels, or -1.

    The recording at the path itself comes first, as several manifests may have the same relative
    path. A manifest that was moved since names the same paths as the one that was labelled.
    """
    rows = pd.Index(labels["identity"]).get_indexer(pd.Index(recording_uris(manifest, paths)))
    ambiguous = labels["path"].duplicated(keep=False)
    unfound = [path for path, row in zip(paths, rows, strict=True) if row < 0]
    if repeated := sorted(set(unfound) & set(labels["path"][ambiguous])):
        raise CorpusError(
            f"--truth {manifest}: the labels have several recordings with the same path"
            f" ({first_few(repeated)}); move the truth beside the manifest that was labelled, or"
            " give absolute paths"
        )
    by_path = pd.Series(labels.index[~ambiguous], labels["path"][~ambiguous])
    given = by_path.reindex(paths).fillna(-1).to_numpy(np.int64)
    found: np.ndarray = np.where(rows < 0, given, rows)
    return found


def _join(
    truth: pd.DataFrame, labels: pd.DataFrame, rows: np.ndarray, classes: tuple[str, ...]
) -> Predictions:
    names = _names_of(classes)
    spellings = {name.casefold(): known for name, known in names.items()}
    true_names = truth["truth"].map(lambda v: spellings.get(v.strip().casefold(), canonical(v)))
    if NO_LABEL in {*names.values(), *true_names}:
        raise CorpusError(f"a class is called `{NO_LABEL}`, as what has no label; rename it")
    found = rows >= 0
    ok = found & (labels["status"].to_numpy(object)[rows] == Status.OK)
    label = labels["label"].map(names).to_numpy(object)[rows]
    unknown = pd.Series([None] * len(truth), dtype=object)
    recordings = pd.DataFrame(
        {
            "path": truth["path"],
            "identity": np.where(found, labels["identity"].to_numpy(object)[rows], None),
            "truth": true_names,
            "speaker": truth.get("speaker", unknown),
            "split": truth.get("split", unknown),
            "status": np.where(found, labels["status"].to_numpy(object)[rows], NO_ROW),
            "prediction": np.where(ok, label, None),
        },
        dtype=object,  # pandas 3 would turn None into NaN
    )
    scores = labels[score_columns(classes)].to_numpy(np.float32)[rows]
    # A null score of a labelled recording is that of a class which its model does not have.
    scores = np.where(ok[:, np.newaxis], np.nan_to_num(scores, nan=0.0), np.float32(np.nan))
    models = tuple(sorted(labels["model"].dropna().unique())) if "model" in labels else ()
    without_truth = len(labels) - len(set(rows[found]))
    return Predictions(recordings, scores, tuple(names.values()), models, without_truth)


def _names_of(classes: Sequence[str]) -> dict[str, str]:
    """The canonical name of each class, or its own if the model has several of that name.

    >>> _names_of(["anger", "joy", "happiness"])
    {'anger': 'angry', 'joy': 'joy', 'happiness': 'happiness'}
    """
    names = {name: canonical(name) for name in classes}
    number = Counter(names.values())
    return {name: name if number[known] > 1 else known for name, known in names.items()}
