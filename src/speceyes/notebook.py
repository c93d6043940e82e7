"""Results, reports and settings as small pieces of HTML, for notebooks.

What is shown is escaped, needs nothing from elsewhere, and takes its colours from the page around
it, so that it reads on light and on dark ground. Notebooks find these by `_repr_html_`.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Final

from speceyes.encoded import data_url
from speceyes.errors import ConfigError
from speceyes.looked import zoomed

if TYPE_CHECKING:
    from speceyes.types import Box, Image, Result, Route, Trajectory

_SCENE, _CROP = 320, 120
_MOST_CROPS = 8
_LONGEST = 600
COLOURS: Final[dict[Route, str]] = {"draft": "#1a936f", "agent": "#3d7edb", "error": "#d1495b"}
"""A route's colour; each stands out on white and on black."""
_PHASES: Final = (
    ("judge", "#b08be0"),
    ("draft", COLOURS["draft"]),
    ("gate", "#d9a21b"),
    ("fallback", COLOURS["agent"]),
)
_STYLE = """<style>
.speceyes{font:13px/1.45 system-ui,sans-serif;border:1px solid rgba(128,128,128,.4);
border-radius:8px;padding:10px 12px;margin:4px 0;max-width:760px;overflow-wrap:anywhere}
.speceyes .r{display:flex;flex-wrap:wrap;gap:10px;align-items:flex-start}
.speceyes .p{position:relative;display:inline-block;line-height:0}
.speceyes .p img{max-width:100%;border-radius:4px}
.speceyes .b{position:absolute;box-sizing:border-box;border:2px solid #ff5d5d;
box-shadow:0 0 0 1px rgba(0,0,0,.5)}
.speceyes .m{opacity:.7}.speceyes .t{font-weight:600}
.speceyes .g{flex:1 1 240px;min-width:0}
.speceyes .k{display:inline-block;border-radius:9px;padding:0 8px;color:#fff}
.speceyes .l{position:relative;height:8px;border-radius:4px;background:rgba(128,128,128,.3);
display:flex;overflow:hidden;margin:3px 0}
.speceyes .l i{display:block;height:100%}
.speceyes .l u{position:absolute;top:0;width:2px;height:100%;background:currentColor}
.speceyes table{border-collapse:collapse;margin:4px 0;font:inherit;color:inherit}
.speceyes td,.speceyes th{padding:1px 10px 1px 0;text-align:left;vertical-align:top;
border:0;background:none}
</style>"""


def card(*parts: str) -> str:
    """Parts in one box, with its style."""
    return f'{_STYLE}<div class="speceyes">{"".join(parts)}</div>'


def _text(text: object) -> str:
    whole = str(text)
    return escape(whole if len(whole) <= _LONGEST else whole[: _LONGEST - 1] + "…")


def _picture(image: Image, side: int, boxes: Sequence[Box] = ()) -> str:
    """An image with boxes, given in fractions 0 to 1 of it."""
    small = image.convert("RGB")
    small.thumbnail((side, side))
    marks = "".join(
        f'<span class="b" style="left:{x0:.1%};top:{y0:.1%};width:{x1 - x0:.1%};'
        f'height:{y1 - y0:.1%}"></span>'
        for x0, y0, x1, y1 in boxes
    )
    return (
        f'<span class="p"><img alt="" width="{small.width}" height="{small.height}" '
        f'src="{data_url(small, "JPEG", quality=75)}">{marks}</span>'
    )


def _scene(images: Sequence[Image], trajectory: Trajectory | None) -> str:
    crops = zoomed(images, trajectory)
    shown = [
        _picture(image, _SCENE, [box for _, of, box in crops if of == at and box is not None])
        for at, image in enumerate(images)
    ]
    shown += [_picture(crop, _CROP) for crop, _, _ in crops[:_MOST_CROPS]]
    if len(crops) > _MOST_CROPS:
        shown.append(f'<span class="m">and {len(crops) - _MOST_CROPS} more</span>')
    return "".join(shown)


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def _at(score: float) -> float:
    """Place of a score on a bar, 0 to 1: by its log-odds, for scores crowd near 1."""
    inside = min(max(score, 1e-4), 1 - 1e-4)
    return 0.5 + math.log(inside / (1 - inside)) / (2 * math.log((1 - 1e-4) / 1e-4))


