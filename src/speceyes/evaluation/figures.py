"""The report's pictures, as SVG text: the funnel, accuracy against speed, scores of drafts.

Colours come from the page's CSS classes, so that one picture serves light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from speceyes.evaluation.statistics import percentile


def _svg(width: int, height: int, label: str, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    head = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">'
    return f"{head}\n{body}\n</svg>"


def text(x: float, y: float, said: str, css: str = "", anchor: str = "middle") -> str:
    """A line of text in an SVG picture, escaped."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{css}">{escape(said)}</text>'
    )


def _ribbon(x0: float, x1: float, y0: float, x2: float, x3: float, y1: float, css: str) -> str:
    """A band from [x0, x1] at y0 to [x2, x3] at y1."""
    middle = (y0 + y1) / 2
    path = (
        f"M{x0:.1f},{y0} C{x0:.1f},{middle} {x2:.1f},{middle} {x2:.1f},{y1} "
        f"L{x3:.1f},{y1} C{x3:.1f},{middle} {x1:.1f},{middle} {x1:.1f},{y0} Z"
    )
    return f'<path d="{path}" class="ribbon {css}"/>'


def _bar(x0: float, x1: float, y: float, count: int, name: str, css: str) -> list[str]:
    """A segment with its count, and its name where there is room for it."""
    if count == 0:
        return []
    width, middle = x1 - x0, (x0 + x1) / 2
    parts = [
        f'<rect x="{x0:.1f}" y="{y}" width="{width:.1f}" height="34" rx="5" class="seg {css}">'
        f"<title>{escape(f'{count} {name}')}</title></rect>"
    ]
    full = f"{count} {name}"
    if width > 7.4 * len(full) + 10:
        parts.append(text(middle, y + 22, full, "on"))
    elif width > 9 * len(str(count)) + 6:
        parts.append(text(middle, y + 22, str(count), "on"))
    return parts


def funnel(counts: Mapping[str, int]) -> str:
    """The counts as a stream from top to bottom; widths are in proportion.

    Args:
        counts: `queries`, `tools_needed`, `drafted`, `accepted`, `rejected`.
    """
    left, right, gap = 16.0, 424.0, 14.0
    rows = (26, 142, 258, 374)
    n = max(counts["queries"], 1)
    unit = (right - left - 2 * gap) / n
    accepted, rejected = counts["accepted"] * unit, counts["rejected"] * unit
    drafted, tools = counts["drafted"] * unit, counts["tools_needed"] * unit
    # Every row has the same free space, spent between its segments.
    top = (left + gap, right - gap)
    judge_left = (left + gap / 2, left + gap / 2 + drafted)
    judge_right = (judge_left[1] + gap, judge_left[1] + gap + tools)
    yes = (left, left + accepted)
    no = (yes[1] + gap, yes[1] + gap + rejected)
    on = (no[1] + gap, no[1] + gap + tools)
    out_left = (left + gap / 2, left + gap / 2 + accepted)
    out_right = (out_left[1] + gap, out_left[1] + gap + rejected + tools)
    split = top[0] + drafted
    y0, y1, y2, y3 = rows
    parts = [
        _ribbon(top[0], split, y0 + 34, *judge_left, y1, "draft"),
        _ribbon(split, top[1], y0 + 34, *judge_right, y1, "agent"),
        _ribbon(judge_left[0], judge_left[0] + accepted, y1 + 34, *yes, y2, "draft"),
        _ribbon(judge_left[0] + accepted, judge_left[1], y1 + 34, *no, y2, "rejected"),
        _ribbon(*judge_right, y1 + 34, *on, y2, "agent"),
        _ribbon(*yes, y2 + 34, *out_left, y3, "draft"),
        _ribbon(*no, y2 + 34, out_right[0], out_right[0] + rejected, y3, "rejected"),
        _ribbon(*on, y2 + 34, out_right[0] + rejected, out_right[1], y3, "agent"),
        *_bar(*top, y0, counts["queries"], "queries", "all"),
        *_bar(*judge_left, y1, counts["drafted"], "drafted", "draft"),
        *_bar(*judge_right, y1, counts["tools_needed"], "need tools", "agent"),
        *_bar(*yes, y2, counts["accepted"], "accepted", "draft"),
        *_bar(*no, y2, counts["rejected"], "rejected", "rejected"),
        *_bar(*on, y2, counts["tools_needed"], "need tools", "agent"),
        *_bar(*out_left, y3, counts["accepted"], "by the draft", "draft"),
        *_bar(*out_right, y3, counts["rejected"] + counts["tools_needed"], "by the agent", "agent"),
    ]
    for y, words in (
        (y0 + 34, "the judge: are tools needed?"),
        (y1 + 34, "the gate: is every token of the draft clear?"),
        (y2 + 34, "answered"),
    ):
        parts.append(text(220, (2 * y + 82) / 2 + 4, words, "halo"))
    label = (
        f"{counts['queries']} queries: {counts['accepted']} answered by the draft, "
        f"{counts['rejected']} drafts rejected, {counts['tools_needed']} needed tools"
    )
    return _svg(440, 424, label, parts)


