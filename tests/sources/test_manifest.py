"""A manifest as input: its paths and columns, or a one-line message if it cannot be used."""

import os

import pandas as pd
import pytest
from recordings import write_manifest


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_manifest(folder, suffix, listed):
    frame = pd.DataFrame(
        {
            "speaker": ["007", "8", "九", "x"],
            "path": ["a.wav", str(folder / "deep/er/b.FLAC"), "名 字+#%.mp3", "gone.wav"],
            "take": [1, 2, 3, 4],
        }
    )
    table = listed(write_manifest(frame, folder / f"calls{suffix}"))
    assert list(table["path"]) == list(frame["path"])  # as in the manifest
    absolute = [str(folder / name) for name in (*frame["path"][:3], "gone.wav")]
    assert list(table["uri"]) == absolute
    assert list(table["speaker"]) == list(frame["speaker"])
    assert list(table["take"]) == ([*"1234"] if suffix == ".csv" else [1, 2, 3, 4])
    assert list(table["size"][:3]) == [5, 5, 5]  # relative to the manifest
    assert pd.isna(table["size"][3])


def test_all_spellings_of_a_path_have_one_identity(folder, listed):
    names = ["a.wav", "./a.wav", "deep/../a.wav", str(folder / "a.wav"), f"file://{folder}/a.wav"]
    (by_folder,) = [row for row in listed(folder).itertuples() if row.path.endswith("a.wav")]
    for name in names:
        (row,) = listed(
            write_manifest(pd.DataFrame({"path": [name]}), folder / "m.csv")
        ).itertuples()
        assert (row.path, row.uri, row.file_id) == (name, by_folder.uri, by_folder.file_id)


def test_equal_relative_paths_in_two_folders_are_two_recordings(tmp_path, listed):
    uris = []
    for day in ("monday", "tuesday"):
        (tmp_path / day).mkdir()
        (tmp_path / day / "1.wav").write_bytes(b"same")
        os.utime(tmp_path / day / "1.wav", ns=(1, 1))
        manifest = write_manifest(pd.DataFrame({"path": ["1.wav"]}), tmp_path / day / "m.csv")
        uris += [(row.path, row.uri, row.file_id) for row in listed(manifest).itertuples()]
    assert uris[0][0] == uris[1][0] == "1.wav"
    assert uris[0][1] != uris[1][1]
    assert uris[0][2] != uris[1][2]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_invalid_manifests_are_refused(tmp_path, suffix, refusal):
    path = tmp_path / f"m{suffix}"
    assert "no column `path` (file)" in refusal(
        write_manifest(pd.DataFrame({"file": ["a.wav"]}), path)
    )
    twice = pd.DataFrame({"path": ["a.wav", "b.wav", "a.wav"]})
    assert refusal(write_manifest(twice, path)).endswith("has a recording twice: a.wav")
    twice = pd.DataFrame({"path": ["a.wav", "b.wav", "x/../a.wav"]})
    assert refusal(write_manifest(twice, path)).endswith("twice: a.wav and x/../a.wav")
    null = pd.DataFrame({"path": ["a.wav", None], "x": ["1", "2"]})
    if suffix != ".csv":  # which has no nulls, only empty text
        assert "a row has no path" in refusal(write_manifest(null, path))
    path.write_bytes(b"\xff\xfe\x00 not a table \x00" * 9)
    assert refusal(path)
    path.write_bytes(b"")
    assert refusal(path)


def test_a_manifest_with_two_path_columns_is_refused(tmp_path, refusal):
    (tmp_path / "m.csv").write_text("path,path\na.wav,b.wav\n")
    assert "more than one column `path`" in refusal(tmp_path / "m.csv")
