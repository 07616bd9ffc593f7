"""Fetching a checkpoint's files from the Hugging Face hub, a local folder or an fsspec URI."""

import fnmatch
import os
import re
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

from ser_core.errors import CheckpointError
from ser_core.storage.filesystem import resolve

CONFIG_FILES = ("config.json", "preprocessor_config.json")
# Patterns in order of preference: the first one that matches any file is used.
WEIGHT_FILES = ("model*.safetensors", "pytorch_model*.bin")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


@contextmanager
def fetch(source: str, revision: str | None) -> Iterator[Path]:
    """Yields a local folder with the checkpoint's files; downloads them first if necessary.

    Args:
        source: a local folder, an fsspec URI or an id on the hub.
        revision: a branch, tag or commit on the hub; ignored for other sources.

    Raises:
        CheckpointError: the source does not exist or cannot be downloaded.
    """
    local = Path(source.removeprefix("file://")).expanduser()
    if local.is_dir():
        yield local
    elif "://" in source and not source.startswith("file://"):
        with tempfile.TemporaryDirectory() as folder:
            _download(source, folder)
            yield Path(folder)
    elif local.is_absolute() or source.startswith((".", "~")) or not _HUB_ID.fullmatch(source):
        raise CheckpointError(f"--model {source}: no such folder")
    else:
        yield _download_from_hub(source, revision)


def commit_of(folder: Path) -> str | None:
    """The commit of a snapshot in the hub's cache, whose folder is named after it; else None."""
    return folder.name if folder.parent.name == "snapshots" else None


def _download(source: str, folder: str) -> None:
    fs, root = resolve(source)
    try:
        names = [path.rsplit("/", 1)[-1] for path in fs.ls(root, detail=False)]
        pattern = next((each for each in WEIGHT_FILES if fnmatch.filter(names, each)), "")
        for name in [*set(CONFIG_FILES) & set(names), *fnmatch.filter(names, pattern)]:
            fs.get_file(f"{root}/{name}", os.path.join(folder, name))
    except FileNotFoundError:
        raise CheckpointError(f"--model {source}: no such folder") from None
    except Exception as error:  # remote file systems have no common base exception
        raise CheckpointError(f"--model {source}: cannot be downloaded ({error!r})") from None


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
        raise CheckpointError(f"--revision {revision}: {repo} has no such revision") from None
    except (RepositoryNotFoundError, HFValidationError):
        problem = "no such folder here, and no such model on the hub (a private one needs HF_TOKEN)"
        raise CheckpointError(f"--model {repo}: {problem}") from None
    except LocalEntryNotFoundError:
        problem = (
            "the hub cannot be reached and its cache does not hold the model; pass a folder or URI"
        )
        raise CheckpointError(f"--model {repo}: {problem}") from None
    except (HfHubHTTPError, OSError) as error:
        problem = f"cannot be downloaded from the hub ({str(error).strip().splitlines()[0]})"
        raise CheckpointError(f"--model {repo}: {problem}") from None
