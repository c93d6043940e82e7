"""Every figure of a run, from its records alone.

Figures that depend on the clock stand under "time", so that those of a resumed run can be held
against those of an unbroken one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import numpy as np

from speceyes.errors import InputError
from speceyes.evaluation import arms as known
from speceyes.evaluation import rivals
from speceyes.evaluation.arms import AGENT_ONE, BASELINE, DRAFT, FUNNEL, FUNNEL_ONE, NO_TOOLS
from speceyes.evaluation.context import threshold_name
from speceyes.evaluation.harness import repeated
from speceyes.evaluation.intervals import (
    aurc_interval,
    auroc_interval,
    difference_interval,
    mean_interval,
    risk_coverage,
)
from speceyes.evaluation.rounds import quantile, ratio
from speceyes.evaluation.runs import AGAIN, CALIBRATION, TEST, Record, Run
from speceyes.evaluation.spending import spending
from speceyes.evaluation.statistics import cluster_interval, mcnemar_clusters
from speceyes.evaluation.sweep import Recorded, chosen_thresholds, costs, recorded, sweeps
from speceyes.scoring.scores import AGGREGATES

_BY_KIND: Final = ("vstar", "pope")
"""Benchmarks whose kinds are columns of their own in the paper's Table 1."""
_CURVE: Final = 200
_MOST_FAILED: Final = 1000


def figures(run: Run) -> dict[str, Any]:
    """All figures of a run.

    Returns:
        `arms` (accuracy, failures, tokens, tool calls, depth; under "time" latency and gain),
        `columns` (the same by column of Table 1), `kinds`, `tests` (exact McNemar against the
        agent), `failed`, `thresholds`, `scores` (AUROC, AURC, curve of each aggregate), `sweeps`,
        `rolling`, `depths`, `routes`, `tools` (see `tool_contribution`), `money` (see
        `spending.spending`), `rivals` (see
        `rivals.compared`), and under "time" the
        phases' shares, batch sizes, CPU seconds and how busy the machine was.

    Raises:
        InputError: The run has no whole round of all its arms yet.
    """
    names = tuple(run.fixed["plan"]["arms"])
    whole = _whole_rounds(run, names)
    by_arm = {a: [r for r in run.of(TEST, a) if r.round in whole] for a in names}
    if not by_arm[BASELINE]:
        raise InputError(
            f"{run.folder} has no round that all its arms are through with yet: give the same "
            "speceyes eval command again to go on"
        )
    spent = {a: costs(rows, run.blocks) for a, rows in by_arm.items()}
    thresholds = chosen_thresholds(run)
    found = recorded(run, TEST)
    top_k = int(run.fixed["context"]["top_k"])
    judge_s, draft_s = _phase_costs(by_arm.get(FUNNEL, ()))
    calibration = [b for b in run.blocks if (b.phase, b.arm) == (CALIBRATION, BASELINE)]
    gated = [a for a in by_arm if known.arm(a).aggregate]
    funnel = FUNNEL if FUNNEL in gated else next(iter(gated), None)
    swept = sweeps(found, thresholds, top_k, judge_s=judge_s, draft_s=draft_s)
    gains = {
        axis: [{k: row.pop(k) for k in ("gain",)} for row in rows] for axis, rows in swept.items()
    }
    return {
        "n": len(by_arm[BASELINE]),
        "calibration_n": sum(block.n for block in calibration),
        "arms": {a: _arm(rows) for a, rows in by_arm.items()},
        "columns": {
            column: {
                a: _accuracy([r for r in rows if _column(r) == column])
                for a, rows in by_arm.items()
            }
            for column in dict.fromkeys(_column(r) for r in by_arm[BASELINE])
        },
        "kinds": {
            kind: {a: _accuracy([r for r in rows if r.kind == kind]) for a, rows in by_arm.items()}
            for kind in sorted({r.kind for r in by_arm[BASELINE]})
        },
        "tests": {
            a: _against(by_arm[BASELINE], rows) for a, rows in by_arm.items() if a != BASELINE
        },
        "rivals": rivals.compared(by_arm, funnel),
        "failed": [
            [r.result.query_id, a, r.result.error or "no answer"]
            for a, rows in by_arm.items()
            for r in rows
            if r.result.answer is None
        ][:_MOST_FAILED],
        "thresholds": thresholds,
        "routes": {a: _routes(rows) for a, rows in by_arm.items() if known.arm(a).aggregate},
        "regated": {
            a: _regated(found, rows, thresholds, top_k)
            for a, rows in by_arm.items()
            if known.arm(a).aggregate and known.arm(a).judge in found.through
        },
        "scores": {a: _score(found, a, top_k) for a in AGGREGATES},
        "sweeps": swept,
        "rolling": {a: _rolling(rows) for a, rows in by_arm.items()},
        "depths": _depths(by_arm[BASELINE]),
        "tools": tool_contribution(by_arm),
        "money": spending(run, by_arm),
        "time": {
            "rounds": len(whole),
            "round_size": max(Counter(r.round for r in by_arm[BASELINE]).values()),
            "arms": {a: {**_timing(by_arm, a, spent), **_processors(run, a, whole)} for a in names},
            "rivals": rivals.gains(by_arm, spent, funnel),
            "one_by_one": _one_by_one(by_arm, spent),
            "same_arm": _same_arm(run, repeated(names), whole),
            "columns": {
                column: {
                    a: _gain(
                        [r for r in by_arm[BASELINE] if _column(r) == column],
                        spent,
                        a,
                        known.arm(a).base,
                    )
                    for a in names
                }
                for column in dict.fromkeys(_column(r) for r in by_arm[BASELINE])
            },
            "sweeps": gains,
            "phases": {a: _phases(rows, spent[a]) for a, rows in by_arm.items()},
            "tokens": {a: _tokens_by_model(run, a, whole) for a in by_arm},
            "batches": _batches(run),
        },
    }


