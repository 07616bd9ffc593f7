"""The recordings to listen to."""

import numpy as np
from label_folders import label_rows

from ser_core.reporting.listening import segment_identity, to_listen

NONE = [np.nan] * 3
SCORES = [[0.9, 0.1, 0], [0.52, 0.48, 0], [0.7, 0.2, 0.1], [0, 0.6, 0.4], NONE, NONE]


def listed(table, most=2, drift=None):
    return {
        group.title: [each["path"] for each in group.recordings]
        for group in to_listen(table, drift, most)
    }


def test_the_least_sure_the_surest_and_the_failed(table_of):
    status = ["ok"] * 4 + ["decode_error", "empty"]
    assert listed(table_of(label_rows(list("abcdef"), SCORES, status=status))) == {
        "Least sure": ["b", "d"],
        "Surest angry": ["a", "c"],
        "Surest happy": ["d"],
        "Failed: decode_error": ["e"],
        "Failed: empty": ["f"],
    }


def test_those_that_changed_come_first(table_of):
    changed = {"path": "a", "uri": "a", "start": None, "end": None, "channel": 1}
    changed |= {"before": "sad", "now": "angry"}
    found = to_listen(
        table_of(label_rows(["a"], [[1, 0, 0]])), {"changed_recordings": [changed]}, 5
    )
    assert found[0].title == "Changed"
    text = "sad, now angry, channel 1 (the clip is the mix of all)"
    assert found[0].recordings == [{"path": "a", "identity": "a", "text": text}]


def test_none_are_wanted(table_of):
    assert listed(table_of(label_rows(list("abcdef"), SCORES)), most=0) == {}


def test_segments_say_when(table_of):
    rows = label_rows(["a", "a"], SCORES[:2], start=[0.0, 6.0], end=[6.0, 9.25])
    least = to_listen(table_of(rows), None, 1)[0].recordings[0]
    assert least["identity"] == "a#t=6,9.25"
    assert least["text"] == "angry 0.520, margin 0.040, 6.0 to 9.2 s"


def test_a_stretch_whose_end_nobody_knows(table_of):
    rows = label_rows(["a#t=50"], SCORES[:1], start=50.0, duration=None)
    (least, _) = to_listen(table_of(rows), None, 1)
    assert least.recordings[0]["identity"] == "a#t=50"
    assert least.recordings[0]["text"] == "angry 0.900, margin 0.800, from 50.0 s"


def test_a_segment_of_a_stretch_lies_within_its_file():
    assert segment_identity("a.wav#t=100,200", 106.0, 112.5) == "a.wav#t=106,112.5"
