"""The load test's picture: latency over offered load, both as they are, latency on a log scale.

Below the capacity latencies are tens of milliseconds and above it seconds: on a plain scale the
first would lie on the axis.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

WIDTH, HEIGHT = 640, 340
_COLOURS = ("#1f7a5c", "#3465a4", "#c4582d")
_STYLE = (
    "svg{background:#fff;font:13px system-ui,sans-serif}text{fill:#222}.soft{fill:#666}"
    ".grid{stroke:#ddd}.full{stroke:#888;stroke-dasharray:4 4}"
)
_LEFT, _RIGHT, _TOP, _BOTTOM = 64.0, WIDTH - 24.0, 30.0, 260.0


def latency(curves: Mapping[str, Sequence[tuple[float, float]]], capacity: float) -> str:
    """The picture, as SVG that stands alone.

    Args:
        curves: By name, (offered requests a second, latency in seconds), latencies above 0.
        capacity: Requests a second that the server can do; a dashed line.

    Example:
        >>> latency({"p50": [(10.0, 0.02), (20.0, 1.5)]}, 15.0)[:4]
        '<svg'
    """
    points = [point for curve in curves.values() for point in curve]
    most = 1.06 * max(capacity, *(x for x, _ in points))
    low = math.floor(math.log10(min(y for _, y in points)))
    high = max(math.ceil(math.log10(max(y for _, y in points))), low + 1)

    def across(rate: float) -> float:
        return _LEFT + rate / most * (_RIGHT - _LEFT)

    def up(seconds: float) -> float:
        return _BOTTOM - (math.log10(seconds) - low) / (high - low) * (_BOTTOM - _TOP)

    parts = [_text(_LEFT, 14, "latency, log scale", "start")]
    for power in range(low, high + 1):
        y = up(10.0**power)
        parts.append(_line(_LEFT, y, _RIGHT, y, "grid"))
        parts.append(_text(_LEFT - 8, y + 4, _seconds(10.0**power), "end"))
    for tick in _ticks(most):
        parts.append(_text(across(tick), _BOTTOM + 18, f"{tick:g}"))
    parts.append(_text((_LEFT + _RIGHT) / 2, _BOTTOM + 38, "offered requests a second"))
    parts.append(_line(across(capacity), _TOP, across(capacity), _BOTTOM, "full"))
    parts.append(_text(across(capacity), _TOP - 6, "capacity"))
    for at, (name, curve) in enumerate(curves.items()):
        colour = _COLOURS[at % len(_COLOURS)]
        spots = [(across(x), up(y)) for x, y in sorted(curve)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>' for x, y in spots]
        x = _LEFT + 90 * at
        parts.append(f'<circle cx="{x + 6:.1f}" cy="{HEIGHT - 18}" r="5" fill="{colour}"/>')
        parts.append(f'<text x="{x + 18:.1f}" y="{HEIGHT - 14}">{name}</text>')
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="Latency over offered load"><style>{_STYLE}</style>'
    )
    return "\n".join([head, *parts, "</svg>"])


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="soft">{text}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{css}"/>'


def _seconds(value: float) -> str:
    return f"{value:g} s" if value >= 1 else f"{1e3 * value:g} ms"


def _ticks(most: float) -> list[float]:
    """Some five round numbers from 0 up to `most`."""
    power = 10.0 ** math.floor(math.log10(most / 5))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= most / 5 * (1 - 1e-9))
    return [at * step for at in range(math.floor(most / step + 1e-9) + 1)]
