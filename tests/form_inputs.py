"""Makes an input of every form that docs/input.md names, from the same files."""

import csv
import gzip
import io
import json
import re
import shlex
import shutil
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import datasets
import lhotse
import webdataset

DOCUMENT = Path(__file__).parents[1] / "docs" / "input.md"
Files = Sequence[Path]
SHARDS = 3


def arguments(form: str) -> list[str]:
    """What the table of docs/input.md has behind ``ser-batch label`` for a form.

    The bucket of the table is the current folder.
    """
    (row,) = [row for row in documented_forms() if row.startswith(f"| {form}")]
    command = re.search("`([^`]*)`", row.split(" | ")[1]).group(1)
    return shlex.split(command.replace("s3://bucket/", ""))


def documented_forms() -> list[str]:
    """The rows of the table."""
    return re.findall(r"^\| .*`--input .*$", DOCUMENT.read_text(), re.MULTILINE)


def folder(root: Path, files: Files) -> None:
    for file in files:
        _copy(file, root / "calls" / file.name)


def recordings(root: Path, files: Files) -> None:
    for file, name in zip(files, ("monday.wav", "tuesday.wav"), strict=False):
        _copy(file, root / name)


def pattern(root: Path, files: Files) -> None:
    for file in files:
        _copy(file, root / "2026-11-01" / "x" / f"{file.name}.flac")


def ranges(root: Path, files: Files) -> None:
    for number in range(1000):
        _webdataset(root / f"shard-{number:03}.tar", files[number::1000])


def path_list(root: Path, files: Files) -> None:
    folder(root, files)
    lines = [f"calls/{file.name}\r\n" for file in files]
    (root / "calls.txt").write_text("".join(lines), newline="")


def table(root: Path, files: Files) -> None:
    with gzip.open(root / "calls.csv.gz", "wt", newline="") as file:
        rows = csv.writer(file, delimiter=";")
        rows.writerows([["speaker", "wav"], *(["007", path] for path in files)])


def nemo(root: Path, files: Files) -> None:
    _lines(root / "train_manifest.json", [{"audio_filepath": str(f)} for f in files])


def cuts(root: Path, files: Files) -> None:
    made = []
    for number, file in enumerate(files):
        # Lhotse reads the header, which not every file has.
        source = lhotse.audio.AudioSource("file", [0], str(file))
        length = lhotse.Recording(f"{number:04}", [source], 16_000, 16_000 * 60, 60.0)
        made.append(lhotse.MonoCut(f"cut-{number:04}", 0.0, 60.0, 0, recording=length))
    lhotse.CutSet.from_cuts(made).to_file(root / "cuts.jsonl.gz")


def kaldi(root: Path, files: Files) -> None:
    (root / "data" / "train").mkdir(parents=True)
    lines = sorted(f"{file.name.replace('.', '-')} {file}\n" for file in files)
    (root / "data" / "train" / "wav.scp").write_text("".join(lines))


def shards(root: Path, files: Files, suffix: str = "tar") -> None:
    for number in range(SHARDS):
        _webdataset(root / f"shard-{number}.{suffix}", files[number::SHARDS])


def compressed_shards(root: Path, files: Files) -> None:
    shards(root, files, "tar.gz")


def parquet(root: Path, files: Files) -> None:
    (root / "data").mkdir()
    audio = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    features = datasets.Features({"audio": datasets.Audio(decode=False)})
    rows = datasets.Dataset.from_dict({"audio": audio}).cast(features)
    rows.to_parquet(root / "data" / "train.parquet", batch_size=2)


def nemo_tar(root: Path, files: Files) -> None:
    rows = []
    for shard in range(SHARDS):
        with tarfile.open(root / f"audio_{shard}.tar", "w") as tar:
            for file in files[shard::SHARDS]:
                member = tarfile.TarInfo(file.name)
                member.size = file.stat().st_size
                tar.addfile(member, io.BytesIO(file.read_bytes()))
                rows.append({"audio_filepath": file.name, "shard_id": shard})
    _lines(root / "tarred_audio_manifest.json", rows)


FORMS: dict[str, Callable[[Path, Files], None]] = {
    "a folder": folder,
    "recordings": recordings,
    "a pattern": pattern,
    "ranges": ranges,
    "a list of paths": path_list,
    "a manifest": table,
    "NeMo's manifest": nemo,
    "lhotse's": cuts,
    "a Kaldi": kaldi,
    "tar shards": shards,
    "Parquet": parquet,
    "NeMo's tarred": nemo_tar,
}


def _copy(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, target)


def _webdataset(path: Path, files: Files) -> None:
    with webdataset.TarWriter(str(path)) as shard:
        for file in files:
            content, extension = file.read_bytes(), file.suffix[1:]
            shard.write({"__key__": file.stem, extension: content, "json": {"speaker": "007"}})


def _lines(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("\n".join(map(json.dumps, rows)))
