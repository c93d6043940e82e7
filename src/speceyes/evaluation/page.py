"""HTML pages of one file each: a template whose {{names}} are filled in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from speceyes.evaluation.plots import CSS


def fill(template: Path, **parts: str) -> str:
    """The template with its parts in place; {{plot_css}} is the style of `plots`.

    Args:
        template: An HTML file with {{name}} for each part.
        **parts: HTML by name; texts in it are escaped already.

    Raises:
        KeyError: The template names a part that isn't given.
    """
    # One pass, so that nothing that is filled in is itself looked through for names.
    known = {"plot_css": CSS, **parts}
    return re.sub(r"\{\{(\w+)\}\}", lambda found: known[found[1]], template.read_text("utf-8"))


def plain_page(title: str, about: str, sections: Sequence[tuple[str, str, str]]) -> str:
    """A page of pictures with their tables.

    Args:
        title: Its heading.
        about: How the figures were measured.
        sections: (heading, SVG, Markdown table) each.
    """
    body = "\n".join(
        f"<h2>{escape(heading)}</h2>\n{svg}\n<pre>{escape(text)}</pre>"
        for heading, svg, text in sections
    )
    template = Path(__file__).with_name("plain_page.html")
    return fill(template, title=escape(title), about=escape(about), body=body)