def tool_contribution(by_arm: Mapping[str, Sequence[Record]]) -> dict[str, Any] | None:
    """Contribution of tools: queries that the agent solves with them, without them, or both.

    Args:
        by_arm: Records by arm, with the agent's and the agent's without tools.

    Returns:
        Counts `both`, `only_with`, `only_without`, `neither`, and of those solved with tools the
        share `without_too` with its interval; None where the arm without tools was not run.
    """
    if NO_TOOLS not in by_arm:
        return None
    bare = {r.result.query_id: r.correct for r in by_arm[NO_TOOLS]}
    pairs = Counter((r.correct, bare[r.result.query_id]) for r in by_arm[BASELINE])
    both, only_with = pairs[True, True], pairs[True, False]
    whole = by_arm[BASELINE]
    without = [bare[r.result.query_id] for r in whole]
    solved = [at for at, r in enumerate(whole) if r.correct]
    images = _images(whole)
    low, high = cluster_interval([without[at] for at in solved], [images[at] for at in solved])
    return {
        "both": both,
        "only_with": only_with,
        "only_without": pairs[False, True],
        "neither": pairs[False, False],
        "without_too": (both / (both + only_with), low, high) if both + only_with else None,
        "p": mcnemar_clusters([r.correct for r in whole], without, images),
    }


def _one_by_one(
    by_arm: Mapping[str, Sequence[Record]], spent: Mapping[str, Mapping[str, float]]
) -> dict[str, Any] | None:
    """The funnel one by one against the agent one by one, measured and by the cost model of
    Sec. 3.4 of SpecEyes, whose parts are those of these very arms.
    """
    if AGENT_ONE not in by_arm or FUNNEL_ONE not in by_arm:
        return None
    funnel = by_arm[FUNNEL_ONE]
    n = len(funnel)
    judge_s, draft_s = _phase_costs(funnel)
    judged = sum(r.result.timings.judge is not None for r in funnel) / n
    drafted = sum(r.result.draft is not None for r in funnel) / n
    accepted = sum(route(r) == "accepted" for r in funnel) / n
    agent_s = sum(spent[AGENT_ONE].values()) / n
    expected = judged * judge_s + drafted * draft_s + (1 - accepted) * agent_s
    return {
        "measured": _gain(by_arm[AGENT_ONE], spent, FUNNEL_ONE, AGENT_ONE),
        "predicted": agent_s / expected if expected > 0 else None,
    }