def _ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers from low to high, some `about` of them."""
    raw = (high - low) / max(about, 1)
    power = 10.0 ** math.floor(math.log10(raw)) if raw > 0 else 1.0
    step = next((m * power for m in (1, 2, 5, 10) if m * power >= raw), 10 * power)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _label_place(
    x: float, y: float, text: str, taken: list[tuple[float, float, float, float]]
) -> tuple[float, float, str]:
    """Where a point's name fits: (x, y, anchor), the first place that overlaps nothing."""
    width = 8.4 * len(text)
    places = [
        (x + side * 12, y + down, "start" if side > 0 else "end")
        for down in (-9, 18, 32, -24, 46, -38)
        for side in (1, -1)
    ]

    def box(place: tuple[float, float, str]) -> tuple[float, float, float, float]:
        left = place[0] if place[2] == "start" else place[0] - width
        return left, place[1] - 12, left + width, place[1] + 4

    def fits(place: tuple[float, float, str]) -> bool:
        x0, y0, x1, y1 = box(place)
        inside = x0 >= 46 and x1 <= 438 and y0 >= 2 and y1 <= 306
        return inside and not any(
            x0 < right and left < x1 and y0 < bottom and top < y1
            for left, top, right, bottom in taken
        )

    chosen = next(filter(fits, places), places[0])
    taken.append(box(chosen))
    return chosen


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten within low to high."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [m * 10.0**p for p in powers for m in (1, 2, 5) if low <= m * 10.0**p <= high]


