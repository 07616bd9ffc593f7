"""The page shows the report's figures beside chance, and plays what can be read."""

import re

import pyarrow.parquet as pq
import pytest
from browser import CHROMIUM, check_page
from recordings import speech_like, write_audio

from ser_core.evaluation.config import EvaluateConfig
from ser_core.evaluation.job import evaluate_labels


@pytest.fixture
def evaluated(tmp_path, label_rows):
    """Evaluates labels of recordings, of which the last is gone, and returns report and page."""

    def evaluate(**settings):
        paths = [
            str(write_audio(tmp_path / f"<{n}>.wav", speech_like(1 + n, seed=n))) for n in range(3)
        ]
        paths.append(str(tmp_path / "gone.wav"))
        scores = [[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.5, 0.4, 0.1], [0.1, 0.3, 0.6]]
        columns = {"truth": ["sad", "happy", "angry", "happy"], "speaker": ["a", "b", "a", "b"]}
        labels, output = tmp_path / "labels.parquet", tmp_path / "out"
        pq.write_table(label_rows(paths, scores, **columns), labels)
        config = EvaluateConfig(labels=str(labels), output=str(output), **settings)
        report = evaluate_labels(config)
        return report, output / "index.html"

    return evaluate


def test_chance_stands_beside_every_figure(evaluated):
    report, path = evaluated()
    html = re.sub(r"<[^>]*>|\s+", " ", path.read_text())
    chance = report.summary["chance"]
    assert f"chance {chance['uar']:.3f}" in html
    assert f"chance {chance['accuracy']:.3f} (always happy)" in html
    assert f"equal scores have {chance['loss']:.3f}" in html
    assert f"a perfect model has {chance['ece']:.3f}" in html


def test_confusion_is_a_table_with_names(evaluated):
    html = evaluated()[1].read_text()
    table = re.search(r'<table class="shaded">.*?</table>', html, re.DOTALL)[0]
    assert re.findall(r'<th scope="row">(\w+)</th>', table) == ["angry", "happy", "sad"]
    assert re.findall(r'<th scope="col" class="count"><span>(\w+)', table) == [
        *("angry", "happy", "sad")
    ]
    counts = re.findall(
        r'<td class="(count|count right)" style="--row-share: ([\d.]+)">(\d)', table
    )
    assert [count for _, _, count in counts] == [*"100", *"011", *"100"]
    assert [share for _, share, _ in counts][3:6] == ["0.000", "0.500", "0.500"]
    assert [at for at, (kind, *_) in enumerate(counts) if kind == "count right"] == [0, 4, 8]


def test_what_can_be_read_has_a_player(evaluated):
    html = evaluated()[1].read_text()
    assert html.count("<audio ") == 1 + 3  # one of the errors, and all that are unsure, but one
    assert html.count("data:audio/mpeg;base64,") == 4
    assert html.count("no clip: not_found") == 2
    wrong, unsure = re.findall(r'<ul class="recordings">.*?</ul>', html, re.DOTALL)
    texts = [re.findall(r'"text">([^<]*)<', part) for part in (wrong, unsure)]
    assert texts[0] == [
        "truth sad, label angry with score 0.800 (sad has 0.100)",
        "truth happy, label sad with score 0.600 (happy has 0.300)",
    ]
    assert texts[1] == [
        "truth angry, label angry with score 0.500",
        texts[0][1],
        "truth happy, label happy with score 0.700",
        texts[0][0],
    ]


def test_without_audio(evaluated):
    html = evaluated(audio=False)[1].read_text()
    assert "<audio" not in html
    assert "gone.wav" in html
    assert "no clip" not in html


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
def test_in_a_browser(evaluated):
    assert check_page(evaluated()[1]) == []
