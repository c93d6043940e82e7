"""What the rows of a run add up to: accuracy, latency, routes, and what the gain should be.

The cost model is Sec. 3.4 of SpecEyes (arXiv 2603.23483):
E[L] = c_J + beta c_S + (1 - beta alpha) L_agent, with c_J and c_S measured inside the funnel.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from speceyes.errors import InputError
from speceyes.evaluation.row import Row
from speceyes.evaluation.statistics import (
    auroc,
    mcnemar_exact,
    paired_bootstrap_ratio,
    percentile,
    wilson_interval,
)

ARMS = ("agent", "agent_batched", "draft", "funnel")
"""The agent one query at a time, the agent in batches, the small model alone, the funnel."""


def _mean(values: Iterable[float | None]) -> float:
    """Mean of what was measured; 0 where nothing was, as a phase that never ran costs nothing."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else 0.0


def _arm(rows: Sequence[Row], wall_s: float) -> dict[str, Any]:
    right = sum(row.correct for row in rows)
    low, high = wilson_interval(right, len(rows))
    seconds = [row.seconds for row in rows]
    return {
        "n": len(rows),
        "correct": right,
        "failed": sum(row.result.answer is None for row in rows),
        "accuracy": right / len(rows),
        "accuracy_low": low,
        "accuracy_high": high,
        "mean_s": _mean(seconds),
        "p95_s": percentile(seconds, 95),
        "queries_per_s": len(rows) / wall_s,
        "wall_s": wall_s,
    }


def _counts(funnel: Sequence[Row]) -> dict[str, int]:
    """How many queries went which way; each phase's parts add up to what reached it."""
    free = [row.result for row in funnel if row.result.draft is not None]
    accepted = sum(result.route == "draft" for result in free)
    return {
        "queries": len(funnel),
        "tools_needed": len(funnel) - len(free),
        "drafted": len(free),
        "accepted": accepted,
        "rejected": len(free) - accepted,
    }


def _gains(
    funnel: Sequence[Row], agent: Sequence[Row], arms: Mapping[str, Any], counts: Mapping[str, int]
) -> dict[str, Any]:
    """The cost model's parts in seconds a query, and predicted gains beside measured ones."""
    timings = [row.result.timings for row in funnel]
    beta = counts["drafted"] / counts["queries"]
    alpha = counts["accepted"] / counts["drafted"] if counts["drafted"] else 0.0
    c_judge = _mean(t.judge for t in timings)
    c_draft = _mean(t.draft for t in timings) + _mean(t.gate for t in timings)
    one, batched, whole = (
        1 / arms[a]["queries_per_s"] for a in ("agent", "agent_batched", "funnel")
    )
    sent = {row.result.query_id for row in funnel if row.result.route != "draft"}
    hard = _mean(row.seconds for row in agent if row.result.query_id in sent)

    def gain(base: float, fallback: float) -> float:
        return base / (c_judge + beta * c_draft + (1 - beta * alpha) * fallback)

    by_id = {row.result.query_id: row for row in agent}
    spent = [t.judge or 0.0 for t in timings]
    spent = [s + (t.draft or 0.0) + (t.gate or 0.0) for s, t in zip(spent, timings, strict=True)]
    spent = [s + (t.fallback or 0.0) for s, t in zip(spent, timings, strict=True)]
    _, low, high = paired_bootstrap_ratio(
        [by_id[row.result.query_id].seconds for row in funnel], spent
    )
    return {
        "beta": beta,
        "alpha": alpha,
        "predicted_gain": gain(one, one),
        "measured_gain": one / whole,
        "measured_gain_low": low,
        "measured_gain_high": high,
        "cost_model": {
            "c_judge_s": c_judge,
            "c_draft_s": c_draft,
            "l_agent_s": one,
            "l_agent_batched_s": batched,
            "l_agent_on_fallback_s": hard,
            "bound_1_over_1_minus_beta_alpha": _bound(beta * alpha),
        },
        "gains": [
            {
                "against": "agent",
                "fallback": "one by one, mean of all queries",
                "l_agent_s": one,
                "predicted": gain(one, one),
                "measured": one / whole,
            },
            {
                "against": "agent",
                "fallback": "one by one, mean of the queries that fell back",
                "l_agent_s": hard,
                "predicted": gain(one, hard),
                "measured": one / whole,
            },
            {
                "against": "agent",
                "fallback": "batched, as the funnel runs it",
                "l_agent_s": batched,
                "predicted": gain(one, batched),
                "measured": one / whole,
            },
            {
                "against": "agent_batched",
                "fallback": "batched, as the funnel runs it",
                "l_agent_s": batched,
                "predicted": gain(batched, batched),
                "measured": batched / whole,
            },
        ],
    }


def _bound(accepted: float) -> float | None:
    """The paper's throughput bound, which forgets what judge and draft cost; None at infinity."""
    return 1 / (1 - accepted) if accepted < 1 else None


def _separation(draft: Sequence[Row]) -> float | None:
    """AUROC of the drafts' separability for right against wrong; None where all are one kind."""
    scored = [
        (row.result.verdict.separability, row.correct)
        for row in draft
        if row.result.verdict is not None and row.result.verdict.separability is not None
    ]
    try:
        return auroc([s for s, _ in scored], [right for _, right in scored])
    except InputError:
        return None