def _gate(result: Result) -> str:
    verdict = result.verdict
    if verdict is None:
        return ""
    if verdict.score is None or math.isnan(verdict.score):
        return f"<div>gate: rejected, {_text(verdict.reason or 'no score')}</div>"
    sign, colour = ("≥", COLOURS["draft"]) if verdict.accepted else ("&lt;", COLOURS["error"])
    bar = (
        f'<div class="l"><i style="width:{_at(verdict.score):.1%};background:{colour}"></i>'
        f'<u style="left:{_at(verdict.threshold):.1%}"></u></div>'
    )
    said = "accepted" if verdict.accepted else "rejected"
    return f"<div>gate: {verdict.score:.4g} {sign} {verdict.threshold:.4g}, {said}{bar}</div>"


def _times(result: Result) -> str:
    spent = [(name, getattr(result.timings, name), colour) for name, colour in _PHASES]
    there = [(name, seconds, colour) for name, seconds, colour in spent if seconds]
    whole = sum(seconds for _, seconds, _ in there)
    if not whole:
        return ""
    bar = "".join(
        f'<i style="width:{seconds / whole:.1%};background:{colour}" title="{name}"></i>'
        for name, seconds, colour in there
    )
    words = ", ".join(f"{name} {_seconds(seconds)}" for name, seconds, _ in there)
    waited = result.timings.latency
    late = "" if waited is None else f"; {_seconds(waited)} from question to answer"
    return f'<div class="m">{words}{late}<div class="l">{bar}</div></div>'


def result_html(result: Result, images: Sequence[Image] = ()) -> str:
    """A result: scene with boxes, crops, both answers, score against threshold, route, time."""
    answer = "no answer" if result.answer is None else result.answer
    name = "accepted draft" if result.route == "draft" else result.route
    lines = [
        f'<div><span class="k" style="background:{COLOURS[result.route]}">{_text(name)}</span> '
        f'<span class="t">{_text(answer)}</span></div>'
    ]
    if result.error is not None:
        lines.append(f"<div>{_text(result.error)}</div>")
    if result.judgement is not None:
        told = "needs tools" if result.judgement.needs_tools else "needs no tools"
        lines.append(f"<div>judge: {told}</div>")
    if result.draft is not None:
        lines.append(f"<div>draft: {_text(result.draft.text.strip() or '–')}</div>")
    lines.append(_gate(result))
    way = result.trajectory
    if way is not None:
        said = "no answer" if way.answer is None else way.answer
        lines.append(f"<div>agent: {_text(said)} {_steps(way)}</div>")
    lines.append(_times(result))
    body = f'<div class="g">{"".join(lines)}</div>'
    return card(f'<div class="r">{_scene(images, way)}{body}</div>')


def _steps(way: Trajectory) -> str:
    turns, calls = len(way.steps), way.depth
    return (
        f'<span class="m">({turns} turn{"s" * (turns != 1)}, {calls} tool '
        f"call{'s' * (calls != 1)}, {way.tokens} tokens)</span>"
    )


def trajectory_html(way: Trajectory, images: Sequence[Image] = ()) -> str:
    """A trajectory, turn by turn, with what each tool returned."""
    said = "no answer" if way.answer is None else way.answer
    lines = [f'<div><span class="t">{_text(said)}</span> {_steps(way)}</div>']
    if way.error is not None:
        lines.append(f"<div>{_text(way.error)}</div>")
    for number, step in enumerate(way.steps, 1):
        lines.append(f'<div class="m">turn {number}</div><div>{_text(step.text.strip())}</div>')
        for observation in step.observations:
            if observation.error is not None:
                lines.append(f"<div>tool: {_text(observation.error)}</div>")
            lines += [_picture(image, _CROP) for image in observation.images]
    return card(_scene(images, None), *lines)


def rows_html(title: str, rows: Iterable[tuple[str, object]], *, below: str = "") -> str:
    """A title over names with their values."""
    body = "".join(
        f"<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>" for name, value in rows
    )
    return card(f'<div class="t">{_text(title)}</div><table>{body}</table>{below}')


def settings_html(settings: Any) -> str:
    """A frozen object of settings: every field, and which were changed."""
    rows = []
    for one in dataclasses.fields(settings):
        value = getattr(settings, one.name)
        default = one.default
        if one.default_factory is not dataclasses.MISSING:
            default = one.default_factory()
        rows.append((one.name, f"{value!r}" + ("" if value == default else "  (set)")))
    return rows_html(type(settings).__name__, rows)


