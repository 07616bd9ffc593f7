"""The files of a training run: whole or absent, and never those of another run."""

import pandas as pd
import pyarrow
import pytest

from ser_core.errors import OutputError, RunError
from ser_core.training.run_folder import TrainingOutput

SPLIT = pd.DataFrame({"path": ["a.wav"], "truth": ["sad"], "split": ["train"]})


@pytest.fixture
def output(tmp_path):
    return TrainingOutput(str(tmp_path / "run"))


def test_another_run_is_refused_by_what_differs(output):
    output.begin({"seed": 1, "batch_size": 4}, SPLIT)
    output.begin({"seed": 1, "batch_size": 4}, SPLIT)
    with pytest.raises(OutputError, match="a run with a different seed; choose another folder"):
        output.begin({"seed": 2, "batch_size": 4}, SPLIT)
    with pytest.raises(OutputError, match="different split"):
        output.begin({"seed": 1, "batch_size": 4}, SPLIT.assign(split="test"))


def test_a_run_of_release_0_1_is_refused(output, tmp_path):
    output.begin({"seed": 1}, SPLIT)
    (tmp_path / "run" / "state.pt").touch()
    with pytest.raises(OutputError, match=r"--output .*/run: trained by release 0\.1, which"):
        output.begin({"seed": 1}, SPLIT)
    (tmp_path / "run" / "checkpoints").mkdir()  # a later release has trained here
    output.begin({"seed": 1}, SPLIT)


def test_storage_that_fails_is_a_one_line_error(output, monkeypatch):
    def refuse(_):
        raise TimeoutError("no answer")

    monkeypatch.setattr(output.folder, "read", refuse)
    with pytest.raises(RunError, match=r"^--output .*: run.json could not be read \(no answer\)$"):
        output.begin({"seed": 1}, SPLIT)
    with pytest.raises(RunError, match=r"history.csv could not be read \(no answer\)$"):
        output.history()


def test_history_is_read_as_written(output):
    assert output.history() == []
    rows = [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}]
    output.write_history(rows)
    assert output.history() == rows


def test_an_interrupted_write_leaves_the_earlier_file(output, tmp_path):
    output.folder.write("snapshot.json", b"before")
    filesystem, path = output.storage()
    target = f"{path}/snapshot.json"
    unfinished = filesystem.open_output_stream(target)
    unfinished.write(b"x" * 100_000)  # more than any buffer
    assert (tmp_path / "run" / "snapshot.json").read_bytes() == b"before"
    unfinished.close()
    assert (tmp_path / "run" / "snapshot.json").read_bytes() == b"x" * 100_000


def test_a_folder_is_copied_and_deleted_through_the_storage(output, tmp_path):
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "weights").write_bytes(b"weights")
    filesystem, path = output.storage()
    filesystem.create_dir(f"{path}/epoch-1")
    pyarrow.fs.copy_files(
        str(tmp_path / "local"), f"{path}/epoch-1", destination_filesystem=filesystem
    )
    copied = tmp_path / "run" / "epoch-1"
    assert [file.name for file in copied.iterdir()] == ["weights"]
    assert (copied / "weights").read_bytes() == b"weights"
    filesystem.delete_dir(f"{path}/epoch-1")
    assert not copied.exists()
