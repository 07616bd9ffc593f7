"""Manifests that lhotse wrote: recordings and cuts; what is no stretch of one file is refused."""

import json

import lhotse
import numpy as np
import pytest
import soundfile
from listed_rows import listed_rows

from ser_core.errors import CorpusError


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """Recordings with one channel and with two, and supervisions of the first."""
    monkeypatch.chdir(tmp_path)  # lhotse keeps the paths as they are given
    for name, shape in (("mono", 64_000), ("stereo", (64_000, 2))):
        soundfile.write(f"{name}.wav", np.zeros(shape, np.float32), 16_000)
    recordings = [lhotse.Recording.from_file(f"{name}.wav") for name in ("mono", "stereo")]
    alignment = {"word": [lhotse.supervision.AlignmentItem("yes", 0.5, 0.25, 0.9)]}
    supervisions = [
        lhotse.SupervisionSegment(
            id=f"s{n}",
            recording_id="mono",
            start=start,
            duration=1.25,
            text=text,
            speaker="anna",
            custom={"mood": n},
            alignment=alignment,
        )
        for n, (start, text) in enumerate([(0.5, "yes"), (2.0, "no")])
    ]
    return (
        lhotse.RecordingSet.from_recordings(recordings),
        lhotse.SupervisionSet.from_segments(supervisions),
    )


def cuts_of(corpus):
    return lhotse.CutSet.from_manifests(*corpus)


@pytest.mark.parametrize("name", ["recordings.jsonl", "recordings.jsonl.gz", "recordings.json"])
def test_recordings(corpus, tmp_path, name):
    corpus[0].to_file(name)
    assert listed_rows(tmp_path / name) == [
        {"path": "mono.wav", "start": None, "duration": None, "id": "mono"},
        {"path": "stereo.wav", "start": None, "duration": None, "id": "stereo"},
    ]


@pytest.mark.parametrize("name", ["cuts.jsonl", "cuts.jsonl.gz", "cuts.json"])
def test_cuts(corpus, tmp_path, name):
    cuts = list(cuts_of(corpus).trim_to_supervisions()) + list(cuts_of(corpus))
    lhotse.CutSet.from_cuts(cuts).to_file(name)
    rows = listed_rows(tmp_path / name)
    places = [(row["path"], row["start"], row["duration"]) for row in rows]
    assert places == [(f"{cut.recording_id}.wav", cut.start, cut.duration) for cut in cuts]
    columns = [(row["id"], row["recording_id"], row["text"], row["speaker"]) for row in rows]
    assert columns == [
        ("s0", "mono", "yes", "anna"),
        ("s1", "mono", "no", "anna"),
        (cuts[2].id, "mono", None, "anna"),  # two texts of one speaker
        (cuts[3].id, "stereo", None, None),
    ]
    kept = json.loads(rows[0]["supervisions"])  # text: an alignment has no type of Arrow's
    assert kept == [supervision.to_dict() for supervision in cuts[0].supervisions]


def test_paths_are_relative_to_the_manifest_and_stay_there(corpus, tmp_path, monkeypatch):
    corpus[0].to_file("recordings.jsonl")
    monkeypatch.chdir("/")
    assert len(listed_rows(tmp_path / "recordings.jsonl")) == 2
    elsewhere = corpus[0].with_path_prefix("..")
    elsewhere.to_file(tmp_path / "recordings.jsonl")
    with pytest.raises(CorpusError, match=r"names \.\./mono.wav, which is outside its folder"):
        listed_rows(tmp_path / "recordings.jsonl")


def recording(**changes):
    source = lhotse.AudioSource("file", [0], "mono.wav")
    return lhotse.Recording("r", **{"sources": [source], "sampling_rate": 16_000} | changes)