def accuracy_against_speed(arms: Mapping[str, Mapping[str, Any]], names: Mapping[str, str]) -> str:
    """Accuracy with its interval against queries a second (log scale), a point an arm."""
    x0, x1, y0, y1 = 52.0, 424.0, 24.0, 300.0
    speeds = [float(arm["queries_per_s"]) for arm in arms.values()]
    slow, fast = min(speeds) / 1.5, max(speeds) * 1.5
    lowest = float(min(arm["accuracy_low"] for arm in arms.values()))
    low = max(0.0, math.floor((lowest - 0.03) * 20) / 20)

    def across(speed: float) -> float:
        return x0 + math.log(speed / slow) / math.log(fast / slow) * (x1 - x0)

    def up(accuracy: float) -> float:
        return y1 - (accuracy - low) / (1 - low) * (y1 - y0)

    parts = []
    for tick in _ticks(low, 1.0, 5):
        y = up(tick)
        parts.append(f'<line x1="{x0}" y1="{y:.1f}" x2="{x1}" y2="{y:.1f}" class="grid"/>')
        parts.append(text(x0 - 8, y + 4, f"{tick:.0%}", "tick", "end"))
    for tick in _log_ticks(slow, fast):
        x = across(tick)
        parts.append(f'<line x1="{x:.1f}" y1="{y0}" x2="{x:.1f}" y2="{y1}" class="grid"/>')
        parts.append(text(x, y1 + 20, f"{tick:g}", "tick"))
    parts.append(text((x0 + x1) / 2, y1 + 42, "queries a second, log scale", "axis"))
    points = {
        name: (across(arm["queries_per_s"]), up(arm["accuracy"])) for name, arm in arms.items()
    }
    taken = [(x - 9, y - 9, x + 9, y + 9) for x, y in points.values()]
    taken += [
        (x - 2, up(arms[name]["accuracy_high"]), x + 2, up(arms[name]["accuracy_low"]))
        for name, (x, _) in points.items()
    ]
    for name, (x, y) in points.items():
        arm, css = arms[name], {"draft": "draft", "funnel": "funnel"}.get(name, "agent")
        top, bottom = up(arm["accuracy_high"]), up(arm["accuracy_low"])
        parts += [
            f'<line x1="{x:.1f}" y1="{top:.1f}" x2="{x:.1f}" y2="{bottom:.1f}" '
            f'class="whisker {css}"/>',
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{8 if name == "funnel" else 6}" '
            f'class="dot {css}"><title>{escape(names[name])}: {arm["accuracy"]:.1%}, '
            f"{arm['queries_per_s']:.1f} queries/s</title></circle>",
        ]
    for name, (x, y) in points.items():
        at_x, at_y, anchor = _label_place(x, y, names[name], taken)
        parts.append(text(at_x, at_y, names[name], "name", anchor))
    return _svg(440, 352, "Accuracy against speed of the four arms", parts)


def drafts_by_score(scored: Sequence[tuple[float, bool]], threshold: float, unit: str) -> str:
    """How many drafts were right (up) and wrong (down) at each raw score.

    Args:
        scored: (raw score, was right) of each draft of the draft arm.
        threshold: The gate's threshold on the raw scale.
        unit: What the raw score is, for the axis.
    """
    if not scored:
        return ""
    x0, x1, middle, bins = 20.0, 424.0, 118.0, 32
    values = [s for s, _ in scored if math.isfinite(s)] or [0.0]
    inside = [threshold] if math.isfinite(threshold) else []
    low = min([percentile(values, 1), *inside])
    high = max([percentile(values, 99), *inside])
    pad = (high - low) * 0.04 or 1.0
    low, high = low - pad, high + pad
    up, down = [0] * bins, [0] * bins
    for score, right in scored:
        share = (min(max(score, low), high) - low) / (high - low)
        (up if right else down)[min(int(share * bins), bins - 1)] += 1
    tallest = max(*up, *down, 1)
    width = (x1 - x0) / bins
    parts = []
    for i in range(bins):
        x = x0 + i * width
        for count, css, sign in ((up[i], "right", -1), (down[i], "wrong", 1)):
            if count:
                tall = count / tallest * 88
                y = middle - tall if sign < 0 else middle
                parts.append(
                    f'<rect x="{x + 0.6:.1f}" y="{y:.1f}" width="{width - 1.2:.1f}" '
                    f'height="{tall:.1f}" class="{css}"><title>{count} {css}</title></rect>'
                )
    parts.append(f'<line x1="{x0}" y1="{middle}" x2="{x1}" y2="{middle}" class="base"/>')
    if inside:
        x = x0 + (threshold - low) / (high - low) * (x1 - x0)
        side, shift = ("end", -6) if x > 300 else ("start", 6)
        parts.append(f'<line x1="{x:.1f}" y1="18" x2="{x:.1f}" y2="214" class="mark"/>')
        parts.append(text(x + shift, 26, "accepted from here", "name", side))
    for tick in _ticks(low, high, 6):
        x = x0 + (tick - low) / (high - low) * (x1 - x0)
        parts.append(text(x, 232, f"{tick:g}", "tick"))
    parts.append(text((x0 + x1) / 2, 254, unit, "axis"))
    return _svg(440, 262, "Scores of right and of wrong drafts", parts)
