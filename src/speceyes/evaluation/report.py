"""The demo's page: one HTML file that needs nothing but itself, for people to look at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, final

from speceyes.encoded import data_url
from speceyes.evaluation import plots
from speceyes.evaluation.flow import funnel
from speceyes.evaluation.page import fill
from speceyes.evaluation.row import Item, Row, needed_tools
from speceyes.evaluation.summary import BASE, NAMES, verdict
from speceyes.looked import zoomed
from speceyes.types import Box, Image, Trajectory

TEMPLATE = Path(__file__).with_name("report_page.html")
ROUTES = {
    "accepted": "answered by the draft",
    "rejected": "draft rejected, agent answered",
    "tools": "needed tools, agent answered",
    "error": "failed",
}
SCENE_SIDE = 288
"""Longest side in pixels of a scene on the page; the page shows it at about 224."""
CROP_SIDE = 144
MOST_CROPS = 8
MOST_CARDS = 1000
"""Queries shown one by one; a page of more would be slow to open."""


def _picture(image: Image, side: int) -> str:
    """The image as a small JPEG in a data URL."""
    small = image.convert("RGB")
    small.thumbnail((side, side))
    return data_url(small, "JPEG", quality=80, optimize=True)


def _scenes(images: Sequence[Image], crops: Sequence[tuple[Image, int, Box | None]]) -> str:
    """The query's images with the boxes that were zoomed, and the crops beside them."""
    parts = []
    for at, image in enumerate(images):
        spots = [
            f'x="{100 * b[0]:.2f}" y="{100 * b[1]:.2f}" width="{100 * (b[2] - b[0]):.2f}" '
            f'height="{100 * (b[3] - b[1]):.2f}"'
            for _, root, b in crops
            if b is not None and root == at
        ]
        boxes = [f'<rect class="{css}" {spot}/>' for spot in spots for css in ("edge", "line")]
        parts.append(
            f'<div class="scene"><img src="{_picture(image, SCENE_SIDE)}" alt="the image" '
            f'loading="lazy"><svg viewBox="0 0 100 100" preserveAspectRatio="none" '
            f'aria-hidden="true">{"".join(boxes)}</svg></div>'
        )
    shown = "".join(
        f'<img src="{_picture(crop, CROP_SIDE)}" alt="crop {at}" loading="lazy" '
        f'title="crop {at}: {crop.width} x {crop.height} px">'
        for at, (crop, _, _) in enumerate(crops[:MOST_CROPS], start=1)
    )
    return f'<div class="views">{"".join(parts)}<div class="crops">{shown}</div></div>'


def _said(label: str, answer: str | None, correct: bool, note: str = "") -> str:
    mark, css = ("✓", "right") if correct else ("✗", "wrong")
    text = escape(answer) if answer else "<i>no answer</i>"
    aside = f' <span class="aside">{escape(note)}</span>' if note else ""
    return f'<dt>{label}</dt><dd><b class="{css}">{mark}</b> {text}{aside}</dd>'


def _words(trajectory: Trajectory | None, whose: str) -> str:
    """The agent's text, turn by turn."""
    if trajectory is None:
        return ""
    turns = "".join(
        f"<li><pre>{escape(step.text.strip())}</pre>"
        + "".join(f"<p>{escape(o.error)}</p>" for o in step.observations if o.error)
        + "</li>"
        for step in trajectory.steps
    )
    count = f"turns: {len(trajectory.steps)}, tool calls: {trajectory.depth}"
    return f"<details><summary>{escape(whose)} ({count})</summary><ol>{turns}</ol></details>"


def route_of(row: Row) -> str:
    """The funnel's way with a query: one of `ROUTES`."""
    result = row.result
    if result.answer is None:
        return "error"
    if result.route == "draft":
        return "accepted"
    return "tools" if result.draft is None or needed_tools(result) else "rejected"