def _whole_rounds(run: Run, names: Sequence[str]) -> set[int]:
    done = {b.key for b in run.blocks}
    rounds = {b.round for b in run.blocks if b.phase == TEST}
    return {r for r in rounds if all((TEST, r, a) in done for a in names)}


def _same_arm(run: Run, arm: str, rounds: Collection[int]) -> dict[str, Any] | None:
    """Speed of an arm over itself, which is 1: what intervals of speed are worth on this machine.
    None for runs in which no arm took a second turn.
    """
    walls = {(b.arm, b.round): b.wall for b in run.blocks if b.phase == TEST and b.round in rounds}
    both = [r for r in sorted(rounds) if (AGAIN, r) in walls]
    with suppress(InputError):  # no such rounds, or nothing took any time
        return {
            "arm": arm,
            "speed": ratio([walls[arm, r] for r in both], [walls[AGAIN, r] for r in both]),
        }
    return None


def _column(record: Record) -> str:
    name = record.benchmark or "questions"
    return f"{name}/{record.kind}" if name in _BY_KIND else name


def _images(rows: Sequence[Record]) -> list[Hashable]:
    """Each row's image: questions about one are right or wrong together."""
    return [r.image_key or number for number, r in enumerate(rows)]


def _accuracy(rows: Sequence[Record]) -> dict[str, Any]:
    right = sum(r.correct for r in rows)
    right_ones = [r.correct for r in rows]
    low, high = cluster_interval(right_ones, _images(rows)) if rows else (0.0, 1.0)
    share = right / len(rows) if rows else 0.0
    return {"n": len(rows), "correct": right, "accuracy": share, "low": low, "high": high}


def _tokens(record: Record) -> int:
    """Decoded tokens: of the draft, and of every turn of the agent."""
    draft, way = record.result.draft, record.result.trajectory
    return (len(draft.token_ids) if draft else 0) + (way.tokens if way else 0)


def _arm(rows: Sequence[Record]) -> dict[str, Any]:
    ways = [r.result.trajectory for r in rows]
    return {
        **_accuracy(rows),
        "failed": sum(r.result.answer is None for r in rows),
        "tokens": mean_interval([float(_tokens(r)) for r in rows], _images(rows)),
        "calls": mean_interval([float(w.depth) if w else 0.0 for w in ways], _images(rows)),
        "turns": mean_interval([float(len(w.steps)) if w else 0.0 for w in ways], _images(rows)),
    }


def _against(agent: Sequence[Record], rows: Sequence[Record]) -> dict[str, Any]:
    alone = {r.result.query_id: r.correct for r in agent}
    only_agent = sum(alone[r.result.query_id] and not r.correct for r in rows)
    only_arm = sum(r.correct and not alone[r.result.query_id] for r in rows)
    pairs = [r.correct for r in rows], [alone[r.result.query_id] for r in rows], _images(rows)
    p, gap = mcnemar_clusters(*pairs), difference_interval(*pairs)
    return {"only_agent": only_agent, "only_arm": only_arm, "p": p, "gap": gap}


def _routes(rows: Sequence[Record]) -> dict[str, int]:
    """Where queries went, and how many accepted drafts were wrong. The judge's "tools" and the
    gate's "rejected" both went to the agent.
    """
    found = dict.fromkeys(("accepted", "rejected", "tools", "error"), 0)
    for row in rows:
        found[route(row)] += 1
    return {**found, "wrong": sum(route(r) == "accepted" and not r.correct for r in rows)}


