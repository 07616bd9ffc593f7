"""Manifests with truth → tables of recordings; it opens no recording."""

import logging

import pandas as pd
import pyarrow as pa

from ser_core.emotions import canonical
from ser_core.errors import CorpusError, first_few
from ser_core.sources.inputs import input_errors
from ser_core.sources.manifest import content_errors, is_manifest, read_manifest
from ser_core.storage.filesystem import absolute

COLUMNS = ["path", "truth", "speaker", "sentence"]  # of every corpus; unknown values are None
_TRUTH_COLUMNS = ("truth", "label")  # in order of preference

logger = logging.getLogger(__name__)


def read_truth(uri: str, flag: str) -> pd.DataFrame:
    """A manifest's recordings with their truth.

    Args:
        uri: a Parquet, CSV or JSONL table with ``path`` and ``truth`` or ``label``.
        flag: the command-line flag that gave the URI, for error messages.

    Returns:
        Columns ``path`` (as the manifest gives it), ``truth`` (canonical), ``speaker`` and
        ``sentence`` (None where unknown), and ``split`` if the manifest has it; in the manifest's
        order, without the rows that have no truth.

    Raises:
        CorpusError: it cannot be read, lacks a column or a path, or has a path twice.
        RunError: its storage cannot be reached.
    """
    where = f"{flag} {uri}"
    table = _read_table(uri, flag)
    truth = next((name for name in _TRUTH_COLUMNS if name in table.column_names), None)
    if "path" not in table.column_names or truth is None:
        found = ", ".join(table.column_names)
        raise CorpusError(
            f"{where}: the manifest needs the columns `path` and `truth` (or `label`); it has"
            f" {found}"
        )
    columns = {"path": "path", "truth": truth, "speaker": "speaker", "sentence": "sentence"}
    if "split" in table.column_names:
        columns["split"] = "split"
    with content_errors(where):
        recordings = pd.DataFrame({name: _texts(table, own) for name, own in columns.items()})
    return _with_truth(recordings, where)


def _read_table(uri: str, flag: str) -> pa.Table:
    where = f"{flag} {uri}"
    if not is_manifest(uri):
        raise CorpusError(f"{where}: not a manifest (.parquet, .csv, .jsonl) by its name")
    with input_errors(flag, uri), content_errors(where):
        tables = list(read_manifest(absolute(uri)))
        if not tables:
            raise CorpusError(f"{where}: the manifest has no rows")
        return pa.concat_tables(tables, promote_options="default")


def _texts(table: pa.Table, name: str) -> pd.Series:
    """A column as text, None for what is null or empty (CSV has no null); None if it is missing."""
    if name not in table.column_names:
        return pd.Series([None] * len(table), dtype=object)
    texts = table[name].cast(pa.string()).to_pylist()
    return pd.Series([text or None for text in texts], dtype=object)


def _with_truth(recordings: pd.DataFrame, where: str) -> pd.DataFrame:
    if recordings["path"].isna().any():
        raise CorpusError(f"{where}: a row has no path")
    repeated = recordings["path"].duplicated()
    if repeated.any():
        path = recordings["path"][repeated].iloc[0]
        raise CorpusError(f"{where}: the manifest has a path twice: {path}")
    missing = recordings["truth"].isna()
    if missing.all():
        raise CorpusError(f"{where}: no row has a truth")
    if missing.any():
        skipped = [str(path) for path in recordings["path"][missing]]
        message = "%s: skipped rows without truth: %d (%s)"
        logger.warning(message, where, len(skipped), first_few(skipped))
    recordings = recordings[~missing].reset_index(drop=True)
    recordings["truth"] = recordings["truth"].map(canonical)
    return recordings
