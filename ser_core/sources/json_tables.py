"""JSON text → Arrow tables, read in pages: lines or one array of objects, whatever its extension.

A column has one type in all pages. Text stays text, also where it looks like a date. A column whose
values have no type in common is text, too: each value as JSON writes it.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

import pyarrow as pa

from ser_core.sources.lhotse import manifest_row
from ser_core.sources.text_files import LONGEST, lines_of, pages_of
from ser_core.storage.filesystem import printable

_CHUNK = 1 << 20
_BETWEEN = re.compile(r"[\s,]*")

_Values = Iterator[tuple[int, int, Any]]  # number, length in characters, value

_UNTYPED = (pa.ArrowException, ValueError, TypeError, OverflowError)  # what pa.array raises


def json_schema(file: TextIO) -> pa.Schema:
    """The types of all columns, after one look at every value.

    Raises:
        pa.ArrowInvalid: a line or row is not a JSON object; says which one.
    """
    types: dict[str, pa.DataType] = {}
    for page in _pages(file):
        for name in dict.fromkeys(key for row in page for key in row):
            kind = _type_of([row.get(name) for row in page])
            types[name] = common_type(types.get(name, kind), kind)
    return pa.schema(
        [(n, kind if _is_storable(kind) else pa.string()) for n, kind in types.items()]
    )


def json_tables(file: TextIO, schema: pa.Schema) -> Iterator[pa.Table]:
    """The columns of a schema, page by page; null where an object lacks them.

    Raises:
        pa.ArrowInvalid: the content is not what `json_schema` saw.
    """
    for page in _pages(file):
        columns = [as_array((row.get(f.name) for row in page), f) for f in schema]
        yield pa.Table.from_arrays(columns, schema=schema)


# ---- types ---------------------------------------------------------------------------------------


def common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """The type that holds the values of both; text where there is no other.

    >>> common_type(pa.int64(), pa.float64()), common_type(pa.null(), pa.bool_())
    (DataType(double), DataType(bool))
    >>> common_type(pa.int64(), pa.string())
    DataType(string)
    """
    if one == other:
        return one
    schemas = [pa.schema([("_", kind)]) for kind in (one, other)]
    try:
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return pa.string()


def as_array(values: Iterable[Any], field: pa.Field) -> pa.Array:
    """Python objects as a column; as text if that is its type.

    Raises:
        pa.ArrowInvalid: they are not of its type.
    """
    values = list(values)
    try:
        return pa.array(values, field.type)
    except _UNTYPED as error:
        if not pa.types.is_string(field.type):
            raise pa.ArrowInvalid(f"the column `{field.name}`: {error}") from None
    return pa.array([None if value is None else _text(value) for value in values], field.type)


def _type_of(values: list[Any]) -> pa.DataType:
    try:
        kind = pa.array(values).type
    except _UNTYPED:
        return pa.string()
    # pa.array takes True for 1.0.
    mixed = pa.types.is_floating(kind) and any(isinstance(value, bool) for value in values)
    return pa.string() if mixed else kind


def _text(value: Any) -> str:
    if isinstance(value, str):
        return printable(value)
    return printable(json.dumps(value, ensure_ascii=False, default=str))


def _is_storable(kind: pa.DataType) -> bool:
    """Whether Parquet has it: there is no struct without fields, as of ``{}``."""
    if pa.types.is_struct(kind):
        return kind.num_fields > 0 and all(_is_storable(field.type) for field in kind)
    return _is_storable(kind.value_type) if pa.types.is_list(kind) else True


# ---- objects -------------------------------------------------------------------------------------


def _pages(file: TextIO) -> Iterator[list[dict[str, Any]]]:
    """Objects page by page, those of lhotse as rows of a manifest."""
    yield from pages_of(_objects(*_values(file)))


def _objects(unit: str, values: _Values) -> Iterator[tuple[int, dict[str, Any]]]:
    """Objects with their lengths."""
    for number, size, value in values:
        if not isinstance(value, dict):
            raise pa.ArrowInvalid(f"{unit} {number}: not a JSON object")
        try:
            yield size, manifest_row(value)
        except ValueError as error:
            raise pa.ArrowInvalid(f"{unit} {number}: {error}") from None


def _values(file: TextIO) -> tuple[str, _Values]:
    """What the values of a file are counted in, and each with its number and length."""
    number = 1
    while (first := file.read(1)).isspace():
        number += first == "\n"
    if first == "[":
        return "row", _elements(file)
    return "line", _lines(file, first, number)


def _lines(file: TextIO, first: str, number: int) -> _Values:
    for line in lines_of(file):
        text = first + line
        first = ""
        if not text.isspace():
            try:
                yield number, len(text), _DECODER.decode(text)
            except (ValueError, RecursionError) as error:
                raise pa.ArrowInvalid(f"line {number}: {_reason(error)}") from None
        number += 1


def _elements(file: TextIO) -> _Values:
    """The elements of an array that was opened, each parsed as soon as it was read."""
    number, text, start = 1, "", 0
    while True:
        if between := _BETWEEN.match(text, start):
            start = between.end()
        if text.startswith("]", start):
            break
        try:
            value, end = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError) as error:
            more = file.read(_CHUNK) if len(text) - start < LONGEST else ""
            if not more:
                raise pa.ArrowInvalid(f"row {number}: {_reason(error)}") from None
            text, start = text[start:] + more, 0
            continue
        yield number, end - start, value
        number, start = number + 1, end
    if text[start + 1 :].strip() or file.read(_CHUNK).strip():
        raise pa.ArrowInvalid("there is more after the end of the array")


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos + 1}"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"`{twice}` is there twice")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_object)
