"""Summary of a demo's rows: accuracy, latency, routes, and predicted and measured gain.

The cost model is Sec. 3.4 of SpecEyes (arXiv 2603.23483):
E[L] = c_J + beta c_S + (1 - beta alpha) L_agent, with c_J and c_S measured inside the funnel. Where
the draft itself asks for a closer look, every query is drafted and none judged before:
E[L] = c_S + (1 - beta alpha) L_agent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from speceyes.errors import InputError
from speceyes.evaluation.rounds import Interval, ratio
from speceyes.evaluation.row import Row, needed_tools
from speceyes.evaluation.statistics import (
    mcnemar_exact,
    percentile,
    wilson_interval,
)
from speceyes.evaluation.verdict import Outcome, plain_lines
from speceyes.scoring.ranking import auroc

ARMS = ("agent", "agent_batched", "draft", "funnel")
"""The agent one query at a time, the agent in batches, the small model alone, the funnel."""
ONE: Final = "funnel_one"
"""The funnel one query at a time, which may be run beside them."""
AGAIN: Final = "funnel_again"
"""The funnel's second turn in a round, which only the time is kept of."""
NAMES: Final = {
    "funnel": "funnel, batched",
    "agent_batched": "agent, batched",
    "draft": "draft alone",
    ONE: "funnel, one by one",
    "agent": "agent, one by one",
}
"""In the order of tables: what a user would choose between comes first."""
BASE: Final = "agent_batched"
"""The arm that speeds are given over: the agent on the same engine, batched as the funnel is."""


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
    """Queries by route; each phase's parts add up to what reached it."""
    results = [row.result for row in funnel]
    free = [one for one in results if one.draft is not None and not needed_tools(one)]
    accepted = sum(result.route == "draft" for result in free)
    return {
        "queries": len(funnel),
        "tools_needed": len(funnel) - len(free),
        "drafted": len(free),
        "accepted": accepted,
        "rejected": len(free) - accepted,
    }


def _gains(
    by_arm: Mapping[str, Sequence[Row]],
    arms: Mapping[str, Any],
    counts: Mapping[str, int],
    rounds: Sequence[Mapping[str, float]],
) -> dict[str, Any]:
    """The cost model's parts in seconds a query, and predicted gains beside measured ones.

    A prediction stands beside what was measured the same way: one by one beside the funnel one
    by one (with its own costs of judge and draft), batched beside the funnel batched.
    """
    funnel, agent, alone = by_arm["funnel"], by_arm["agent"], by_arm.get(ONE, ())
    beta = counts["drafted"] / counts["queries"]
    alpha = counts["accepted"] / counts["drafted"] if counts["drafted"] else 0.0
    one_pass = any(
        row.result.judgement is not None and row.result.timings.judge is None for row in funnel
    )
    drafted = 1.0 if one_pass else beta
    c_judge, c_draft = _front(funnel)
    own_judge, own_draft = _front(alone) if alone else (c_judge, c_draft)
    one, batched, whole = (
        1 / arms[a]["queries_per_s"] for a in ("agent", "agent_batched", "funnel")
    )
    sent = {row.result.query_id for row in funnel if row.result.route != "draft"}
    hard = _mean(row.seconds for row in agent if row.result.query_id in sent)

    def gain(base: float, fallback: float) -> float:
        return base / (c_judge + drafted * c_draft + (1 - beta * alpha) * fallback)

    def gain_alone(fallback: float) -> float:
        spent: float = own_judge + drafted * own_draft + (1 - beta * alpha) * fallback
        return float(one / spent)

    one_measured = one * arms[ONE]["queries_per_s"] if alone else None
    # Value and interval are of one quantity: the seconds of the rounds, where there are rounds.
    measured, low, high = _over_rounds("agent", rounds)
    over_batched = _over_rounds("agent_batched", rounds)
    if not rounds:
        measured, over_batched = one / whole, (batched / whole, None, None)
    return {
        "beta": beta,
        "alpha": alpha,
        "predicted_gain": gain(one, one),
        "measured_gain": measured,
        "measured_gain_low": low,
        "measured_gain_high": high,
        "gain_over_batched": over_batched,
        "rounds": len(rounds),
        "same_arm": _over_rounds(AGAIN, rounds) if rounds and AGAIN in rounds[0] else None,
        "cost_model": {
            "one_pass": one_pass,
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
                "predicted": gain_alone(one),
                "measured": one_measured,
            },
            {
                "against": "agent",
                "fallback": "one by one, mean of the queries that fell back",
                "l_agent_s": hard,
                "predicted": gain_alone(hard),
                "measured": one_measured,
            },
            {
                "against": "agent",
                "fallback": "batched, as the funnel runs it",
                "l_agent_s": batched,
                "predicted": gain(one, batched),
                "measured": measured,
            },
            {
                "against": "agent_batched",
                "fallback": "batched, as the funnel runs it",
                "l_agent_s": batched,
                "predicted": gain(batched, batched),
                "measured": over_batched[0],
            },
        ],
    }


def _front(funnel: Sequence[Row]) -> tuple[float, float]:
    """Mean seconds of a judgement, and of a draft with its gate."""
    timings = [row.result.timings for row in funnel]
    return (
        _mean(t.judge for t in timings),
        _mean(t.draft for t in timings) + _mean(t.gate for t in timings),
    )


