"""The check of pages finds what is wrong with one, and nothing where nothing is."""

import numpy as np
import pytest
from browser import CHROMIUM, WIDTHS, check_page

from ser_core.reporting.clips import as_mp3
from ser_core.reporting.html import data_uri, page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")

COLUMNS = (("split", "split", "text"), ("uar", "UAR", "number"), ("test", "test", "number"))
ROWS = [
    {"split": "random", "uar": "0.900 ± 0.010", "test": 1_200},
    {"split": "speaker-sentence", "uar": None, "test": 30},
    {"split": "speaker", "uar": "0.310 ± 0.020", "test": 900},
]
WIDE = "<p style='white-space: nowrap; overflow-wrap: normal'>" + 300 * "wide " + "</p>"


def problems(path, old="", new="", widths=WIDTHS[:1]):
    """What is found in a page in which a piece is replaced."""
    content = {"title": "casia", "columns": COLUMNS, "rows": ROWS, "chance": 0.25}
    html = page("compare_splits.html", {}, **content)
    assert old in html
    path.write_text(html.replace(old, new, 1))
    return check_page(path, widths)


def test_the_comparison_of_splits(tmp_path):
    assert problems(tmp_path / "index.html", widths=WIDTHS) == []


def test_what_is_wrong_is_found(tmp_path):
    added = (
        f"{WIDE}<h4>deep</h4><button></button><script>console.log('words'); nowhere();</script>"
        "<img src='https://example.org/a.png'><audio controls src='data:audio/mpeg;base64,AAAA'>"
    )
    found = "\n".join(problems(tmp_path / "index.html", "</main>", f"{added}</main>"))
    for word in ("console: words", "exception", "Content Security Policy", "the page is"):
        assert word in found
    for word in ("levels are left out", "button without a name", "image without", "DEMUXER"):
        assert word in found


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("? compare(a, b) : compare(b, a)", "? compare(b, a) : compare(a, b)"),
        ("parseFloat(a) - parseFloat(b)", "a.localeCompare(b)"),
        ('return (a === "") - (b === "")', 'return (b === "") - (a === "")'),
        ('header.setAttribute("aria-sort"', 'header.setAttribute("data-sort"'),
        ('headers.forEach(other => other.removeAttribute("aria-sort"));', ""),
    ],
)
def test_tables_that_sort_wrong_are_found(tmp_path, old, new):
    assert problems(tmp_path / "index.html", old, new)


def test_tables_that_cannot_be_reached_are_found(tmp_path):
    wide = '<p class="wide" style="display: block"><span style="white-space: nowrap">'
    found = problems(tmp_path / "index.html", "</main>", f"{wide}{300 * 'wide '}</span></p></main>")
    assert found
    assert all("cannot be reached by the keyboard" in problem for problem in found)


def test_a_clip_plays(tmp_path):
    sound = data_uri("audio/mpeg", as_mp3(np.zeros(8_000, np.float32)))
    player = f'<audio controls aria-label="a.wav" src="{sound}"></audio></main>'
    assert problems(tmp_path / "index.html", "</main>", player) == []
