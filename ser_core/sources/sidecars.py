"""The ``.json``, ``.txt`` and ``.cls`` beside a recording in a shard → columns of a manifest.

Every value is text: strings unchanged, other values as JSON. No guess turns a speaker
called 007 into 7, and a key may be a number in one shard and a word in another.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from ser_core.sources.column_names import OTHER, own_name
from ser_core.storage.filesystem import printable

EXTENSIONS = ("json", "txt", "cls")
MAX_BYTES = 1 << 20  # what is larger is no label; its column says so
_MAX_COLUMNS = 100

Values = dict[str, str | None]  # by the name of a column


def values_of(sidecars: Mapping[str, bytes | int]) -> Values:
    """What the sidecars of one recording say.

    Args:
        sidecars: by extension, the content, or the bytes of what is too large to read.

    Returns:
        A value for each key of a JSON object, for ``txt`` and ``cls``, and for ``json`` where that
        is no object, or no JSON.

    >>> values_of({"json": b'{"speaker": "007", "age": 41, "label": "sad"}', "txt": b"hello"})
    {'speaker': '007', 'age': '41', 'json.label': 'sad', 'txt': 'hello'}
    """
    values: Values = {}
    for extension, content in sidecars.items():
        if isinstance(content, int):
            values[extension] = f"not read: {content:,} bytes"
        elif extension == "json":
            values |= _json_values(content)
        else:
            values[extension] = _decoded(content)
    return values


def schema_of(samples: Iterable[Values]) -> pa.Schema:
    """The columns for such values: those that the samples have, and one for all others."""
    names = dict.fromkeys(name for values in samples for name in values)
    return pa.schema([(name, pa.string()) for name in [*list(names)[:_MAX_COLUMNS], OTHER]])


def columns_of(rows: Sequence[Values], schema: pa.Schema) -> pa.Table:
    """The values of recordings as columns.

    Args:
        rows: what the sidecars of each say.
        schema: of `schema_of`.
    """
    known = [name for name in schema.names if name != OTHER]
    columns = {name: [values.get(name) for values in rows] for name in known}
    others = [{k: v for k, v in values.items() if k not in columns} for values in rows]
    columns[OTHER] = [json.dumps(other, ensure_ascii=False) if other else None for other in others]
    return pa.table(columns, schema=schema)


def _json_values(content: bytes) -> Values:
    try:
        parsed = json.loads(content)
        if isinstance(parsed, dict):
            return {own_name(printable(key), "json"): _text(parsed[key]) for key in parsed}
        return {"json": _text(parsed)}
    except (ValueError, RecursionError):  # nested too deeply
        return {"json": _decoded(content)}


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _decoded(content: bytes) -> str:
    return content.decode("utf-8-sig", "backslashreplace").rstrip("\r\n")
