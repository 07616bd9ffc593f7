"""The current rows of an output, for the jobs that read one; it writes nothing."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from ser_core.errors import CorpusError, OutputError
from ser_core.labeling.parts import Part, find_parts, is_part
from ser_core.labeling.rules import RULE_COLUMNS, AllRows
from ser_core.schema import classes_of, output_schema
from ser_core.storage.filesystem import absolute
from ser_core.storage.folder import Folder, output_folder

_READERS = 4  # parts read at once, and in memory at once
_REQUIRED = ("path", "file_id", "label", "status", "model_digest", "labeled_at")


@dataclass(frozen=True)
class Labels:
    """An output of jobs.label, read part by part.

    Attributes:
        folder: where it is.
        parts: its Parquet files.
        schema: the columns of all parts; texts are strings, however a part encodes them.
        classes: the model's classes, in the checkpoint's order.
    """

    folder: Folder
    parts: tuple[Part, ...]
    schema: pa.Schema
    classes: tuple[str, ...]

    @property
    def manifest(self) -> list[str]:
        """The columns that came from a manifest."""
        ours = output_schema(self.classes, pa.schema([]), embedding_size=0).names
        return [name for name in self.schema.names if name not in ours]

    def current_rows(
        self, columns: Sequence[str], parts: Sequence[int] | None = None
    ) -> Iterator[pa.Table]:
        """The current rows of each part, by the rules of the label store.

        Args:
            columns: which ones; one that a part lacks is null there.
            parts: the numbers of those to read; all by default.

        Raises:
            OutputError: a part is damaged.
            RunError: the storage failed.
        """
        chosen = range(len(self.parts)) if parts is None else parts
        masks = [self._kept[number] for number in chosen]
        for rows, mask in zip(self.all_rows(columns, chosen), masks, strict=True):
            yield rows if mask.all() else rows.filter(pa.array(mask))

    def all_rows(
        self, columns: Sequence[str], parts: Sequence[int] | None = None
    ) -> Iterator[pa.Table]:
        """The rows of each part, also those that are not current, as `current_rows` has them."""
        chosen = range(len(self.parts)) if parts is None else parts

        def read(number: int) -> pa.Table:
            return self.parts[number].read_known(self.schema, list(columns))

        with ThreadPoolExecutor(_READERS) as pool:
            for start in range(0, len(chosen), _READERS):
                yield from pool.map(read, chosen[start : start + _READERS])

    @cached_property
    def _kept(self) -> list[np.ndarray]:
        """Whether each row is current, by part."""
        if not self.parts:
            return []
        current = AllRows.from_tables(self.all_rows(RULE_COLUMNS)).current
        return np.split(current, np.cumsum([part.num_rows for part in self.parts])[:-1])


def open_labels(uri: str, flag: str = "--labels") -> Labels:
    """Looks at an output of jobs.label.

    Args:
        uri: of its folder.
        flag: that named it, for messages.

    Raises:
        UsageError: there are no labels.
        RunError: the storage cannot be reached.
    """
    folder = Folder(uri)
    parts = tuple(find_parts(folder, flag))
    if not parts:
        raise CorpusError(f"{flag} {uri}: not an output of jobs.label (it has no Parquet files)")
    fields = {field.name: field for field in output_schema([], pa.schema([]))}
    classes: dict[str, None] = {}
    for part in parts:
        if missing := [name for name in _REQUIRED if name not in part.schema.names]:
            columns = ", ".join(missing)
            reason = f"{part.name} has no columns {columns}"
            raise CorpusError(f"{flag} {uri}: not an output of jobs.label ({reason})")
        classes |= dict.fromkeys(classes_of(part.schema))
        for field in part.schema:
            if field.name not in fields or pa.types.is_null(fields[field.name].type):
                fields[field.name] = field
    schema = pa.schema([pa.field(name, _plain(field.type)) for name, field in fields.items()])
    return Labels(folder, parts, schema, tuple(classes))


def report_folder(uri: str, labels: Sequence[str] = ()) -> Folder:
    """The folder that ``--output`` of a job that reads labels names; nothing is written yet.

    Args:
        uri: of the folder.
        labels: URIs of the outputs that it reads.

    Raises:
        UsageError: it cannot be used, or whoever reads a folder of labels would read it, too.
        RunError: its storage cannot be reached.
    """
    folder = output_folder(uri)
    within = (f"{folder.uri}/".startswith(f"{absolute(each).rstrip('/')}/") for each in labels)
    if any(within) or any(map(is_part, folder.names())):
        raise OutputError(f"--output {uri}: lies in a folder of labels; choose another one")
    return folder


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind
