"""Fetching a checkpoint's files from the Hugging Face hub, a local folder or an fsspec URI."""

import difflib
import errno
import fnmatch
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ser_core.errors import CheckpointError, RunError, SerError, one_line
from ser_core.storage.filesystem import is_transient, resolve, retry_transient
from ser_core.storage.folder import unreachable
from ser_core.storage.reading import open_table

CONFIG_FILES = ("config.json", "preprocessor_config.json")
# Patterns in order of preference: the first one that matches any file is used.
WEIGHT_FILES = ("model*.safetensors", "pytorch_model*.bin")
_BUSY = frozenset({408, 429, *range(500, 600)})  # HTTP
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


@contextmanager
def fetch(source: str, revision: str | None) -> Iterator[Path]:
    """Yields a local folder with the checkpoint's files; downloads them first if necessary.

    Args:
        source: a local folder, an fsspec URI or an id on the hub.
        revision: a branch, tag or commit on the hub; ignored for other sources.

    Raises:
        CheckpointError: the source does not exist or must not be read.
        RunError: its storage or the hub cannot be reached.
    """
    local = Path(os.path.expanduser(source.removeprefix("file://")))
    if os.path.isdir(local):  # unlike local.is_dir(), false where it is not readable
        yield local
    elif "://" in source and not source.startswith("file://"):
        with tempfile.TemporaryDirectory() as folder:
            _download(source, folder)
            yield Path(folder)
    elif local.is_absolute() or source.startswith((".", "~")) or not _HUB_ID.fullmatch(source):
        raise CheckpointError(f"{source}: no such folder{_suggestion(source)}")
    else:
        yield _download_from_hub(source, revision)


def commit_of(folder: Path) -> str | None:
    """The commit of a snapshot in the hub's cache, whose folder is named after it; else None."""
    return folder.name if folder.parent.name == "snapshots" else None


def _download(source: str, folder: str) -> None:
    try:
        fs, root = resolve(source)
        paths: list[str] = retry_transient(fs.ls)(root, detail=False)
        names = [path.rsplit("/", 1)[-1] for path in paths]
        pattern = next((each for each in WEIGHT_FILES if fnmatch.filter(names, each)), "")
        for name in [*set(CONFIG_FILES) & set(names), *fnmatch.filter(names, pattern)]:
            target = os.path.join(folder, name)
            with open_table(f"{source.rstrip('/')}/{name}") as remote, open(target, "wb") as local:
                shutil.copyfileobj(remote, local)
    except SerError:
        raise
    except FileNotFoundError:
        raise CheckpointError(f"{source}: no such folder") from None
    except Exception as error:  # remote file systems have no common base exception
        if is_transient(error):
            raise unreachable(f"{source}", error) from None
        raise CheckpointError(f"{source}: cannot be read ({one_line(error)})") from None


def _download_from_hub(repo: str, revision: str | None) -> Path:
    """Returns the snapshot in the hub's cache, updated first if the hub can be reached."""
    try:
        for pattern in WEIGHT_FILES:
            folder = Path(
                huggingface_hub.snapshot_download(
                    repo, revision=revision, allow_patterns=[*CONFIG_FILES, pattern]
                )
            )
            if list(folder.glob(pattern)):
                break
        return folder
    except RevisionNotFoundError:
        raise CheckpointError(f"{repo}: there is no revision {revision}") from None
    except (RepositoryNotFoundError, HFValidationError):
        problem = "and no such model on the hub (a private one needs HF_TOKEN)"
    except Exception as error:  # of the hub, of its HTTP library, or of the disk
        if not _is_network_fault(error):
            kind = RunError if _is_full_disk(error) else CheckpointError
            problem = f"cannot be downloaded from the hub ({one_line(error)})"
            raise kind(f"{repo}: {problem}") from None
        if not _looks_local(repo):
            reason = one_line(error.__cause__ or error)
            problem = f"the hub cannot be reached ({reason}) and its cache does not hold the model"
            raise RunError(f"{repo}: {problem}; or pass a folder or URI") from None
        problem = "nor a model in the cache of the hub, which cannot be reached"
    raise CheckpointError(f"{repo}: no such folder here{_suggestion(repo)}, {problem}")


def _is_network_fault(error: Exception) -> bool:
    if isinstance(error, HfHubHTTPError):
        return error.response is None or error.response.status_code in _BUSY
    if _is_full_disk(error):
        return False
    return is_transient(error) or isinstance(error, LocalEntryNotFoundError)


def _is_full_disk(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in _FULL


def _looks_local(source: str) -> bool:
    """Whether a hub id is rather a mistyped path: its parent is here, or a folder like it."""
    parent = os.path.dirname(source)
    return bool(parent and os.path.isdir(parent)) or _closest_folder(source) is not None


def _suggestion(source: str) -> str:
    closest = _closest_folder(os.path.expanduser(source.removeprefix("file://")))
    return f" (did you mean {closest}?)" if closest else ""


def _closest_folder(path: str) -> str | None:
    """The folder whose name is closest to a path's, if one is close."""
    parent, name = os.path.split(path.rstrip("/"))
    if parent and not os.path.isdir(parent):
        parent = _closest_folder(parent) or ""
        if not parent:
            return None
    try:
        with os.scandir(parent or ".") as items:
            folders = [item.name for item in items if item.is_dir()]
    except OSError:
        return None
    close = difflib.get_close_matches(name, folders, n=1)
    return os.path.join(parent, close[0]) if close else None