def calibration_html(found: Any) -> str:
    """A calibration: its statement, its figures, and risk over thresholds."""
    share = found.accepted / max(1, found.n)
    rows = [
        ("threshold", "none certified" if found.threshold is None else f"{found.threshold:.6g}"),
        ("accepted", f"{found.accepted} of {found.n} ({share:.1%})"),
        ("bad among them", found.bad),
        ("risk", f"{found.risk}, below {found.target:.1%}"),
        ("method", found.method),
    ]
    return rows_html("Calibration", rows, below=f"<div>{_text(found.statement)}</div>")


def report_html(results: Sequence[Result], seconds: float, efficiency: Any) -> str:
    """A run: routes, time, and what was gained."""
    routes = Counter(result.route for result in results)
    n = max(1, len(results))
    bar = "".join(
        f'<i style="width:{routes[route] / n:.1%};background:{colour}" title="{route}"></i>'
        for route, colour in COLOURS.items()
        if routes[route]
    )
    names = {"draft": "accepted drafts", "agent": "by the agent", "error": "failed"}
    rows: list[tuple[str, object]] = [
        (names[route], f"{routes[route]} ({routes[route] / n:.0%})")
        for route in COLOURS
        if routes[route]
    ]
    rows.append(
        ("time", f"{seconds:.2f} s, {len(results) / seconds:.2f} a second" if seconds else "–")
    )
    if efficiency.gain is not None:
        rows.append(("gain over the agent, by its costs", f"{efficiency.gain:.2f} times"))
    return rows_html(f"{len(results)} queries", rows, below=f'<div class="l">{bar}</div>')


def plot(results: Sequence[Result]) -> Any:
    """A matplotlib figure of a run: routes, scores against the threshold, and latencies.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        figures: Any = importlib.import_module("matplotlib.figure")
        if in_notebook():  # which teaches the notebook to show figures
            importlib.import_module("matplotlib.pyplot")
    except ImportError:
        raise ConfigError("a plot needs matplotlib: pip install matplotlib") from None
    figure = figures.Figure(figsize=(10, 3), layout="constrained")
    routes, scores, times = figure.subplots(1, 3)
    counts = Counter(result.route for result in results)
    there = [route for route in COLOURS if counts[route]]
    routes.bar(there, [counts[r] for r in there], color=[COLOURS[r] for r in there])
    routes.set(title="routes", ylabel="queries")
    judged = [
        (v.score, v)
        for v in (r.verdict for r in results)
        if v is not None and v.score is not None and not math.isnan(v.score)
    ]
    bins = [i / 40 for i in range(41)]
    for accepted, colour in ((True, COLOURS["draft"]), (False, COLOURS["agent"])):
        some = [_at(score) for score, v in judged if v.accepted == accepted]
        scores.hist(some, bins, color=colour, label="accepted" if accepted else "rejected")
    for threshold in {v.threshold for _, v in judged}:
        scores.axvline(_at(threshold), color="gray", linestyle="--")
    marks = (0.01, 0.1, 0.5, 0.9, 0.99, 0.999)
    scores.set_xticks([_at(mark) for mark in marks], [f"{mark:g}" for mark in marks])
    scores.set(title="score, dashed: threshold", xlim=(0, 1))
    if judged:
        scores.legend(fontsize="small")
    for route in there:
        waited = [r.timings.latency for r in results if r.route == route and r.timings.latency]
        times.hist(waited, 20, color=COLOURS[route], alpha=0.7, label=route)
    times.set(title="seconds to the answer")
    return figure


def show(html: str, text: str) -> None:
    """Displays the HTML where a notebook runs this, and prints the text elsewhere."""
    if in_notebook():
        display: Any = importlib.import_module("IPython.display")
        display.display(display.HTML(html))
    else:
        sys.stdout.write(text + "\n")


def in_notebook() -> bool:
    """True in a Jupyter kernel; nothing is imported to find out."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and "IPKernelApp" in getattr(shell, "config", {})


def result_text(result: Result) -> str:
    """A result in a line or two."""
    verdict, gate = result.verdict, ""
    if verdict is not None and verdict.score is not None:
        gate = f", score {verdict.score:.4g} against {verdict.threshold:.4g}"
    head = f"{result.answer if result.answer is not None else 'no answer'}  [{result.route}{gate}]"
    return head if result.error is None else f"{head}\n{result.error}"
