"""Pages need no other file, escape what they show, and miss no variable silently."""

import base64

import jinja2
import pytest

from ser_core.reporting.html import page

COLUMNS = (("split", "split", "text"), ("uar", "UAR", "number"))


def comparison(**content):
    given = {"title": "casia", "columns": COLUMNS, "rows": [], "chance": 0.25}
    return page("compare_splits.html", {}, **given | content)


def test_a_page():
    html = comparison(rows=[{"split": "random", "uar": 0.91234}])
    assert html.startswith("<!doctype html>")
    assert '<th scope="row">random</th>' in html
    assert '<td class="count" data-value="0.91234">0.912</td>' in html
    assert "http:" not in html
    assert "https:" not in html


def test_content_is_escaped():
    html = comparison(title="<b>", rows=[{"split": "<script>alert(1)</script>", "uar": 0.9}])
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert" in html
    assert "&lt;b&gt;" in html


def test_missing_numbers_have_no_bar_and_no_value():
    columns = [("split", "split", "text"), ("uar", "UAR", ("bar", "chance"))]
    rows = [{"split": "a", "uar": float("nan"), "chance": 0.2}, {"split": "b", "uar": None}]
    rows += [{"split": "c", "uar": 0.5, "chance": 0.2}]
    html = comparison(columns=columns, rows=[{"chance": None, **row} for row in rows])
    assert html.count('data-value="">–') == 2
    assert html.count("--width: ") == 1
    assert "--width: 50.0%; --at: 20.0%" in html


def test_pictures_are_inlined(monkeypatch):
    template = "<img src='{{ pictures.curve }}'>"
    loader = jinja2.DictLoader({"picture.html": template})
    monkeypatch.setattr(jinja2, "PackageLoader", lambda _: loader)
    encoded = base64.b64encode(b"PNG").decode()
    html = page("picture.html", {"curve": b"PNG"})
    assert html == f"<img src='data:image/png;base64,{encoded}'>"


def test_a_missing_variable_is_an_error():
    with pytest.raises(jinja2.UndefinedError, match="rows"):
        page("compare_splits.html", {}, title="casia", columns=COLUMNS, chance=0.5)
