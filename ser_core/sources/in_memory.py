"""Recordings as Python code has them: paths, waveforms, or a DataFrame with a column of either."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa

from ser_core.audio.constants import SAMPLING_RATE
from ser_core.audio.samples import RATES
from ser_core.audio.segments import Segmentation
from ser_core.errors import UsageError, one_line
from ser_core.sources.decoder import Decoder, DecoderSettings
from ser_core.sources.inputs import input_errors, shown
from ser_core.sources.manifest_columns import Layout, layout_of, paths_of, stretches_of
from ser_core.sources.named_files import NamedFiles, recordings_in
from ser_core.sources.recording import Recording
from ser_core.sources.waveform_decoder import WaveformDecoder
from ser_core.storage.filesystem import absolute, printable

Recordings: TypeAlias = (
    "str | os.PathLike[str] | Sequence[str | os.PathLike[str]]"
    " | np.ndarray | Sequence[np.ndarray] | pd.Series[Any] | pd.DataFrame"
)

_PATH, _WAVEFORM = "path", "waveform"  # columns
_STRETCH = ("offset", "start", "duration", "end")  # columns, as in a manifest
_WHERE = "recordings"  # the argument, for messages


def open_recordings(recordings: Recordings, sampling_rate: int | None) -> "Paths | Waveforms":
    """Checks recordings, and opens no file.

    Args:
        recordings: see `ser_core.label`.
        sampling_rate: of waveforms, Hz; None for 16 kHz.

    Raises:
        UsageError: they are something else.
    """
    frame = _as_frame(recordings)
    if not frame.columns.is_unique:
        raise UsageError(f"{_WHERE}: the DataFrame has a column twice")
    columns = [name for name in (_PATH, _WAVEFORM) if name in frame]
    if len(columns) != 1:
        found = ", ".join(map(str, frame.columns))
        reason = f"a DataFrame has a column `{_PATH}` or a column `{_WAVEFORM}`"
        raise UsageError(f"{_WHERE}: {reason}; this one has {found}")
    if columns == [_WAVEFORM]:
        return Waveforms(frame, SAMPLING_RATE if sampling_rate is None else sampling_rate)
    if sampling_rate is not None:
        raise UsageError("sampling_rate is for waveforms; files state theirs")
    return Paths(frame)


def _as_frame(recordings: Any) -> pd.DataFrame:
    if isinstance(recordings, pd.DataFrame):
        return recordings
    none = f"{_WHERE}: a {type(recordings).__name__} is no path, waveform or DataFrame"
    if isinstance(recordings, Mapping):
        raise UsageError(f"{none}; use pandas.DataFrame")
    index = recordings.index if isinstance(recordings, pd.Series) else None
    if isinstance(recordings, str | os.PathLike):
        recordings = [recordings]
    try:
        if index is None and hasattr(recordings, "__array__"):
            array = np.asarray(recordings)
            recordings = list(array) if array.dtype.kind in "OU" else [array]
        values = list(recordings)
    except (TypeError, ValueError) as error:  # also an array that is not in this memory
        raise UsageError(f"{none} ({one_line(error)})") from None
    paths = all(isinstance(value, str | os.PathLike) for value in values)
    return pd.DataFrame({_PATH if paths else _WAVEFORM: pd.Series(values, index, dtype=object)})


class Paths:
    """Recordings by their paths or URIs.

    Attributes:
        named: the rows have paths.
        index: of the DataFrame.
        own: its columns that do not say where a recording lies.
    """

    named = True

    def __init__(self, frame: pd.DataFrame) -> None:
        used = [_PATH, *(name for name in _STRETCH if name in frame)]
        columns = {
            name: [None if pd.isna(value) else value for value in frame[name]] for name in used
        }
        columns[_PATH] = [path and printable(os.fspath(path)) for path in columns[_PATH]]
        try:
            table = pa.table(columns)
        except pa.ArrowException as error:
            raise UsageError(f"{_WHERE}: {one_line(error)}") from None
        layout: Layout = layout_of(_WHERE, table.schema, _PATH)
        self._names = paths_of(table, layout, _WHERE, first=0)
        self._starts, self._durations = stretches_of(table, layout, _WHERE, first=0)
        self.index = frame.index
        self.own = frame.drop(columns=[name for name in {*layout, "duration"} if name in frame])

    def blocks(self, rows: int) -> Iterator[list[Recording]]:
        """The recordings, with the size and version of each file.

        Raises:
            UsageError: no installed package supports a protocol, or a URI contains a password.
            RunError: their storage cannot be reached.
        """
        with NamedFiles() as files:
            for start in range(0, len(self._names), rows):
                part = slice(start, start + rows)
                names = self._names[part]
                with input_errors(_WHERE, shown(names)):
                    entries = files.entries([absolute(name) for name in names])
                yield recordings_in(entries, names, self._starts[part], self._durations[part])

    def decoder(self, how: Segmentation) -> Decoder:
        """Decodes the blocks in child processes."""
        return Decoder(DecoderSettings(how))


class Waveforms:
    """Recordings that are already decoded.

    Attributes:
        named: the rows have no paths.
        index: of the DataFrame.
        own: its other columns.
    """

    named = False

    def __init__(self, frame: pd.DataFrame, sampling_rate: int) -> None:
        whole = isinstance(sampling_rate, int | np.integer)
        if not whole or sampling_rate not in RATES:
            reason = f"is not a number of Hz from {RATES.start:,} to {RATES.stop - 1:,}"
            raise UsageError(f"sampling_rate {sampling_rate!r} {reason}")
        self._arrays = [_as_array(value, row) for row, value in enumerate(frame[_WAVEFORM])]
        self._rate = int(sampling_rate)
        self.index = frame.index
        self.own = frame.drop(columns=_WAVEFORM)

    def blocks(self, rows: int) -> Iterator[list[Recording]]:
        """As many references as there are waveforms; they lead nowhere."""
        for start in range(0, len(self._arrays), rows):
            yield [Recording("")] * len(self._arrays[start : start + rows])

    def decoder(self, how: Segmentation) -> "nullcontext[WaveformDecoder]":
        """Decodes the blocks in their order, in this process."""
        return nullcontext(WaveformDecoder(self._arrays, self._rate, how))


def _as_array(value: Any, row: int) -> np.ndarray:
    try:
        array = np.asarray(value)
    except Exception as error:  # of whatever library the array is
        raise UsageError(f"{_WHERE}: row {row} is no waveform ({one_line(error)})") from None
    if array.ndim != 1 or (array.dtype.kind != "f" and array.dtype != np.int16):
        wanted = "a waveform has the shape (num_samples,) and floats or int16"
        what = f"{type(value).__name__} of shape {array.shape} and type {array.dtype}"
        raise UsageError(f"{_WHERE}: row {row} is a {what}; {wanted}")
    return array
