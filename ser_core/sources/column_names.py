"""Names for a corpus's own columns that the output does not use itself."""

import functools

import pyarrow as pa

from ser_core.schema import reserved_columns

OTHER = "other"  # what has no column of its own, as JSON


@functools.lru_cache(maxsize=1000)
def own_name(name: str, origin: str) -> str:
    """The name of a corpus's column in the output.

    Inside a packed file, nobody can easily rename what clashes.

    Args:
        name: as the corpus has it.
        origin: what stands before a name that the output uses itself, or might.

    >>> own_name("speaker", "json"), own_name("duration", "json"), own_name("score_sad", "json")
    ('speaker', 'json.duration', 'json.score_sad')
    """
    ours = not name or name in (OTHER, "score") or name.startswith(("score_", "_"))
    if ours or reserved_columns([], pa.schema([(name, pa.null())])):
        return f"{origin}.{name}"
    return name
