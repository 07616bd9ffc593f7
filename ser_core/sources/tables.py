"""A table file → Arrow tables: CSV, TSV, JSON and Parquet; it does not know what the columns mean.

Tables are read in pages, so that memory does not grow with the file.
"""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from ser_core.sources.interface import PAGE_ROWS
from ser_core.sources.json_tables import as_array, common_type, json_schema, json_tables
from ser_core.sources.text_files import (
    COMPRESSIONS,
    LONGEST,
    is_of_content,
    lines_of,
    open_text,
    pages_of,
)
from ser_core.storage.reading import open_table

FORMATS = ("csv", "tsv", "json", "jsonl", "ndjson", "parquet")
TABLE_EXTENSIONS = (
    *FORMATS,
    *(f"{name}.{c}" for name in FORMATS if name != "parquet" for c in COMPRESSIONS),
)
_DELIMITERS = ",;\t|"


def table_format(uri: str) -> str | None:
    """The format of a table by the extension of its name, or None.

    >>> [table_format(name) for name in ("a.CSV", "a.jsonl.gz", "a.parquet.gz", "a.wav", "csv")]
    ['csv', 'jsonl', None, None, None]
    """
    name = uri.rpartition("/")[2].lower()
    found = (extension for extension in TABLE_EXTENSIONS if name.endswith(f".{extension}"))
    extension = next(found, None)
    return None if extension is None else extension.partition(".")[0]


def parquet_schema(uri: str) -> pa.Schema | None:
    """The schema in a Parquet file's footer; None if there is no such file or it is not Parquet.

    Raises:
        Exception: what the file system raises otherwise, of whatever type.
    """
    try:
        with open_table(uri) as handle:
            return pq.read_schema(handle)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, pa.ArrowException):
        return None
    except OSError as error:
        if is_of_content(error):
            return None
        raise


@dataclass(frozen=True)
class TableFile:
    """A file with the extension of a table.

    Attributes:
        uri: absolute.
    """

    uri: str

    def schema(self) -> pa.Schema:
        """Its columns; JSON is read to its end for their types.

        Raises:
            pa.ArrowException, UnicodeDecodeError, or OSError as in `is_of_content`: it is no table.
            Exception: what the file system raises, of whatever type.
        """
        schema = self._schema()
        if twice := [name for name in schema.names if schema.names.count(name) > 1]:
            raise pa.ArrowInvalid(f"more than one column `{twice[0]}`")
        return schema

    def _schema(self) -> pa.Schema:
        kind = table_format(self.uri)
        if kind == "parquet":
            with open_table(self.uri) as handle:
                return pq.read_schema(handle).remove_metadata()
        with open_text(self.uri) as text:
            if kind not in ("csv", "tsv"):
                return json_schema(text)
            # All columns stay text: no guess turns a speaker called 007 into 7.
            return pa.schema([(name, pa.string()) for name in next(_csv_rows(self.uri, text), [])])

    def read(self, schema: pa.Schema) -> Iterator[pa.Table]:
        """Columns of it, at most `PAGE_ROWS` rows at a time.

        Args:
            schema: some of its columns; those of JSON are read as these types.

        Raises:
            As `schema` does.
        """
        kind = table_format(self.uri)
        if kind == "parquet":
            yield from _read_parquet(self.uri, schema.names)
            return
        with open_text(self.uri) as text:
            if kind in ("csv", "tsv"):
                yield from _csv_tables(_csv_rows(self.uri, text), schema.names)
            else:
                yield from json_tables(text, schema)


def union_schema(schemas: Iterable[pa.Schema]) -> pa.Schema:
    """The columns of several tables together, with types that hold the values of all."""
    types: dict[str, pa.DataType] = {}
    for field in (field for schema in schemas for field in schema):
        types[field.name] = common_type(types.get(field.name, field.type), field.type)
    return pa.schema(list(types.items()))


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table with the columns of a schema: null where it has none, text where types differ.

    Raises:
        pa.ArrowException: a value is not of its type.
    """
    if table.schema.equals(schema) or not len(schema):
        return table.select(schema.names)
    columns = [_conform(table, field) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _conform(table: pa.Table, field: pa.Field) -> pa.Array | pa.ChunkedArray:
    if field.name not in table.column_names:
        return pa.nulls(len(table), field.type)
    column = table[field.name]
    try:
        return column.cast(field.type)
    except pa.ArrowNotImplementedError:  # a struct as text
        return as_array(column.to_pylist(), field)


def _read_parquet(uri: str, names: Sequence[str]) -> Iterator[pa.Table]:
    with open_table(uri) as handle:
        file = pq.ParquetFile(handle)
        for batch in file.iter_batches(PAGE_ROWS, columns=list(names)):
            if batch.num_rows:
                yield pa.Table.from_batches([batch]).select(names).replace_schema_metadata()


# ---- CSV -----------------------------------------------------------------------------------------


def _csv_tables(rows: Iterator[list[str]], names: Sequence[str]) -> Iterator[pa.Table]:
    header = next(rows, [])
    places = [header.index(name) for name in names]
    for page in pages_of((sum(map(len, row)), row) for row in rows):
        columns = [pa.array([row[place] for row in page], pa.string()) for place in places]
        yield pa.table(columns, names=names)


def _csv_rows(uri: str, text: TextIO) -> Iterator[list[str]]:
    """The header and the rows, all of the same length.

    Raises:
        pa.ArrowInvalid: a row is not; says in which line.
    """
    lines = lines_of(text)
    empty = 0
    while (first := next(lines, None)) is not None and not first.strip():
        empty += 1
    if first is None:
        return
    csv.field_size_limit(LONGEST)  # by itself, less than a transcript of two hours
    delimiter = _delimiter(first, table_format(uri))
    quoting = _tab_quoting(uri) if delimiter == "\t" else csv.QUOTE_MINIMAL
    reader = csv.reader(chain([first], lines), delimiter=delimiter, quoting=quoting, strict=True)
    width = None
    try:
        for row in reader:
            width = width or len(row)
            if row and len(row) != width:
                reason = f"{len(row)} fields instead of {width}"
                raise pa.ArrowInvalid(f"line {empty + reader.line_num}: {reason}")
            if row:
                yield row
    except csv.Error as error:
        raise pa.ArrowInvalid(f"line {empty + reader.line_num}: {error}") from None


def _delimiter(header: str, kind: str | None) -> str:
    """The delimiter that a header has most of, outside quotes; tabs first in a ``.tsv``.

    >>> _delimiter('path;"a, b, c";speaker', "csv")
    ';'
    """
    bare = re.sub(r'"[^"]*"?', "", header)
    if kind == "tsv" and "\t" in bare:
        return "\t"
    return max(_DELIMITERS, key=bare.count)


def _tab_quoting(uri: str) -> Literal[0, 3]:
    """Whether quotes in a table with tabs enclose fields, as spreadsheets write them.

    Others write tabs without any quoting (so does Common Voice): there, quotes are text, and one
    that is never closed must not swallow the rows below it.
    """
    width = None
    try:
        with open_text(uri) as text:
            for row in csv.reader(lines_of(text), delimiter="\t", strict=True):
                width = width or len(row)
                if row and len(row) != width:
                    return csv.QUOTE_NONE
    except csv.Error:
        return csv.QUOTE_NONE
    return csv.QUOTE_MINIMAL
