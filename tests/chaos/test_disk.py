"""A local output whose disk is full or read-only."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Job, Output, run, until_done

from tests.log_lines import error

_MIB = 1 << 20


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A file system of four MiB."""
    if os.geteuid():
        pytest.skip("only root may mount a small file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    done = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def job(disk, command, make_corpus, tmp_path):
    """A command that writes to the small disk, its output, and its recordings."""
    paths = make_corpus(tmp_path / "corpus", 200)
    built = command(tmp_path / "corpus", disk / "labels", batch_size=1, part_seconds=0.3)
    return built, Output(disk / "labels"), paths


def fill(disk: Path) -> Path:
    """Takes all that is left of a file system."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return filler


def remount(disk: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", str(disk)], check=True)


@pytest.mark.chaos
def test_a_full_disk_is_found_before_anything_is_done(job, disk):
    command, output, paths = job
    filler = fill(disk)
    ended = run(command)
    assert ended.code == 1, ended.stderr
    assert "--output" in error(ended.stderr)
    filler.unlink()
    until_done(command, rounds=1)
    assert set(output.check(paths)["status"]) == {"ok"}


@pytest.mark.chaos
def test_a_full_disk_costs_no_label(job, disk):
    command, output, paths = job
    until_done(command, rounds=1)
    before = output.check(paths)
    filler = fill(disk)
    paths[0].write_bytes(paths[3].read_bytes())
    assert run(command).code == 1
    rows = output.rows()
    assert set(rows["uri"]) == set(before["uri"])
    assert set(rows["status"]) == {"ok"}
    filler.unlink()
    until_done(command, rounds=1)
    assert set(output.check(paths)["status"]) == {"ok"}


@pytest.mark.chaos
def test_a_disk_that_is_full_for_some_seconds(job, disk):
    command, output, paths = job
    with Job(command) as running:
        running.until(output.parts, "the first part")
        filler = fill(disk)
        running.until(lambda: "could not be written" in running.stderr(), "a message")
        filler.unlink()
        ended = running.wait(900)
    assert ended.code == 0, ended.stderr
    assert set(output.check(paths)["status"]) == {"ok"}


@pytest.mark.chaos
@pytest.mark.timeout(1500)
def test_a_disk_that_stays_full(job, disk):
    command, output, paths = job
    with Job(command) as running:
        running.until(output.parts, "the first part")
        filler = fill(disk)
        ended = running.wait(900)
    assert ended.code == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    kept = output.rows()
    assert kept["uri"].is_unique
    filler.unlink()
    until_done(command, rounds=1)
    assert set(output.check(paths)["status"]) == {"ok"}


@pytest.mark.chaos
def test_a_read_only_disk_is_found_before_anything_is_done(job, disk):
    command, output, paths = job
    remount(disk, "ro")
    ended = run(command)
    assert ended.code == 2, ended.stderr
    assert error(ended.stderr)
    remount(disk, "rw")
    until_done(command, rounds=1)
    assert set(output.check(paths)["status"]) == {"ok"}


@pytest.mark.chaos
@pytest.mark.timeout(1500)
def test_a_disk_that_becomes_read_only(job, disk):
    command, output, paths = job
    with Job(command) as running:
        running.until(output.parts, "the first part")
        remount(disk, "ro")
        ended = running.wait(900)
    assert ended.code == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    remount(disk, "rw")
    until_done(command, rounds=1)
    assert set(output.check(paths)["status"]) == {"ok"}