LENGTH = {"num_samples": 64_000, "duration": 4.0}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"sources": [("command", [0], "touch executed |")]},
            "is the output of a command, which is",
        ),
        ({"sources": [("memory", [0], "abc")]}, "is of type memory, which is neither a file nor"),
        (
            {"sources": [("file", [0], "a.wav"), ("file", [1], "b.wav")]},
            "does not consist of one file",
        ),
        ({"transforms": [{"name": "Speed", "kwargs": {"factor": 1.1}}]}, "has transforms, which"),
    ],
)
@pytest.mark.usefixtures("corpus")
def test_a_recording_that_is_not_one_file_is_refused(tmp_path, changes, reason, refusal):
    if "sources" in changes:
        changes["sources"] = [lhotse.AudioSource(*source) for source in changes["sources"]]
    odd = recording(**LENGTH, **changes)
    whole = lhotse.RecordingSet.from_recordings([recording(**LENGTH)])
    (tmp_path / "m.jsonl").write_text(
        "".join(json.dumps(one.to_dict()) + "\n" for one in [*whole, odd])
    )
    message = refusal(tmp_path / "m.jsonl")
    assert f"(line 2: the recording r {reason}" in message
    assert not (tmp_path / "executed").exists()
    cut = lhotse.MonoCut("c", 0, 1, 0, recording=odd).to_dict()
    (tmp_path / "m.jsonl").write_text(json.dumps(cut))
    assert f"(line 1: the recording r {reason}" in refusal(tmp_path / "m.jsonl")


def test_a_cut_that_is_no_stretch_is_refused(corpus, tmp_path, refusal):
    first, second = cuts_of(corpus)
    stereo = corpus[0]["stereo"]
    for cut, reason in [
        (first.pad(duration=6), "is a MixedCut, which is not a stretch of one recording"),
        (first.mix(second), "is a MixedCut, which is not a stretch of one recording"),
        (first.pad(duration=6).tracks[-1].cut, "is a PaddingCut, which is not a stretch"),
        (lhotse.MonoCut("c", 0, 1, 1, recording=stereo), "takes some channels of several"),
        (lhotse.MultiCut("c", 0, 1, [1], recording=stereo), "takes some channels of several"),
        (lhotse.MonoCut("c", 0, 1, 0), "has no recording"),
    ]:
        (tmp_path / "m.jsonl").write_text(json.dumps(cut.to_dict()))
        assert f"(line 1: the cut {cut.id} {reason}" in refusal(tmp_path / "m.jsonl")


@pytest.mark.parametrize(
    "row",
    [
        {"sources": [], "sampling_rate": 1},
        {"sources": ["a.wav"], "sampling_rate": 1},
        {"sources": [{"type": "file"}], "sampling_rate": 1},
        {"sources": [{"type": "file", "source": 7}], "sampling_rate": 1},
        {"type": "MonoCut"},
        {"type": "MonoCut", "recording": {}, "start": 0, "duration": 1},
        {"type": "MonoCut", "recording": {"sources": []}, "start": 0},
        {"recording": {"sources": []}, "start": 0, "duration": 1},
        {"type": "MixedCut", "tracks": 1},
    ],
)
def test_broken_rows_are_refused(tmp_path, row, refusal):
    (tmp_path / "m.jsonl").write_text(json.dumps(row))
    assert "the manifest cannot be read (line 1: the " in refusal(tmp_path / "m.jsonl")


def test_supervisions_of_another_shape_ride_along(tmp_path):
    source = {"type": "file", "channels": [0], "source": "a.wav"}
    cut = {
        "id": "c",
        "type": "MonoCut",
        "start": 0,
        "duration": 1,
        "recording": {"id": "r", "sources": [source]},
    }
    lines = [cut | {"supervisions": value, "start": n} for n, value in enumerate([None, "x", [7]])]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [row["supervisions"] for row in listed_rows(tmp_path / "m.jsonl")] == [None, "x", "[7]"]


def test_other_manifests_may_have_columns_of_these_names(tmp_path):
    row = {"path": "a.wav", "recording": "r", "type": "call", "sources": "x"}
    (tmp_path / "m.jsonl").write_text(json.dumps(row))
    assert listed_rows(tmp_path / "m.jsonl") == [row | {"start": None, "duration": None}]
