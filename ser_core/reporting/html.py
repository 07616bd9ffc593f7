"""Templates → self-contained HTML pages; it computes nothing and writes no file."""

import base64
import math
from collections.abc import Mapping
from typing import Any

from ser_core.console import counted

MISSING = "–"


def page(template: str, pictures: Mapping[str, bytes], **content: Any) -> str:
    """An HTML page that needs no other file.

    Args:
        template: name of a file in ``ser_core/reporting/templates``.
        pictures: PNGs by name; the template finds them in ``pictures`` as ``data:`` URIs.
        content: the template's other variables; one that is missing raises ``UndefinedError``.
    """
    import jinja2  # an optional library: see libraries.py

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ser_core.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, percent=percent, counted=counted, hours=hours)
    inlined = {name: data_uri("image/png", picture) for name, picture in pictures.items()}
    return environment.get_template(template).render(pictures=inlined, **content)


def data_uri(media_type: str, content: bytes) -> str:
    """A file's content as a URI, for what a page holds itself.

    >>> data_uri("text/plain", b"abc")
    'data:text/plain;base64,YWJj'
    """
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def number(value: float | str | None) -> str:
    """A number as pages and notes show it; a text stays as it is.

    >>> [number(value) for value in (1234567, 1234.5, 0.12345, -0.0001, None, math.nan, "7 h")]
    ['1,234,567', '1,234.500', '0.123', '0.000', '–', '–', '7 h']
    """
    if isinstance(value, str):
        return value
    if value is None or math.isnan(value):
        return MISSING
    if isinstance(value, float):
        return f"{round(value, 3) + 0.0:,.3f}"  # + 0.0: no minus before what rounds to 0
    return f"{value:,}"


def percent(share: float | None) -> str:
    """A share of 1 in per cent, with one decimal.

    >>> percent(0.12345), percent(None)
    ('12.3 %', '–')
    """
    return MISSING if share is None or math.isnan(share) else f"{100 * share:.1f} %"


def hours(number: float) -> str:
    """A duration in hours, or in minutes if it is shorter than one.

    >>> hours(0.25), hours(1234.56)
    ('15.0 min', '1,234.6 h')
    """
    return f"{60 * number:.1f} min" if number < 1 else f"{number:,.1f} h"