def route(record: Record) -> str:
    """Where a query went: "accepted", "rejected", "tools", "agent" (no gate) or "error"."""
    result = record.result
    if result.route == "error":
        return "error"
    if result.route == "draft":
        return "accepted"
    if result.judgement is not None and result.judgement.needs_tools:
        return "tools"
    return "rejected" if result.draft is not None else "agent"


def _regated(
    found: Recorded, rows: Sequence[Record], thresholds: Mapping[Any, float], top_k: int
) -> dict[str, Any]:
    """Count of recorded drafts that take the arm's route when they are gated again."""
    arm = known.arm(rows[0].arm)
    assert arm.aggregate is not None
    name = threshold_name(arm.aggregate, arm.judge, thresholds)
    again = found.accepted(arm.aggregate, top_k, thresholds[name], arm.judge)
    by_id = dict(zip(found.ids, again.tolist(), strict=True))
    same = sum(
        by_id[r.result.query_id] == (r.result.route == "draft")
        for r in rows
        if r.result.query_id in by_id
    )
    return {"same": same, "n": len(rows)}


def _score(found: Recorded, aggregate: Any, top_k: int) -> dict[str, Any]:
    raw = found.scores(aggregate, top_k)
    filled = np.where(np.isnan(raw), -np.inf, raw)
    coverage, risk = risk_coverage(filled, found.right)
    at = np.unique(np.linspace(0, len(raw) - 1, min(len(raw), _CURVE)).astype(int))
    try:
        area: Any = auroc_interval(filled, found.right, found.image_keys or None)
    except InputError:  # all right, or all wrong: there is nothing to tell apart
        area = None
    there = ~np.isnan(raw)
    return {
        "auroc": area,
        "aurc": aurc_interval(filled, found.right, found.image_keys or None),
        "curve": [[round(float(coverage[i]), 5), round(float(risk[i]), 5)] for i in at],
        "right": [round(x, 4) for x in raw[there & found.right].tolist()],
        "wrong": [round(x, 4) for x in raw[there & ~found.right].tolist()],
        "unscored": int((~there).sum()),
    }


def _rolling(rows: Sequence[Record], window: int = 50) -> list[list[float]]:
    """(queries so far, accuracy of the last `window`), at most 200 points."""
    right = np.cumsum([0, *(r.correct for r in rows)])
    at = np.unique(np.linspace(1, len(rows), min(len(rows), _CURVE)).astype(int))
    return [[int(i), float((right[i] - right[max(0, i - window)]) / min(i, window))] for i in at]


def _depths(rows: Sequence[Record]) -> dict[str, int]:
    counts: dict[int, int] = {}
    for row in rows:
        if row.result.trajectory is not None:
            depth = row.result.trajectory.depth
            counts[depth] = counts.get(depth, 0) + 1
    return {str(depth): counts[depth] for depth in sorted(counts)}


def _gain(
    rows: Sequence[Record],
    spent: Mapping[str, Mapping[str, float]],
    arm: str,
    base: str = BASELINE,
) -> Any:
    """Speed of an arm over the agent, or another base, on these queries, by rounds."""
    by_round: dict[int, list[str]] = {}
    for row in rows:
        by_round.setdefault(row.round, []).append(row.result.query_id)
    seconds = [
        [sum(spent[one][i] for i in ids) for ids in by_round.values()] for one in (base, arm)
    ]
    try:
        return ratio(*seconds)
    except InputError:  # nothing took any time
        return None


