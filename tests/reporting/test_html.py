"""Pages need no other file, escape what they show, and miss no variable silently."""

import base64

import jinja2
import pytest

from ser_core.reporting.html import page

COLUMNS = ("split", "UAR")


def test_a_page():
    html = page(
        "compare_splits.html", {}, title="casia", columns=COLUMNS, lines=[["random", "0.9"]]
    )
    assert html.startswith("<!doctype html>")
    assert "<td>random</td><td>0.9</td>" in html
    assert "http" not in html


def test_content_is_escaped():
    lines = [["<script>alert(1)</script>", "0.9"]]
    html = page("compare_splits.html", {}, title="<b>", columns=COLUMNS, lines=lines)
    assert "<script>" not in html
    assert "&lt;b&gt;" in html


def test_pictures_are_inlined(monkeypatch):
    template = "<img src='{{ pictures.curve }}'>"
    loader = jinja2.DictLoader({"picture.html": template})
    monkeypatch.setattr(jinja2, "PackageLoader", lambda _: loader)
    encoded = base64.b64encode(b"PNG").decode()
    html = page("picture.html", {"curve": b"PNG"})
    assert html == f"<img src='data:image/png;base64,{encoded}'>"


def test_a_missing_variable_is_an_error():
    with pytest.raises(jinja2.UndefinedError, match="lines"):
        page("compare_splits.html", {}, title="casia", columns=COLUMNS)