def _kinds(by_arm: Mapping[str, Sequence[Row]]) -> dict[str, dict[str, float]]:
    """Accuracy of each arm on each kind of question, and how many there were."""
    kinds = sorted({row.kind for row in by_arm["agent"]})
    table: dict[str, dict[str, float]] = {}
    for kind in kinds:
        table[kind] = {
            arm: _mean(float(row.correct) for row in rows if row.kind == kind)
            for arm, rows in by_arm.items()
        }
        table[kind]["n"] = sum(row.kind == kind for row in by_arm["agent"])
    return table


def summarise(rows: Iterable[Row], wall_s: Mapping[str, float]) -> dict[str, Any]:
    """Every figure of a run, ready for JSON.

    Args:
        rows: The rows of all four `ARMS` on the same queries.
        wall_s: Seconds that each arm ran.

    Returns:
        `arms.<name>` with accuracy and its 95% Wilson interval, latency and throughput;
        `routes`, `counts`, `beta` (share the judge lets through), `alpha` (share of those that
        the gate accepts), the gains, `kinds`, `draft_auroc`, and `agent_against_funnel` with
        the exact McNemar p-value. The interval of `measured_gain` is a paired bootstrap over
        queries, of the seconds that each took of either arm.

    Raises:
        InputError: An arm is missing or answered other queries than the agent.
    """
    by_arm: dict[str, list[Row]] = {arm: [] for arm in ARMS}
    for row in rows:
        by_arm[row.arm].append(row)
    ids = {arm: sorted(row.result.query_id for row in found) for arm, found in by_arm.items()}
    for arm, found in ids.items():
        if not found or found != ids["agent"]:
            raise InputError(
                f"arm {arm!r} has {len(found)} rows, the agent {len(ids['agent'])}; "
                "every arm must answer the same queries"
            )
    funnel, agent = by_arm["funnel"], by_arm["agent"]
    arms = {arm: _arm(found, wall_s[arm]) for arm, found in by_arm.items()}
    counts = _counts(funnel)
    routes = {route: 0 for route in ("draft", "agent", "error")}
    for row in funnel:
        routes[row.result.route] += 1
    alone = {row.result.query_id: row.correct for row in agent}
    only_agent = sum(alone[r.result.query_id] and not r.correct for r in funnel)
    only_funnel = sum(r.correct and not alone[r.result.query_id] for r in funnel)
    return {
        "arms": arms,
        "routes": routes,
        "counts": counts,
        **_gains(funnel, agent, arms, counts),
        "agent_against_funnel": {
            "only_agent_right": only_agent,
            "only_funnel_right": only_funnel,
            "mcnemar_p": mcnemar_exact(only_agent, only_funnel),
        },
        "draft_auroc": _separation(by_arm["draft"]),
        "kinds": _kinds(by_arm),
    }


def table(summary: Mapping[str, Any]) -> str:
    """The summary for a terminal, about 80 columns wide."""
    names = {
        "agent": "agent, one by one",
        "agent_batched": "agent, batched",
        "draft": "draft alone",
        "funnel": "funnel",
    }
    lines = [
        f"{'':<19}{'accuracy (95% interval)':<27}{'mean':>8}{'p95':>9}{'queries/s':>11}{'gain':>8}"
    ]
    base = summary["arms"]["agent"]["queries_per_s"]
    for name in ARMS:
        arm = summary["arms"][name]
        accuracy = (
            f"{arm['accuracy']:6.1%} ({arm['accuracy_low']:.1%} to {arm['accuracy_high']:.1%})"
        )
        lines.append(
            f"{names[name]:<19}{accuracy:<27}{1e3 * arm['mean_s']:>5.0f} ms"
            f"{1e3 * arm['p95_s']:>6.0f} ms{arm['queries_per_s']:>11.1f}"
            f"{arm['queries_per_s'] / base:>7.2f}x"
        )
    counts, costs = summary["counts"], summary["cost_model"]
    lines += [
        "",
        f"routes   {counts['queries']} queries: {counts['accepted']} answered by the draft, "
        f"{counts['rejected']} drafts rejected, {counts['tools_needed']} needed tools"
        + (f", {summary['routes']['error']} failed" if summary["routes"]["error"] else ""),
        f"         beta = {summary['beta']:.3f} (let through by the judge), "
        f"alpha = {summary['alpha']:.3f} (of those, accepted by the gate)",
        f"costs    c_J = {1e3 * costs['c_judge_s']:.1f} ms, "
        f"c_S = {1e3 * costs['c_draft_s']:.1f} ms, "
        f"L_agent = {1e3 * costs['l_agent_s']:.1f} ms one by one, "
        f"{1e3 * costs['l_agent_batched_s']:.1f} ms batched",
        "",
        "E[L] = c_J + beta c_S + (1 - beta alpha) L_agent",
        f"{'gain over':<19}{'with L_agent':<48}{'predicted':>9} {'measured':>8}",
    ]
    lines += [
        f"{names[row['against']]:<19}{row['fallback']:<48}"
        f"{row['predicted']:>8.2f}x {row['measured']:>7.2f}x"
        for row in summary["gains"]
    ]
    return "\n".join(lines)