@final
class _Card:
    """A query on the page; its score bar waits for the scale of all scores."""

    def __init__(self, item: Item, rows: Mapping[str, Row]) -> None:
        funnel, agent, draft = rows["funnel"], rows["agent"], rows["draft"]
        own = funnel.result.trajectory
        way = own or agent.result.trajectory
        route = route_of(funnel)
        judged, verdict = funnel.result.judgement, draft.result.verdict
        self.raw = verdict.separability if verdict else None
        self.score = verdict.score if verdict else None
        self.why = verdict.reason if verdict else ""
        differs = funnel.correct != agent.correct
        outcome = " ".join(
            word
            for word, holds in (
                ("right", funnel.correct),
                ("wrong", not funnel.correct),
                ("differs", differs),
            )
            if holds
        )
        asked = ""
        if judged is not None:
            p = "" if judged.p_tools is None else f", p(tools) = {judged.p_tools:.2f}"
            asked = f"<dt>Judge</dt><dd>{'tools' if judged.needs_tools else 'no tools'}{p}</dd>"
        unused = "" if route == "accepted" else "not used"
        self.head = (
            f'<article data-route="{route}" data-outcome="{outcome}" '
            f'data-kind="{escape(item.kind)}" data-text="{escape(item.query.text.lower())}">'
            f'<header><span class="badge {route}">{ROUTES[route]}</span>'
            f'<span class="kind">{escape(item.kind)} · {escape(item.query.id)}</span></header>'
            f"<h3>{escape(item.query.text)}</h3>"
            f"{_scenes(item.query.images, zoomed(item.query.images, way))}"
            f"<dl><dt>Right answer</dt><dd>{escape(item.answer)}</dd>{asked}"
            f"{_said('Draft', draft.result.answer, draft.correct, unused)}"
            f"{_said('Agent alone', agent.result.answer, agent.correct)}"
            f"{_said('Funnel', funnel.result.answer, funnel.correct)}</dl>"
        )
        whose = "The agent, in the funnel" if own else "The agent alone (the funnel spared it)"
        self.tail = f"{_words(way, whose)}</article>"

    def html(self, low: float, high: float, threshold: float) -> str:
        """The card, its score drawn on the scale from low to high."""

        def share(raw: float) -> float:
            return 100 * (min(max(raw, low), high) - low) / (high - low)

        if self.raw is None or self.score is None:
            bar = f'<p class="score-text">no score: {escape(self.why or "no draft")}</p>'
        else:
            css = "over" if self.raw >= threshold else "under"
            bar = (
                f'<div class="score {css}"><i style="width:{share(self.raw):.1f}%"></i>'
                f'<u style="left:{share(threshold):.1f}%"></u></div>'
                f'<p class="score-text">score {self.score:.4g} (raw {self.raw:.2f}, '
                f"threshold {threshold:.2f})</p>"
            )
        return self.head + bar + self.tail


@final
class Page:
    """Collects queries as they are finished, and becomes the page.

    Pictures are made small as they come, so that no scene has to be kept.
    """

    def __init__(self) -> None:
        self._cards: list[_Card] = []
        self._drafts: list[tuple[float, bool]] = []
        self._left_out = 0

    def add(self, items: Iterable[Item], rows: Iterable[Row]) -> None:
        """Adds queries with their rows of all arms."""
        by_id: dict[str, dict[str, Row]] = {}
        for row in rows:
            by_id.setdefault(row.result.query_id, {})[row.arm] = row
        for item in items:
            arms = by_id[item.query.id]
            verdict = arms["draft"].result.verdict
            if verdict is not None and verdict.separability is not None:
                self._drafts.append((verdict.separability, arms["draft"].correct))
            if len(self._cards) < MOST_CARDS:
                self._cards.append(_Card(item, arms))
            else:
                self._left_out += 1

    def html(self, summary: Mapping[str, Any], raw_threshold: float) -> str:
        """The page.

        Args:
            summary: As `summarise` makes it, with `gate` and `machine` added.
            raw_threshold: The gate's threshold on the raw scale.
        """
        raw = sorted(score for score, _ in self._drafts) or [0.0]
        low = min(0.0, raw[0], raw_threshold) if abs(raw_threshold) < 1e9 else min(0.0, raw[0])
        high = max(raw[int(0.95 * (len(raw) - 1))], low + 1e-9)
        high = max(high, 1.25 * raw_threshold) if abs(raw_threshold) < 1e9 else high
        arms, counts = summary["arms"], summary["counts"]
        unit = (
            "mean log-probability, nats"
            if summary["gate"]["aggregate"] == "log"
            else "separability S"
        )
        auroc = summary["draft_auroc"]
        filled = {
            "headline": _headline(summary),
            "tiles": _tiles(summary),
            "funnel": funnel(counts),
            "speed": plots.scatter(_trade(arms), "queries a second", "accuracy", log_x=True),
            "scores": plots.density(
                [score for score, right in self._drafts if right],
                [score for score, right in self._drafts if not right],
                raw_threshold,
                unit,
            ),
            "auroc": "" if auroc is None else f" AUROC {auroc:.3f}.",
            "arms": _arms_table(arms),
            "gains": _gains_table(summary),
            "costs": _costs(summary),
            "kinds_table": _kinds_table(summary["kinds"]),
            "routes": _options(ROUTES),
            "kinds": _options({kind: kind for kind in summary["kinds"]}),
            "left_out": f" The last {self._left_out} are left out." if self._left_out else "",
            "cards": "\n".join(card.html(low, high, raw_threshold) for card in self._cards),
            "about": _about(summary),
        }
        return fill(TEMPLATE, **filled)


def _trade(
    arms: Mapping[str, Mapping[str, Any]],
) -> dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]]:
    """Each arm's throughput, and its accuracy with the interval."""
    return {
        NAMES[name]: (
            (arm["queries_per_s"],) * 3,
            (arm["accuracy"], arm["accuracy_low"], arm["accuracy_high"]),
        )
        for name, arm in arms.items()
    }


def _options(names: Mapping[str, str]) -> str:
    return "".join(
        f'<option value="{escape(value)}">{escape(name)}</option>' for value, name in names.items()
    )


