"""Labels + truth → recordings that can be judged; it computes no metric.

A recording of the truth that has no label stays, without a prediction: leaving it out would make a
model look better for what it could not read.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset

from ser_core.corpora.layouts import read_truth
from ser_core.emotions import canonical
from ser_core.errors import CorpusError
from ser_core.storage.filesystem import absolute, join, resolve

# What is read of the labels, beside their scores.
_READ = {"path", "label", "status", "model", "labeled_at", "truth", "speaker", "split"}
NO_ROW = "no row"  # the status of a recording that nobody labelled


@dataclass(frozen=True)
class Judged:
    """Recordings with truth, and what a model said of them.

    Attributes:
        recordings: ``path``, ``truth``, ``speaker``, ``split``, ``status``, ``prediction`` (None
            where there is no label).
        scores: float32, shape ``(num_recordings, num_labels)``; NaN where there is no label.
        labels: the model's classes.
        models: the names of the models that made the labels.
        unjudged: how many labels have no truth.
    """

    recordings: pd.DataFrame
    scores: np.ndarray
    labels: tuple[str, ...]
    models: tuple[str, ...] = ()
    unjudged: int = 0

    def only(self, rows: np.ndarray) -> "Judged":
        """The same for some of the rows, by a boolean mask."""
        recordings = self.recordings[rows].reset_index(drop=True)
        return replace(self, recordings=recordings, scores=self.scores[rows])

    def of_split(self, split: str) -> "Judged":
        """The same for one split.

        Raises:
            CorpusError: no recording is of it.
        """
        column = self.recordings["split"]
        if not (column == split).any():
            known = ", ".join(sorted(column.dropna().unique())) or "no column `split`"
            raise CorpusError(f"--split {split}: no recording is of it; the truth has {known}")
        return self.only((column == split).to_numpy())


def judge(labels_uri: str, truth_uri: str | None) -> Judged:
    """Brings labels and truth together.

    Args:
        labels_uri: ``--labels``: the folder that jobs.label left.
        truth_uri: ``--truth``: a manifest; without, the labels' own column ``truth``.

    Raises:
        CorpusError: either cannot be read, or they have no recording in common.
    """
    labels = _read_labels(labels_uri)
    if truth_uri is not None:
        truth = read_truth(truth_uri, "--truth")
        rows = _rows_of(truth["path"], labels["path"], truth_uri)
        if (rows < 0).all():
            words = f"none of its paths, like {truth['path'].iloc[0]}, is among the labels', like"
            raise CorpusError(f"--truth {truth_uri}: {words} {labels['path'].iloc[0]}")
    elif "truth" in labels:
        rows = np.flatnonzero(labels["truth"].fillna("") != "")
        truth = labels.iloc[rows].reset_index(drop=True)
        if not len(rows):
            raise CorpusError(f"--labels {labels_uri}: its column `truth` is empty")
    else:
        words = f"the labels in {labels_uri} have no column `truth`; name a manifest that has it"
        raise CorpusError(f"--truth is missing: {words}")
    return _judged(truth, labels, rows)


def _read_labels(uri: str) -> pd.DataFrame:
    """The newest row of every path, as ``pandas.read_parquet`` would read the folder."""
    fs, path = resolve(uri)
    try:
        dataset = pa.dataset.dataset(path, format="parquet", filesystem=fs)
        read = [n for n in dataset.schema.names if n in _READ or n.startswith("score_")]
        table = dataset.to_table(columns=read)
    except FileNotFoundError:
        raise CorpusError(f"--labels {uri}: there is no such folder") from None
    except (OSError, pa.ArrowException) as error:
        words = str(error).splitlines()[0]
        raise CorpusError(f"--labels {uri}: not labels that can be read ({words})") from None
    missing = {"path", "label", "status"} - set(table.column_names)
    if not any(name.startswith("score_") for name in table.column_names):
        missing.add("score_<label>")
    if missing or not table.num_rows:
        words = f"columns {', '.join(sorted(missing))}" if missing else "rows"
        raise CorpusError(f"--labels {uri}: not what jobs.label writes (it has no {words})")
    labels: pd.DataFrame = table.unify_dictionaries().to_pandas()
    if "labeled_at" in labels:
        labels = labels.sort_values("labeled_at", kind="stable")
    return labels.drop_duplicates("path", keep="last", ignore_index=True)


def _rows_of(paths: pd.Series, labelled: pd.Series, manifest: str) -> np.ndarray:
    """Each path's row among the labels, or -1: as the manifest gives it, or made absolute."""
    index = pd.Index(labelled)
    base = absolute(manifest).rsplit("/", 1)[0]
    given = index.get_indexer(pd.Index(paths))
    resolved = index.get_indexer(pd.Index([join(base, path) for path in paths]))
    rows: np.ndarray = np.where(given < 0, resolved, given)
    return rows


def _judged(truth: pd.DataFrame, labels: pd.DataFrame, rows: np.ndarray) -> Judged:
    columns = [name for name in map(str, labels) if name.startswith("score_")]
    written = [name.removeprefix("score_") for name in columns]
    names = [canonical(name) for name in written]
    if len(set(names)) < len(names):  # a model that tells apart what we call one
        names = written
    there = rows >= 0
    ok = there & (labels["status"].astype(str).to_numpy()[rows] == "ok")
    label = labels["label"].astype(object).map(dict(zip(written, names, strict=True)))
    recordings = pd.DataFrame(
        {
            "path": truth["path"],
            "truth": truth["truth"].map(canonical),
            "speaker": _known(truth, "speaker"),
            "split": _known(truth, "split"),
            "status": np.where(there, labels["status"].astype(object).to_numpy()[rows], NO_ROW),
            "prediction": np.where(ok, label.to_numpy(object)[rows], None),
        }
    )
    scores = labels[columns].to_numpy(np.float32)[rows]
    scores[~ok] = np.nan
    models = tuple(sorted(labels["model"].astype(str).unique())) if "model" in labels else ()
    unjudged = len(labels) - int(there.sum())
    return Judged(recordings, scores, tuple(names), models, unjudged)


def _known(truth: pd.DataFrame, name: str) -> pd.Series | None:
    """A column of the truth with None for the empty text, which is a CSV's way of saying so."""
    if name not in truth:
        return None
    column = truth[name].astype(object)
    return column.where(column.notna() & (column != ""), None)