def _timing(
    by_arm: Mapping[str, Sequence[Record]], arm: str, spent: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    latencies = [r.seconds for r in by_arm[arm]]
    rounds = [r.round for r in by_arm[arm]]
    return {
        **{f"p{q}": quantile(latencies, rounds, q) for q in (50, 95, 99)},
        "per_query_s": sum(spent[arm].values()) / len(spent[arm]),
        "gain": _gain(by_arm[BASELINE], spent, arm, known.arm(arm).base),
    }


def _processors(run: Run, arm: str, rounds: Collection[int]) -> dict[str, Any]:
    """CPU seconds a query of our own process, the gain in them over the agent, and what share
    of the machine other processes took meanwhile: on average and at most.
    """
    blocks = {(b.arm, b.round): b for b in run.blocks if b.phase == TEST and b.round in rounds}
    own = [blocks[arm, r] for r in sorted(rounds)]
    agent = [blocks[BASELINE, r] for r in sorted(rounds)]
    cpu = [b.cpu for b in own if b.cpu is not None]
    found: dict[str, Any] = {"cpu_s": None, "cpu_gain": None, "others": None, "most_others": None}
    if len(cpu) == len(own):
        found["cpu_s"] = sum(cpu) / sum(b.n for b in own)
        with suppress(InputError):  # the clock of CPU seconds is coarse
            found["cpu_gain"] = ratio([b.cpu or 0.0 for b in agent], cpu)
    others = [(b.others, b.wall) for b in own if b.others is not None]
    if others and sum(wall for _, wall in others) > 0:
        found["others"] = sum(o * w for o, w in others) / sum(w for _, w in others)
        found["most_others"] = max(o for o, _ in others)
    return found


def _tokens_by_model(run: Run, arm: str, rounds: Collection[int]) -> dict[str, dict[str, float]]:
    """Tokens a query that each model read, reused and decoded; no entry where it doesn't count."""
    blocks = [b for b in run.blocks if (b.phase, b.arm) == (TEST, arm) and b.round in rounds]
    n = sum(b.n for b in blocks)
    roles = dict.fromkeys(role for b in blocks for role in b.spent)
    return {
        role: {
            what: sum(b.spent.get(role, {}).get(what, 0) for b in blocks) / n
            for what in ("read", "reused", "decoded")
        }
        for role in roles
    }


def _phases(rows: Sequence[Record], spent: Mapping[str, float]) -> dict[str, float]:
    """Mean seconds a query that each phase took; "else" is what no phase was charged for."""
    parts = {
        name: float(np.mean([getattr(r.result.timings, name) or 0.0 for r in rows]))
        for name in ("judge", "draft", "gate", "fallback")
    }
    if rows[0].arm == DRAFT:
        return {"draft": float(np.mean(list(spent.values())))}
    total = float(np.mean(list(spent.values())))
    return {**parts, "else": max(0.0, total - sum(parts.values()))}


def _phase_costs(rows: Sequence[Record]) -> tuple[float, float]:
    """Seconds a judged query, and a drafted one, of the funnel."""
    judged = [r.result.timings.judge for r in rows if r.result.timings.judge is not None]
    drafted = [
        (t.draft or 0.0) + (t.gate or 0.0)
        for t in (r.result.timings for r in rows)
        if t.draft is not None
    ]
    return (float(np.mean(judged)) if judged else 0.0, float(np.mean(drafted)) if drafted else 0.0)


def _batches(run: Run) -> list[dict[str, Any]]:
    found = []
    for size in run.fixed["plan"]["sweep_batch"]:
        agent, funnel = (run.of(f"batch-{size}", a) for a in (BASELINE, FUNNEL))
        if not agent or len(agent) != len(funnel):
            continue
        spent = {BASELINE: costs(agent, run.blocks), FUNNEL: costs(funnel, run.blocks)}
        walls = {a: sum(spent[a].values()) for a in spent}
        found.append(
            {
                "batch_size": size,
                "n": len(agent),
                "agent_per_s": len(agent) / walls[BASELINE],
                "funnel_per_s": len(funnel) / walls[FUNNEL],
                "gain": _gain(agent, spent, FUNNEL),
                "accuracy": _accuracy(funnel),
            }
        )
    return found
