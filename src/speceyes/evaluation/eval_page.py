"""The evaluation's page: one HTML file that needs nothing but itself.

Pictures are drawn here; queries travel as JSON, and the page draws only those in sight, so that
thousands of them open at once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

from speceyes.evaluation import arms as known
from speceyes.evaluation import plots
from speceyes.evaluation.ablations import ablations, ends
from speceyes.evaluation.analysis import route
from speceyes.evaluation.arms import BASELINE
from speceyes.evaluation.eval_report import Made, share, times
from speceyes.evaluation.page import fill
from speceyes.evaluation.runs import TEST, Record, Run
from speceyes.evaluation.verdict import verdict
from speceyes.scoring.scales import to_raw
from speceyes.scoring.scores import AGGREGATES

TEMPLATE: Final = Path(__file__).with_name("eval_page.html")
MOST_PICTURES: Final = 20 << 20
"""Bytes of pictures on a page, as base64; queries after that are shown without."""
_LONGEST: Final = 700
"""Characters shown of a turn."""


def page(made: Sequence[Made]) -> str:
    """The whole page.

    Args:
        made: Runs with their figures.
    """
    queries: list[dict[str, Any]] = []
    left = MOST_PICTURES
    for number, (run, _) in enumerate(made):
        found = _queries(run, number)
        for picture in run.pictures():
            query = found.get(picture["query_id"])
            size = sum(map(len, picture["images"])) + sum(len(c["jpeg"]) for c in picture["crops"])
            if query is None or size > left:
                continue
            left -= size
            query["pictures"] = picture["images"]
            query["crops"] = [[c["jpeg"], c["of"], c["box"]] for c in picture["crops"]]
        queries += found.values()
    data = {
        "runs": [run.folder.name for run, _ in made],
        "titles": {a: known.arm(a).title for _, f in made for a in f["arms"]},
        "queries": queries,
    }
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # Nothing in the data may end the element that holds it.
    text = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    sections = "\n".join(_section(run, found) for run, found in made)
    return fill(TEMPLATE, sections=sections, data=text)


def _queries(run: Run, number: int) -> dict[str, dict[str, Any]]:
    """The fields that the browser shows of each query, by id."""
    found: dict[str, dict[str, Any]] = {}
    for record in run.records:
        if record.phase != TEST:
            continue
        name = record.result.query_id
        one = found.setdefault(
            name,
            {
                "id": name,
                "run": number,
                "kind": record.kind,
                "question": record.question,
                "gold": record.gold,
                "arms": {},
            },
        )
        one["arms"][record.arm] = _arm(record)
        way = record.result.trajectory
        if record.arm == BASELINE and way is not None:
            one["turns"] = [_turn(step) for step in way.steps]
    return found


def _turn(step: Any) -> str:
    said = step.text.strip()
    said = said if len(said) <= _LONGEST else said[:_LONGEST] + " ..."
    wrong = [f"[{o.error}]" for o in step.observations if o.error]
    return "\n".join([said, *wrong])


def _arm(record: Record) -> dict[str, Any]:
    result = record.result
    found: dict[str, Any] = {
        "ok": int(record.correct),
        "route": route(record),
        "answer": result.answer,
        "ms": round(1e3 * record.seconds, 1),
    }
    if result.verdict is not None and result.verdict.score is not None:
        found["score"] = round(result.verdict.score, 5)
        found["threshold"] = round(result.verdict.threshold, 5)
    if result.draft is not None and result.route == "agent":
        found["draft"] = result.draft.text.strip()[:_LONGEST]
    if result.trajectory is not None:
        found["calls"] = result.trajectory.depth
    if result.error is not None:
        found["error"] = result.error[:_LONGEST]
    return found


def _section(run: Run, found: Mapping[str, Any]) -> str:
    """A run's figures: a table and all pictures."""
    fixed, time = run.fixed, found["time"]
    titles = {a: known.arm(a).title for a in found["arms"]}
    rows = "".join(
        f"<tr><th>{escape(titles[a])}</th><td>{share(arm)}</td>"
        f"<td>{times(time['arms'][a]['gain'])}</td><td>{arm['failed']}</td>"
        f"<td>{1e3 * time['arms'][a]['p50'][0]:.0f} / {1e3 * time['arms'][a]['p95'][0]:.0f}</td>"
        f"<td>{arm['calls'][0]:.2f}</td></tr>"
        for a, arm in found["arms"].items()
    )
    panels = [
        ("Accuracy against speed", _trade(found, titles)),
        ("Risk against coverage", _risk(found)),
        *((f"Scores of drafts: {a}", _density(found, a)) for a in AGGREGATES),
        *((one.title, one.svg) for one in ablations(found)),
        ("Accuracy of the last 50 queries", _rolling(found, titles)),
        (
            "Where the time goes",
            plots.stacked({titles[a]: parts for a, parts in time["phases"].items()}),
        ),
        (
            "Depth of the agent alone",
            plots.columns(found["depths"], "tool calls before the answer", "queries"),
        ),
    ]
    drawn = "".join(
        f"<figure><figcaption>{escape(name)}</figcaption>{svg}</figure>"
        for name, svg in panels
        if svg
    )
    models = fixed["models"]
    about = (
        f"{fixed['benchmark']['name']}, {found['n']} test queries, {found['calibration_n']} for "
        f"calibration; agent {models['large']['name']}, drafts {models['small']['name']}"
    )
    parity = (
        "<p><b>Parity</b>: published order of options, published prompts.</p>"
        if fixed["benchmark"]["parity"]
        else ""
    )
    return (
        f"<section><h2>{escape(run.folder.name)}</h2>{_verdict(found)}<p>{escape(about)}</p>{parity}"
        "<div class='wide'><table><thead><tr><th></th><th>accuracy, % (95 %)</th>"
        "<th>speed over the agent (95 %)</th><th>failed</th><th>p50 / p95, ms</th>"
        f"<th>tool calls</th></tr></thead><tbody>{rows}</tbody></table></div>"
        f"<div class='grid'>{drawn}</div></section>"
    )


def _verdict(found: Mapping[str, Any]) -> str:
    """The verdict as a paragraph; what stands between ** is bold."""
    parts = escape(" ".join(verdict(found))).split("**")
    text = "".join(f"<b>{part}</b>" if at % 2 else part for at, part in enumerate(parts))
    return f"<p class='verdict'>{text}</p>" if text else ""


def _trade(found: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    points = {
        titles[a]: (
            ends(found["time"]["arms"][a]["gain"]),
            (arm["accuracy"], arm["low"], arm["high"]),
        )
        for a, arm in found["arms"].items()
    }
    return plots.scatter(points, "speed over the agent alone", "accuracy")


def _risk(found: Mapping[str, Any]) -> str:
    curves = {a: [(x, y) for x, y in s["curve"]] for a, s in found["scores"].items()}
    return plots.lines(curves, "share of drafts accepted", "wrong among them", share=True)


def _density(found: Mapping[str, Any], aggregate: Any) -> str:
    scores = found["scores"][aggregate]
    mark = to_raw(found["thresholds"][aggregate], log=aggregate == "log")
    unit = "mean log-probability, nats" if aggregate == "log" else "separability S"
    return plots.density(scores["right"], scores["wrong"], mark, unit)


def _rolling(found: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    curves = {titles[a]: [(x, y) for x, y in rows] for a, rows in found["rolling"].items()}
    return plots.lines(curves, "queries", "accuracy", share=True)
