"""A text file with a path per line."""

import gzip
import os

import fsspec
import pandas as pd
import pytest

from ser_core.errors import CorpusError
from ser_core.sources import text_files
from ser_core.sources.forms import open_source


def test_a_list_of_paths(folder, listed):
    lines = ["a.wav", "", "  ", f"{folder}/deep/er/b.FLAC", "名 字+#%.mp3", "# no comment.wav"]
    for ending, name in (("\n", "calls.txt"), ("\r\n", "calls.LST")):
        content = "\ufeff" + ending.join(lines)
        (folder / name).write_bytes(content.encode())
        table = listed(folder / name)
        assert list(table["path"]) == [lines[0], *lines[3:]]
        assert list(table["uri"][:3]) == [f"{folder}/a.wav", lines[3], f"{folder}/{lines[4]}"]
        assert list(table["size"][:3]) == [5, 5, 5]
        assert pd.isna(table["size"][3])  # it has a row, which says that there is no such file
        assert open_source([str(folder / name)]).columns.names == []


def test_names_that_are_not_utf8_are_found(folder, listed):
    """Like those that ``ls > calls.txt`` writes where names are GBK."""
    name = bytes([0xD6, 0xD0]) + b".wav"
    os.close(os.open(os.fsencode(folder) + b"/" + name, os.O_CREAT))
    (folder / "calls.txt").write_bytes(name + b"\n")
    assert list(listed(folder / "calls.txt")["size"]) == [0]


def test_a_compressed_list(folder, listed):
    (folder / "calls.txt.gz").write_bytes(gzip.compress(b"a.wav\n"))
    assert list(listed(folder / "calls.txt.gz")["size"]) == [5]


def test_a_long_list_is_read_in_pages(folder, monkeypatch):
    monkeypatch.setattr(text_files, "PAGE_ROWS", 2)
    (folder / "calls.txt").write_text("".join(f"{number}.wav\n" for number in range(5)))
    pages = [len(page.recordings) for page in open_source([str(folder / "calls.txt")]).pages()]
    assert pages == [2, 2, 1]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a.wav\n../b.wav\n", "../b.wav, which is outside its folder"),
        (b"s3://bucket/b.wav\n", "which is on other storage"),
        (b"\xff\xfea\0.\0w\0a\0v\0", "contains a NUL character"),
        (b"a" * (17 << 20), "a line has more than 16 million characters"),
        (b"", "has no rows"),
        (b"\n \n", "has no rows"),
    ],
)
def test_lists_that_are_refused(folder, refusal, content, words):
    (folder / "calls.txt").write_bytes(content)
    assert words in refusal(folder / "calls.txt")


def test_a_list_without_a_path_column_takes_no_name_for_it(folder, listed):
    (folder / "calls.txt").write_text("a.wav\n")
    assert list(listed(folder / "calls.txt", path_column="audio_filepath")["path"]) == ["a.wav"]


# ---- lists of files that hold recordings ---------------------------------------------------------


def write_lists(folder):
    for name in ("a", "b"):
        (folder / f"{name}.csv").write_text(f"path\n{name}.wav\n")
    (folder / "tables.txt").write_text("b.csv\n\na.csv\n")
    return folder / "tables.txt"


def test_a_list_of_tables_stands_for_them(tmp_path, listed):
    lists = write_lists(tmp_path)
    assert list(listed(lists)["path"]) == ["b.wav", "a.wav"]
    assert list(listed(tmp_path / "*.txt", tmp_path / "b.csv")["path"]) == ["b.wav", "a.wav"]


@pytest.mark.parametrize("name", ["a.csv", "../a.csv", "memory://elsewhere/a.csv"])
def test_a_list_names_no_tables_outside_unless_that_is_meant(tmp_path, refusal, listed, name):
    fsspec.filesystem("memory").pipe("/elsewhere/a.csv", b"path\na.wav\n")
    (tmp_path / "inside").mkdir()
    write_lists(tmp_path)
    (tmp_path / "inside" / "a.csv").symlink_to(tmp_path / "a.csv")
    lists = tmp_path / "inside" / "lists.txt"
    lists.write_text(name)
    assert "--allow-outside" in refusal(lists)
    assert len(listed(lists, allow_outside=True)) == 1


def test_a_table_that_a_list_names_and_that_is_gone_is_named(tmp_path):
    lists = write_lists(tmp_path)
    (tmp_path / "a.csv").unlink()
    with pytest.raises(CorpusError, match=f"^--input {tmp_path}/a.csv: "):
        open_source([str(lists)])
