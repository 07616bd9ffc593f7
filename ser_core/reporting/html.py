"""Templates → self-contained HTML pages; it computes nothing and writes no file."""

import base64
from collections.abc import Mapping
from typing import Any


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
    )
    inlined = {
        name: f"data:image/png;base64,{base64.b64encode(picture).decode()}"
        for name, picture in pictures.items()
    }
    return environment.get_template(template).render(pictures=inlined, **content)
