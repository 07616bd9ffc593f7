"""Stretches of recordings: NeMo's manifests, and tables with `start` and `end`."""

import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from listed_rows import listed_rows
from recordings import write_manifest

from ser_core.sources.forms import open_source

# https://docs.nvidia.com/nemo-framework/user-guide/latest/nemotoolkit/asr/datasets.html
NEMO = [
    {"audio_filepath": "a.wav", "duration": 3.5, "text": "one", "speaker": 7, "offset": 0},
    {"audio_filepath": "a.wav", "duration": 2, "text": "two", "speaker": 7, "offset": 3.5},
    {"audio_filepath": "deep/er/b.FLAC", "duration": 9.25, "text": "three", "speaker": "x"},
]


@pytest.mark.parametrize("name", ["train_manifest.json", "m.jsonl", "m.json.gz"])
def test_a_manifest_of_nemo(folder, name):
    content = "".join(json.dumps(line) + "\n" for line in NEMO).encode()
    path = folder / name
    path.write_bytes(content)
    if path.suffix == ".gz":
        path.write_bytes(pa.compress(content, "gzip").to_pybytes())
    rows = listed_rows(path)
    assert rows == [
        {"path": "a.wav", "start": 0.0, "duration": 3.5, "text": "one", "speaker": "7"},
        {"path": "a.wav", "start": 3.5, "duration": 2.0, "text": "two", "speaker": "7"},
        # A duration without an offset is that of the recording.
        {
            "path": "deep/er/b.FLAC",
            "start": None,
            "duration": None,
            "text": "three",
            "speaker": "x",
        },
    ]
    assert list(rows[0]) == ["path", "start", "duration", "text", "speaker"]
    identities = [r.identity for page in open_source([str(path)]).pages() for r in page.recordings]
    assert identities == [
        f"{folder}/a.wav#t=0,3.5",
        f"{folder}/a.wav#t=3.5,5.5",
        f"{folder}/deep/er/b.FLAC",
    ]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"offset": 1.5}, (1.5, None)),
        ({"start": 1.5}, (1.5, None)),
        ({"start": 0, "duration": 2}, (0.0, 2.0)),
        ({"start": 1, "end": 3.25}, (1.0, 2.25)),
        ({"offset": 1, "end": 1}, (1.0, 0.0)),
        ({"start": 1, "duration": 2, "end": 3}, (1.0, 2.0)),
        ({"start": "1.5", "duration": "2e0"}, (1.5, 2.0)),
        ({"start": 1, "duration": None, "end": 3}, (1.0, 2.0)),
        ({"start": 1, "duration": None, "end": None}, (1.0, None)),
        ({"start": None, "duration": 4, "end": 3}, (None, None)),
    ],
)
def test_stretches(folder, suffix, columns, expected):
    frame = pd.DataFrame([{"path": "a.wav", **columns, "x": "y"}])
    (row,) = listed_rows(write_manifest(frame, folder / f"m{suffix}"))
    assert row == {
        "path": "a.wav",
        "start": expected[0],
        "duration": expected[1],
        "x": "y",
    }
    assert [type(row["start"]), type(row["duration"])] == [type(value) for value in expected]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("offset", -0.5),
        ("start", "soon"),
        ("start", "nan"),
        ("start", "1,5"),
        ("offset", "inf"),
        ("duration", -1),
        ("duration", "Infinity"),
        ("end", "0:30"),
    ],
)
def test_what_is_no_time_is_refused(folder, suffix, column, value, refusal):
    start = {} if column in ("offset", "start") else {"start": [0, 0, 0]}
    values = [1, 2, value] if isinstance(value, int | float) else ["1", "2", value]
    frame = pd.DataFrame({"path": ["a", "b", "c"], **start, column: values})
    message = refusal(write_manifest(frame, folder / f"m{suffix}"))
    assert f"row 3: `{column}`: {value} is not" in message.replace("'", "")
    assert message.endswith("is not a time in seconds, or negative")


@pytest.mark.parametrize(
    "values",
    [
        pa.array([True, False]),
        pa.array([float("nan"), 1.0]),
        pa.array([[1.0], [2.0]]),
        pa.array([1, 2], pa.timestamp("s")),
    ],
)
def test_a_column_of_another_type_is_refused(folder, values, refusal):
    pq.write_table(pa.table({"path": ["a", "b"], "start": values}), folder / "m.parquet")
    assert "row 1: `start`: " in refusal(folder / "m.parquet")


def test_a_stretch_that_ends_before_it_starts_is_refused(folder, refusal):
    (folder / "m.csv").write_text("path,start,end\na,1,2\nb,2,1\n")
    assert refusal(folder / "m.csv").endswith("row 2 ends before it starts")


def test_two_columns_that_say_where_a_stretch_begins_are_refused(folder, refusal):
    (folder / "m.csv").write_text("path,offset,start\na,1,2\n")
    assert "`offset` and `start` both say where a stretch begins" in refusal(folder / "m.csv")


@pytest.mark.parametrize(
    "lines",
    [
        "a.wav,1,2\nb.wav,1,2\na.wav,1.0,2.0",
        "./a.wav,1,2\na.wav,0.9999999,2.0000001",
    ],
)
def test_a_stretch_that_is_there_twice_is_refused(folder, lines, refusal):
    (folder / "m.csv").write_text(f"path,start,duration\n{lines}\n")
    message = refusal(folder / "m.csv")
    assert "the manifest has a recording twice: " in message
    assert "a.wav#t=1,3" in message


def test_stretches_of_one_recording_are_several(folder):
    lines = ["a.wav,1,2", "a.wav,1,3", "a.wav,2,2", "a.wav,,", "a.wav,1,"]
    (folder / "m.csv").write_text("\n".join(["path,start,duration", *lines]))
    pages = open_source([str(folder / "m.csv")]).pages()
    recordings = [recording for page in pages for recording in page.recordings]
    assert len({recording.file_id for recording in recordings}) == 5
    assert {(recording.size, recording.file) for recording in recordings} == {
        (5, f"{folder}/a.wav")
    }
