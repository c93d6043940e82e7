"""The benchmark's pictures, as SVG files that stand alone, and one page that holds them all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

WIDTH = 640
_STYLE = (
    "svg{background:#fff;font:13px system-ui,sans-serif}text{fill:#222}"
    ".soft{fill:#666}.grid{stroke:#ddd}.bar{fill:#9db4c8}.ours{fill:#1f7a5c}"
    ".whisker{stroke:#222}"
)
_COLOURS = ("#1f7a5c", "#3465a4", "#c4582d", "#8a3f8f", "#777777", "#b59100")


def _svg(height: int, label: str, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(label, quote=True)}"><style>{_STYLE}</style>'
    )
    return "\n".join([head, *parts, "</svg>"])


def _text(x: float, y: float, text: str, anchor: str = "middle", css: str = "") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{css}">{escape(text)}</text>'
    )


def _ticks(top: float) -> list[float]:
    """Some five round numbers from 0 to the first that is not below `top`."""
    raw = top / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    return [i * step for i in range(math.ceil(top / step - 1e-9) + 1)]


def bars(arms: Mapping[str, Mapping[str, Any]], ours: str) -> str:
    """Milliseconds a query, a bar an arm.

    Args:
        arms: What `bench.summarise` gives.
        ours: The arm that stands out.
    """
    left, right, tall = 250.0, WIDTH - 70.0, 26
    ticks = _ticks(max(row["ms_per_query"] for row in arms.values()))
    unit = (right - left) / ticks[-1]
    bottom = 16 + tall * len(arms)
    parts = []
    for tick in ticks:
        x = left + tick * unit
        parts.append(f'<line x1="{x:.1f}" y1="10" x2="{x:.1f}" y2="{bottom}" class="grid"/>')
        parts.append(_text(x, bottom + 16, f"{tick:g}", css="soft"))
    for at, (name, row) in enumerate(arms.items()):
        y, long = 14 + at * tall, row["ms_per_query"] * unit
        css = "ours" if name == ours else "bar"
        parts.append(
            f'<rect x="{left}" y="{y}" width="{long:.1f}" height="{tall - 8}" class="{css}"/>'
        )
        parts.append(_text(left - 8, y + 14, name, "end"))
        parts.append(_text(left + long + 6, y + 14, f"{row['ms_per_query']:.1f}", "start"))
    parts.append(_text((left + right) / 2, bottom + 36, "ms a query", css="soft"))
    return _svg(bottom + 46, "Milliseconds a query by arm", parts)


def lines(
    found: Mapping[float, Mapping[str, float]], *, across: str, up: str, logarithmic: bool = False
) -> str:
    """Curves over the values of a sweep, from 0 up.

    Args:
        found: By value, each curve's height.
        across: What the values are.
        up: What the heights are.
        logarithmic: Whether values are spaced by their ratios; they must be positive then.
    """
    x0, x1, y0, y1 = 70.0, WIDTH - 30.0, 20.0, 260.0
    places = {value: math.log(value) if logarithmic else value for value in found}
    low, high = min(places.values()), max(places.values())
    names = list(next(iter(found.values())))
    ticks = _ticks(max(max(row.values()) for row in found.values()) or 1.0)

    def x_of(value: float) -> float:
        share = (places[value] - low) / (high - low) if high > low else 0.5
        return x0 + share * (x1 - x0)

    def y_of(height: float) -> float:
        return y1 - height / ticks[-1] * (y1 - y0)

    parts = []
    for tick in ticks:
        y = y_of(tick)
        parts.append(f'<line x1="{x0}" y1="{y:.1f}" x2="{x1}" y2="{y:.1f}" class="grid"/>')
        parts.append(_text(x0 - 8, y + 4, f"{tick:g}", "end", "soft"))
    parts += [_text(x_of(value), y1 + 18, f"{value:g}", css="soft") for value in found]
    scale = ", log scale" if logarithmic else ""
    parts.append(_text((x0 + x1) / 2, y1 + 38, across + scale, css="soft"))
    parts.append(_text(x0, 12, up, "start", "soft"))
    for at, name in enumerate(names):
        colour = _COLOURS[at % len(_COLOURS)]
        points = [(x_of(value), y_of(row[name])) for value, row in found.items()]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>' for x, y in points]
        y = y1 + 62 + at * 20
        parts.append(f'<circle cx="{x0}" cy="{y - 4:.1f}" r="5" fill="{colour}"/>')
        parts.append(_text(x0 + 12, y, name, "start"))
    return _svg(int(y1) + 66 + 20 * len(names), f"{up} over {across}", parts)


def page(title: str, about: str, sections: Sequence[tuple[str, str, str]]) -> str:
    """One HTML page that needs nothing else.

    Args:
        title: Its heading.
        about: How the figures were measured.
        sections: (heading, SVG, Markdown table) each.
    """
    body = "\n".join(
        f"<h2>{escape(heading)}</h2>\n{svg}\n<pre>{escape(text)}</pre>"
        for heading, svg, text in sections
    )
    return (
        '<!doctype html>\n<html lang="en"><meta charset="utf-8">'
        f"<title>{escape(title)}</title>\n"
        "<style>body{max-width:60rem;margin:2rem auto;padding:0 1rem;"
        "font:15px system-ui,sans-serif}svg{max-width:40rem;width:100%}"
        "pre{overflow-x:auto;background:#f4f4f4;padding:.8rem}</style>\n"
        f"<h1>{escape(title)}</h1>\n<p>{escape(about)}</p>\n{body}\n</html>\n"
    )