def _headline(summary: Mapping[str, Any]) -> str:
    funnel, agent = summary["arms"]["funnel"], summary["arms"]["agent"]
    broken = [one for one in summary.get("failures", ()) if one["failed"] == one["n"]]
    if broken:
        names = escape("; ".join(one["arm"] for one in broken))
        return f"<b>Every query failed</b> in {names}: {escape(broken[0]['first'])}"
    batches = summary["arms"][BASE]["queries_per_s"] / agent["queries_per_s"]
    cut = "The run was interrupted; of what was finished, " if summary.get("interrupted") else ""
    start = "the" if cut else "The"
    parts = escape(" ".join(verdict(summary))).split("**")
    first = "".join(f"<b>{part}</b>" if at % 2 else part for at, part in enumerate(parts))
    return (
        f"{first} {cut}{start} funnel was right on <b>{funnel['accuracy']:.1%}</b> of "
        f"{funnel['n']} questions, the agent alone on {agent['accuracy']:.1%}. Over the agent one "
        f"query at a time it was {summary['measured_gain']:.2f} times as fast, of which batches "
        f"alone gave {batches:.2f}."
    )


def _ends(gain: Sequence[float | None], rounds: int) -> str:
    _, low, high = gain
    return f"in {rounds} rounds" if low is None else f"95% {low:.2f} to {high:.2f}"


def _tiles(summary: Mapping[str, Any]) -> str:
    arms, counts = summary["arms"], summary["counts"]
    funnel, who = arms["funnel"], "draft" if summary["cost_model"]["one_pass"] else "judge"
    tiles = [
        (
            f"{summary['gain_over_batched'][0]:.2f}×",
            "speed over the agent in batches",
            _ends(summary["gain_over_batched"], summary["rounds"]),
        ),
        (
            f"{funnel['accuracy']:.1%}",
            "accuracy of the funnel",
            f"95% {funnel['accuracy_low']:.1%} to {funnel['accuracy_high']:.1%}",
        ),
        (f"{summary['beta']:.0%}", f"β: the {who} saw no need of tools",
         f"{counts['drafted']} of {counts['queries']}"),
        (f"{summary['alpha']:.0%}", "α, of those accepted by the gate",
         f"{counts['accepted']} of {counts['drafted']}"),
    ]  # fmt: skip
    return "".join(
        f'<div class="tile"><b>{value}</b><span>{label}</span><small>{small}</small></div>'
        for value, label, small in tiles
    )


def _arms_table(arms: Mapping[str, Mapping[str, Any]]) -> str:
    base = arms[BASE]["queries_per_s"]
    return "".join(
        f'<tr class="{name}"><th>{NAMES[name]}</th><td>{arm["accuracy"]:.1%} '
        f"<small>{arm['accuracy_low']:.1%} to {arm['accuracy_high']:.1%}</small></td>"
        f"<td>{1e3 * arm['mean_s']:.0f} ms</td><td>{1e3 * arm['p95_s']:.0f} ms</td>"
        f"<td>{arm['queries_per_s']:.1f}</td><td>{arm['queries_per_s'] / base:.2f}×</td></tr>"
        for name, arm in arms.items()
    )


def _gains_table(summary: Mapping[str, Any]) -> str:
    return "".join(
        f'<tr><th>{NAMES[row["against"]]}</th><td class="words">{escape(row["fallback"])}</td>'
        f"<td>{1e3 * row['l_agent_s']:.1f} ms</td><td>{row['predicted']:.2f}×</td>"
        f"<td>{'-' if row['measured'] is None else format(row['measured'], '.2f') + '×'}</td></tr>"
        for row in reversed(summary["gains"])
    )


def _costs(summary: Mapping[str, Any]) -> str:
    costs = summary["cost_model"]
    one = costs["one_pass"]
    judged = "" if one else f"c<sub>J</sub> = {1e3 * costs['c_judge_s']:.1f} ms and "
    front = "c_S" if one else "c_J + β c_S"
    return (
        f"<code>E[L] = {front} + (1 − βα) L_agent</code>. Measured: {judged}"
        f"c<sub>S</sub> = {1e3 * costs['c_draft_s']:.1f} ms a query inside the funnel, "
        f"β = {summary['beta']:.3f}, α = {summary['alpha']:.3f}."
    )


def _kinds_table(kinds: Mapping[str, Mapping[str, float]]) -> str:
    return "".join(
        f"<tr><th>{escape(kind)}</th><td>{row['n']:.0f}</td>"
        + "".join(f"<td>{row[arm]:.0%}</td>" for arm in ("agent", "draft", "funnel"))
        + "</tr>"
        for kind, row in kinds.items()
    )


def _about(summary: Mapping[str, Any]) -> str:
    gate, machine = summary["gate"], summary["machine"]
    against = summary["agent_against_funnel"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return escape(
        f"Gate: threshold {gate['threshold']:g}, K = {gate['top_k']}, {gate['aggregate']}. "
        f"Only the agent was right on {against['only_agent_right']} queries, only the funnel on "
        f"{against['only_funnel_right']} (exact McNemar p = {against['mcnemar_p']:.2g}). "
        f"{machine['system']}, {machine['cpus']} CPUs, {versions}. "
        f"Started {summary['started']}."
    )
