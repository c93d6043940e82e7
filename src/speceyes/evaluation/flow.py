"""Picture of what became of a run's queries, as a stream from judge to answers."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from speceyes.evaluation.plots import picture, text


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
    return picture(label, parts, 424, 440)
