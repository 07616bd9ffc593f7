"""Labels that look meaningless are said to, and sound ones are not."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from label_folders import label_rows, random_scores

import ser_core
from ser_core.reporting.plausibility import warnings
from ser_core.reporting.summary import summarize

EXAMPLES = Path(__file__).parents[2] / "examples"
COUNT = 200
PATHS = [f"{i}.wav" for i in range(COUNT)]


@pytest.fixture
def warned(table_of):
    def judge(scores=None, segments="first", **columns):
        scores = random_scores(len(PATHS)) if scores is None else scores
        table = table_of(label_rows(PATHS, scores, **columns))
        return warnings(table, summarize(table) | {"since": None, "runs": [{"segments": segments}]})

    return judge


def test_sound_labels_have_no_warning(warned):
    assert warned() == []


def test_certain_and_correct_labels_have_no_warning(warned):
    scores = np.full((COUNT, 3), 1e-9)
    scores[np.arange(COUNT), np.arange(COUNT) % 3] = 1 - 2e-9
    assert warned(scores) == []


def test_nearly_all_in_one_class(warned):
    scores = random_scores(COUNT)
    scores[:195] = np.sort(scores[:195])[:, ::-1]
    found = warned(scores)
    assert [w for w in found if "of the labels are angry" in w]


def test_scores_near_chance(warned):
    scores = random_scores(COUNT, sharpness=0.03)
    (warning,) = [w for w in warned(scores) if "hardly above guessing" in w]
    assert "0.333" in warning


def test_the_same_score_again_and_again(warned):
    scores = random_scores(COUNT)
    scores[:60] = [0.8, 0.15, 0.05]
    (warning,) = warned(scores)
    assert "30.0 % of the recordings have nearly the same score" in warning
    assert "angry, 0.800" in warning


def test_low_sampling_rates(warned):
    (warning,) = warned(sampling_rate=[8000] * 100 + [16000] * 100)
    assert warning.startswith("50.0 % of the recordings were sampled at 8,000 Hz")


def test_long_recordings_of_which_the_model_got_the_beginning(warned):
    (warning,) = warned(duration=24.0)
    assert warning.startswith("75.0 % of the audio comes after the first 6 s")
    assert warned(duration=24.0, segments="all") == []


@pytest.mark.parametrize("word", ["short", "silent", "quiet", "clipped", "no_speech", "low_score"])
def test_bad_quality(warned, word):
    (warning,) = warned(quality=[f"{word}"] * 60 + [""] * 140)
    assert warning.startswith("30.0 % of the recordings")
    assert warned(quality=[word] * 20 + [""] * 180) == []


def test_many_failed(warned):
    scores = random_scores(COUNT)
    scores[:40] = np.nan
    (warning,) = warned(scores)
    assert warning.startswith("20.0 % of the recordings have no label")


def test_an_empty_folder(table_of):
    table = table_of(label_rows(["a"], random_scores(1))).where("false", "nothing")
    summary = summarize(table) | {"runs": [], "since": None}
    assert warnings(table, summary) == ["The folder has no rows."]
    assert warnings(table, summary | {"since": "today"}) == ["No row was made since today."]


def test_only_the_newest_run_says_what_was_heard(table_of):
    table = table_of(label_rows(PATHS, random_scores(COUNT), duration=24.0))
    runs = [{"segments": "all"}, {"segments": "first"}]
    assert warnings(table, summarize(table) | {"runs": runs, "since": None}) == []


# ---- the demo's checkpoint, which was trained on synthetic speech --------------------------------


@pytest.fixture
def warned_of_recordings(table_of, one_thread):  # noqa: ARG001 (it takes effect by being there)
    """Labels recordings with the demo's checkpoint, and returns the warnings."""

    def judge(paths):
        rows = ser_core.label(paths, str(EXAMPLES / "checkpoint"), precision="fp32")
        table = table_of(pa.Table.from_pandas(rows, preserve_index=False))
        return warnings(table, summarize(table) | {"since": None, "runs": [{"segments": "first"}]})

    return judge


def test_the_demo_has_no_warning(warned_of_recordings):
    paths = pd.read_csv(EXAMPLES / "corpus.csv")["path"]
    assert warned_of_recordings([EXAMPLES / path for path in paths]) == []


def test_single_words_are_all_fear(warned_of_recordings, shared_data):
    found = warned_of_recordings(sorted((shared_data / "mandarin_words").glob("*.mp3")))
    assert any("of the labels are fear" in warning for warning in found)
    assert any("have nearly the same score for the same label" in warning for warning in found)


def test_emodb_is_unlike_what_the_checkpoint_knows(warned_of_recordings, shared_data):
    (warning,) = warned_of_recordings(sorted((shared_data / "emodb").glob("*.wav")))
    assert "have nearly the same score for the same label" in warning
