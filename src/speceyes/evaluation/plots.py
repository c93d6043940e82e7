"""Pictures as SVG text: points, curves, histograms, bars.

Colours come from the CSS classes of a page, `CSS`; `standalone` puts them into a file of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

Point = tuple[float, float]
WIDTH, HEIGHT = 460, 300
_X0, _X1, _Y0, _Y1 = 56.0, 444.0, 14.0, 232.0
CSS = """\
:root { --c0: #4f5bd5; --c1: #c77a0a; --c2: #12836b; --c3: #b3478f; --c4: #2f8fc4; --c5: #8b6f3c;
  --c6: #777f8f; --c7: #c4582d; --plot-ink: #1c2029; --plot-soft: #5f6675; --plot-rule: #e0dfd8;
  --plot-right: #12836b; --plot-wrong: #c43b4b; }
@media (prefers-color-scheme: dark) { :root { --c0: #8b95f7; --c1: #e6a23c; --c2: #35b899;
  --c3: #e083c0; --c4: #6cbbe8; --c5: #c9ab72; --c6: #a0a8b8; --c7: #ef8f68; --plot-ink: #e8e9ee;
  --plot-soft: #9aa1b3; --plot-rule: #2d3140; --plot-right: #35b899; --plot-wrong: #f06a7a; } }
.c0 { --c: var(--c0); } .c1 { --c: var(--c1); } .c2 { --c: var(--c2); } .c3 { --c: var(--c3); }
.c4 { --c: var(--c4); } .c5 { --c: var(--c5); } .c6 { --c: var(--c6); } .c7 { --c: var(--c7); }
svg text { font: 12.5px system-ui, sans-serif; fill: var(--plot-ink); }
svg .tick, svg .axis { fill: var(--plot-soft); } svg .grid { stroke: var(--plot-rule); }
svg .line { fill: none; stroke: var(--c); stroke-width: 2; } svg .fill { fill: var(--c); }
svg .mark { stroke: var(--plot-ink); stroke-dasharray: 4 3; }
svg .right { fill: var(--plot-right); } svg .wrong { fill: var(--plot-wrong); }
"""
"""What the pictures look like, for the style of a page that holds them."""


def standalone(svg: str) -> str:
    """The picture as a file of its own, light on any background.

    Example:
        >>> standalone(columns({"0": 3}, "calls", "queries")).count("xmlns")
        1
    """
    light, rest = CSS.split("@media", 1)
    classes = rest.split("} }\n", 1)[1]  # without the colours for the dark
    style = (light + classes).replace(":root", "svg") + "svg { background: #fff; }"
    head, tail = svg.split(">", 1)
    return f'{head} xmlns="http://www.w3.org/2000/svg"><style>{style}</style>{tail}\n'


def text(x: float, y: float, said: str, css: str = "", anchor: str = "middle") -> str:
    """A line of text in a picture, escaped."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{css}">{escape(said)}</text>'
    )


def picture(label: str, parts: Sequence[str], height: float = HEIGHT, width: int = WIDTH) -> str:
    """The picture's frame around its parts; the label is for readers who can't see it."""
    head = f'<svg viewBox="0 0 {width} {height:.0f}" role="img" aria-label="{escape(label)}">'
    return "\n".join([head, *parts, "</svg>"])


def _ticks(low: float, high: float, about: int = 5) -> list[float]:
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _reach(values: Iterable[float], *, least: float | None = None) -> tuple[float, float]:
    """A range that holds all values, with some air, and is never empty."""
    found = [v for v in values if math.isfinite(v)] or [0.0]
    low, high = min(found), max(found)
    pad = (high - low) * 0.06 or max(abs(high) * 0.1, 0.05)
    low = low - pad if least is None else max(least, low - pad)
    return low, high + pad


class _Axis:
    """One coordinate: its range, linear or logarithmic, and where its values lie."""

    def __init__(self, values: Iterable[float], at: Point, *, least: float | None, log: bool):
        found = [v for v in values if math.isfinite(v)]
        if log:
            found = [v for v in found if v > 0] or [1.0]
            self._low, self._high = min(found) / 1.3, max(found) * 1.3
        else:
            self._low, self._high = _reach(found, least=least)
        self._at, self._log = at, log

    def __call__(self, value: float) -> float:
        value = min(max(value, self._low), self._high)
        if self._log:
            share = math.log(value / self._low) / math.log(self._high / self._low)
        else:
            share = (value - self._low) / (self._high - self._low)
        return self._at[0] + share * (self._at[1] - self._at[0])

    @property
    def span(self) -> float:
        return self._high - self._low

    def ticks(self) -> list[float]:
        if not self._log:
            return _ticks(self._low, self._high)
        powers = range(math.floor(math.log10(self._low)), math.ceil(math.log10(self._high)) + 1)
        factors = (1, 2, 5) if len(powers) < 4 else (1,)
        found = [m * 10.0**p for p in powers for m in factors]
        found = [value for value in found if self._low <= value <= self._high]
        return found if len(found) > 1 else _ticks(self._low, self._high)


class _Plane:
    """Axes with ticks; where a point lies on the picture."""

    def __init__(self, across: _Axis, up: _Axis, names: tuple[str, str], share: bool) -> None:
        self.across, self.up = across, up
        self.parts: list[str] = []
        for tick in up.ticks():
            at = up(tick)
            name = f"{tick:.0%}" if share and up.span > 0.05 else f"{tick:g}"
            self.parts.append(
                f'<line x1="{_X0}" y1="{at:.1f}" x2="{_X1}" y2="{at:.1f}" class="grid"/>'
            )
            self.parts.append(text(_X0 - 6, at + 4, name, "tick", "end"))
        for tick in across.ticks():
            self.parts.append(text(across(tick), _Y1 + 18, f"{tick:g}", "tick"))
        self.parts.append(text((_X0 + _X1) / 2, _Y1 + 38, names[0], "axis"))
        self.parts.append(text(4, 10, names[1], "axis", "start"))


def _legend(names: Sequence[str]) -> list[str]:
    parts = []
    for at, name in enumerate(names):
        x, y = _X0 + (at % 2) * 196, _Y1 + 62 + at // 2 * 19
        parts.append(f'<circle cx="{x}" cy="{y - 4}" r="5" class="fill c{at % 8}"/>')
        parts.append(text(x + 11, y, name, "key", "start"))
    return parts


def _tall(names: Sequence[str]) -> float:
    return _Y1 + 54 + (len(names) + 1) // 2 * 19


def scatter(
    points: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    across: str,
    up: str,
    *,
    log_x: bool = False,
) -> str:
    """Points with the intervals of both coordinates.

    Args:
        points: By name ((x, low, high), (y, low, high)); y is a share, shown in percent.
        across: What x is.
        up: What y is.
        log_x: Space x by ratios.
    """
    plane = _Plane(
        _Axis((v for x, _ in points.values() for v in x), (_X0, _X1), least=0.0, log=log_x),
        _Axis((v for _, y in points.values() for v in y), (_Y1, _Y0), least=None, log=False),
        (across + (", log scale" if log_x else ""), up),
        share=True,
    )
    parts = plane.parts
    for at, (name, (x, y)) in enumerate(points.items()):
        cx, cy = plane.across(x[0]), plane.up(y[0])
        css = f"line c{at % 8}"
        parts += [
            f'<line x1="{plane.across(x[1]):.1f}" y1="{cy:.1f}" x2="{plane.across(x[2]):.1f}" '
            f'y2="{cy:.1f}" class="{css}"/>',
            f'<line x1="{cx:.1f}" y1="{plane.up(y[1]):.1f}" x2="{cx:.1f}" '
            f'y2="{plane.up(y[2]):.1f}" class="{css}"/>',
            f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="6" class="fill c{at % 8}">'
            f"<title>{escape(name)}: {x[0]:.2f}, {y[0]:.1%}</title></circle>",
        ]
    return picture(f"{up} over {across}", [*parts, *_legend(list(points))], _tall(list(points)))


def lines(
    curves: Mapping[str, Sequence[Point]],
    across: str,
    up: str,
    *,
    share: bool = False,
    dots: bool = False,
    log_x: bool = False,
    log_y: bool = False,
    mark: tuple[float, str] | None = None,
) -> str:
    """Curves with one pair of axes.

    Args:
        curves: By name, (x, y) from left to right.
        across: What x is.
        up: What y is.
        share: Show y in percent.
        dots: Mark the points.
        log_x: Space x by ratios; values must be above 0.
        log_y: Space y by ratios; values must be above 0.
        mark: An x with its name, as a dashed line from top to bottom.
    """
    marked = [] if mark is None else [mark[0]]
    xs = [*(x for c in curves.values() for x, _ in c), *marked]
    plane = _Plane(
        _Axis(xs, (_X0, _X1), least=None, log=log_x),
        _Axis((y for c in curves.values() for _, y in c), (_Y1, _Y0), least=0.0, log=log_y),
        (across + (", log scale" if log_x else ""), up + (", log scale" if log_y else "")),
        share,
    )
    if mark is not None:
        x = plane.across(mark[0])
        plane.parts.append(f'<line x1="{x:.1f}" y1="{_Y0}" x2="{x:.1f}" y2="{_Y1}" class="mark"/>')
        plane.parts.append(text(x, _Y0 - 3, mark[1], "axis"))
    parts = plane.parts
    for at, curve in enumerate(curves.values()):
        path = " ".join(f"{plane.across(x):.1f},{plane.up(y):.1f}" for x, y in curve)
        parts.append(f'<polyline points="{path}" class="line c{at % 8}"/>')
        if dots:
            parts += [
                f'<circle cx="{plane.across(x):.1f}" cy="{plane.up(y):.1f}" r="3.5" '
                f'class="fill c{at % 8}"><title>{x:g}: {y:.4g}</title></circle>'
                for x, y in curve
            ]
    return picture(f"{up} over {across}", [*parts, *_legend(list(curves))], _tall(list(curves)))


def density(right: Sequence[float], wrong: Sequence[float], mark: float, across: str) -> str:
    """Histograms of scores: right ones up, wrong ones down, and where the threshold is."""
    values = sorted([*right, *wrong])
    if not values:
        return ""
    low, high = _reach([values[len(values) // 100], values[-1 - len(values) // 100], mark])
    bins, middle = 40, 116.0
    counts = [[0] * bins, [0] * bins]
    for side, scores in enumerate((right, wrong)):
        for score in scores:
            place = int((min(max(score, low), high) - low) / (high - low) * bins)
            counts[side][min(place, bins - 1)] += 1
    tallest = max(1, *counts[0], *counts[1])
    wide = (_X1 - _X0) / bins
    parts = []
    for side, css in ((0, "right"), (1, "wrong")):
        for at, count in enumerate(counts[side]):
            if count:
                tall = count / tallest * 96
                top = middle - tall if side == 0 else middle
                parts.append(
                    f'<rect x="{_X0 + at * wide:.1f}" y="{top:.1f}" width="{wide - 1:.1f}" '
                    f'height="{tall:.1f}" class="{css}"><title>{count} {css}</title></rect>'
                )
    if math.isfinite(mark):
        x = _X0 + (mark - low) / (high - low) * (_X1 - _X0)
        parts.append(f'<line x1="{x:.1f}" y1="14" x2="{x:.1f}" y2="216" class="mark"/>')
        anchor, shift = ("end", -5) if x > WIDTH / 2 else ("start", 5)
        parts.append(text(x + shift, 22, "accepted from here", "key", anchor))
    parts += [
        text(_X0 + (t - low) / (high - low) * (_X1 - _X0), 236, f"{t:g}", "tick")
        for t in _ticks(low, high)
    ]
    parts += [
        text(_X0 - 6, 40, "right", "axis", "end"),
        text(_X0 - 6, 196, "wrong", "axis", "end"),
        text((_X0 + _X1) / 2, 256, across, "axis"),
    ]
    return picture("Scores of right and of wrong drafts", parts, 266)


def stacked(rows: Mapping[str, Mapping[str, float]]) -> str:
    """Milliseconds a query by phase, each phase beginning where the one before it ends."""
    names = list(dict.fromkeys(part for row in rows.values() for part in row))
    longest = max((sum(row.values()) for row in rows.values()), default=0.0) * 1e3 or 1.0
    left, tall = 170.0, 26
    parts, bottom = [], 10 + tall * len(rows)
    for tick in _ticks(0.0, longest, 4):
        x = left + tick / longest * (_X1 - left - 40)
        parts.append(f'<line x1="{x:.1f}" y1="6" x2="{x:.1f}" y2="{bottom}" class="grid"/>')
        parts.append(text(x, bottom + 16, f"{tick:g}", "tick"))
    for at, (name, row) in enumerate(rows.items()):
        x, y = left, 10 + at * tall
        parts.append(text(left - 8, y + 14, name, "key", "end"))
        for part, seconds in row.items():
            wide = seconds * 1e3 / longest * (_X1 - left - 40)
            if wide > 0.05:
                parts.append(
                    f'<rect x="{x:.1f}" y="{y}" width="{wide:.1f}" height="{tall - 9}" '
                    f'class="fill c{names.index(part) % 8}">'
                    f"<title>{escape(part)}: {1e3 * seconds:.1f} ms</title></rect>"
                )
            x += wide
        parts.append(text(x + 4, y + 14, f"{1e3 * sum(row.values()):.0f}", "tick", "start"))
    parts.append(text((left + _X1) / 2, bottom + 34, "ms a query", "axis"))
    for at, part in enumerate(names):
        x, y = 20 + at % 5 * 84, bottom + 58
        parts.append(f'<circle cx="{x}" cy="{y - 4}" r="5" class="fill c{at % 8}"/>')
        parts.append(text(x + 10, y, part, "key", "start"))
    return picture("Milliseconds a query by phase", parts, bottom + 70)


def columns(counts: Mapping[str, int], across: str, up: str) -> str:
    """A bar a value."""
    if not counts:
        return ""
    most = max(counts.values())
    wide = (_X1 - _X0) / len(counts)
    parts = []
    for at, (name, count) in enumerate(counts.items()):
        tall = count / most * 180
        x = _X0 + at * wide
        parts.append(
            f'<rect x="{x + wide * 0.15:.1f}" y="{212 - tall:.1f}" width="{wide * 0.7:.1f}" '
            f'height="{tall:.1f}" class="fill c0"/>'
        )
        parts.append(text(x + wide / 2, 206 - tall, str(count), "tick"))
        parts.append(text(x + wide / 2, 230, name, "tick"))
    parts.append(text((_X0 + _X1) / 2, 250, across, "axis"))
    parts.append(text(4, 12, up, "axis", "start"))
    return picture(f"{up} over {across}", parts, 260)
