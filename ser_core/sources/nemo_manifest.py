"""Tells NeMo's tarred manifests from tables of paths."""

import json

from ser_core.sources.tables import table_format
from ser_core.sources.text_files import is_of_content, lines_of, open_text

SHARD, PATH = "shard_id", "audio_filepath"  # columns


def names_shards(uri: str) -> bool:
    """Whether a URI is JSON lines whose first row has a path and a shard.

    Raises:
        Exception: the storage cannot tell; of whatever type the file system raises.
    """
    if table_format(uri) not in ("json", "jsonl", "ndjson"):
        return False
    try:
        with open_text(uri) as text:
            first = json.loads(next(lines_of(text), ""))
    except (FileNotFoundError, IsADirectoryError):
        return False
    except Exception as error:
        if is_of_content(error):  # the form of tables says what is wrong with it
            return False
        raise
    return isinstance(first, dict) and {SHARD, PATH} <= first.keys()