def _over_rounds(base: str, rounds: Sequence[Mapping[str, float]]) -> Interval:
    """The batched funnel's speed over an arm, from the seconds that each round took of both."""
    try:
        return ratio([one[base] for one in rounds], [one["funnel"] for one in rounds])
    except InputError:  # no rounds were given, or nothing took any time
        return 0.0, None, None


def verdict(summary: Mapping[str, Any]) -> list[str]:
    """The sentences that come first: see `verdict.Outcome`."""
    against = summary["agent_against_funnel"]
    return Outcome(
        "the funnel",
        summary["counts"]["queries"],
        summary["counts"]["accepted"],
        summary["wrong_accepted"],
        summary["gain_over_batched"],
        summary["rounds"],
        against["only_agent_right"],
        against["only_funnel_right"],
        against["mcnemar_p"],
        summary.get("same_arm"),
    ).sentences()


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


def summarise(
    rows: Iterable[Row],
    wall_s: Mapping[str, float],
    rounds: Sequence[Mapping[str, float]] = (),
) -> dict[str, Any]:
    """Every figure of a run, ready for JSON.

    Args:
        rows: The rows of all four `ARMS` on the same queries, and those of `ONE` where it ran.
        wall_s: Seconds that each arm ran.
        rounds: Seconds of each arm in each round, for intervals of speed; without them there are
            none.

    Returns:
        `arms.<name>` with accuracy and its 95% Wilson interval, latency and throughput;
        `routes`, `counts`, `beta` (share the judge lets through), `alpha` (share of those that
        the gate accepts), the gains, `same_arm` (the funnel's speed over itself, which is 1, with
        its interval; None where it had no second turn), `kinds`, `draft_auroc`, and
        `agent_against_funnel` with
        the exact McNemar p-value. Intervals of speed are those of `rounds.ratio`.

    Raises:
        InputError: An arm is missing or answered other queries than the agent.
    """
    by_arm: dict[str, list[Row]] = {arm: [] for arm in ARMS}
    for row in rows:
        by_arm.setdefault(row.arm, []).append(row)
    by_arm = {arm: by_arm[arm] for arm in NAMES if arm in by_arm}
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
        "wrong_accepted": sum(r.result.route == "draft" and not r.correct for r in funnel),
        **_gains(by_arm, arms, counts, rounds),
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
    names = NAMES
    lines = [
        *plain_lines(verdict(summary)),
        "",
        f"{'':<19}{'accuracy (95% interval)':<27}{'mean':>8}{'p95':>9}{'queries/s':>11}"
        f"{'speed':>8}",
    ]
    base = summary["arms"][BASE]["queries_per_s"]
    for name, arm in summary["arms"].items():
        accuracy = (
            f"{arm['accuracy']:6.1%} ({arm['accuracy_low']:.1%} to {arm['accuracy_high']:.1%})"
        )
        lines.append(
            f"{names[name]:<19}{accuracy:<27}{1e3 * arm['mean_s']:>5.0f} ms"
            f"{1e3 * arm['p95_s']:>6.0f} ms{arm['queries_per_s']:>11.1f}"
            f"{arm['queries_per_s'] / base:>7.2f}x"
        )
    counts, costs = summary["counts"], summary["cost_model"]
    one = costs["one_pass"]
    lines += [
        "",
        f"routes   {counts['queries']} queries: {counts['accepted']} answered by the draft, "
        f"{counts['rejected']} drafts rejected, {counts['tools_needed']} needed tools"
        + (f", {summary['routes']['error']} failed" if summary["routes"]["error"] else ""),
        f"         beta = {summary['beta']:.3f} ({'no look asked for' if one else 'let through'} "
        f"by the {'draft' if one else 'judge'}), "
        f"alpha = {summary['alpha']:.3f} (of those, accepted by the gate)",
        f"costs    {'' if one else 'c_J = {:.1f} ms, '.format(1e3 * costs['c_judge_s'])}"
        f"c_S = {1e3 * costs['c_draft_s']:.1f} ms, "
        f"L_agent = {1e3 * costs['l_agent_s']:.1f} ms one by one, "
        f"{1e3 * costs['l_agent_batched_s']:.1f} ms batched",
        "",
        f"E[L] = {'c_S' if one else 'c_J + beta c_S'} + (1 - beta alpha) L_agent",
        f"{'gain over':<19}{'with L_agent':<48}{'predicted':>9} {'measured':>8}",
    ]
    lines += [
        f"{names[row['against']]:<19}{row['fallback']:<48}"
        f"{row['predicted']:>8.2f}x "
        + (f"{'-':>8}" if row["measured"] is None else f"{row['measured']:>7.2f}x")
        for row in reversed(summary["gains"])
    ]
    if (same := summary.get("same_arm")) is not None:
        value, low, high = same
        reach = "" if low is None else f" ({low:.2f} to {high:.2f})"
        lines.append(f"{'the funnel over itself, which is 1':<67}{'':>9} {value:>7.2f}x{reach}")
    return "\n".join(lines)
