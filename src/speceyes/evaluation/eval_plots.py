"""The pictures of an evaluation, as SVG text; colours come from the page's CSS."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from speceyes.evaluation.figures import text

Point = tuple[float, float]
WIDTH, HEIGHT = 460, 300
_X0, _X1, _Y0, _Y1 = 56.0, 444.0, 14.0, 232.0


def _svg(label: str, parts: Sequence[str], height: float = HEIGHT) -> str:
    head = f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(label)}">'
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


class _Plane:
    """Axes with ticks; where a point lies on the picture."""

    def __init__(
        self, x: tuple[float, float], y: tuple[float, float], across: str, up: str, share: bool
    ) -> None:
        self._x, self._y = x, y
        self.parts: list[str] = []
        for tick in _ticks(*y):
            at = self.up(tick)
            name = f"{tick:.0%}" if share and y[1] - y[0] > 0.05 else f"{tick:g}"
            self.parts.append(
                f'<line x1="{_X0}" y1="{at:.1f}" x2="{_X1}" y2="{at:.1f}" class="grid"/>'
            )
            self.parts.append(text(_X0 - 6, at + 4, name, "tick", "end"))
        for tick in _ticks(*x):
            self.parts.append(text(self.across(tick), _Y1 + 18, f"{tick:g}", "tick"))
        self.parts.append(text((_X0 + _X1) / 2, _Y1 + 38, across, "axis"))
        self.parts.append(text(4, 10, up, "axis", "start"))

    def across(self, x: float) -> float:
        low, high = self._x
        return _X0 + (min(max(x, low), high) - low) / (high - low) * (_X1 - _X0)

    def up(self, y: float) -> float:
        low, high = self._y
        return _Y1 - (min(max(y, low), high) - low) / (high - low) * (_Y1 - _Y0)


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
    points: Mapping[str, tuple[Sequence[float], Sequence[float]]], across: str, up: str
) -> str:
    """Points with the intervals of both coordinates.

    Args:
        points: By name ((x, low, high), (y, low, high)).
        across: What x is.
        up: What y is.
    """
    plane = _Plane(
        _reach((v for x, _ in points.values() for v in x), least=0.0),
        _reach(v for _, y in points.values() for v in y),
        across,
        up,
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
    return _svg(f"{up} over {across}", [*parts, *_legend(list(points))], _tall(list(points)))


def lines(
    curves: Mapping[str, Sequence[Point]],
    across: str,
    up: str,
    *,
    share: bool = False,
    dots: bool = False,
) -> str:
    """Curves with one pair of axes.

    Args:
        curves: By name, (x, y) from left to right.
        across: What x is.
        up: What y is.
        share: Whether y is a share, to be shown in percent.
        dots: Mark the points.
    """
    plane = _Plane(
        _reach(x for c in curves.values() for x, _ in c),
        _reach((y for c in curves.values() for _, y in c), least=0.0),
        across,
        up,
        share,
    )
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
    return _svg(f"{up} over {across}", [*parts, *_legend(list(curves))], _tall(list(curves)))


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
    return _svg("Scores of right and of wrong drafts", parts, 266)


def waterfall(rows: Mapping[str, Mapping[str, float]]) -> str:
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
    return _svg("Milliseconds a query by phase", parts, bottom + 70)


def bars(counts: Mapping[str, int], across: str, up: str) -> str:
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
    return _svg(f"{up} over {across}", parts, 260)
