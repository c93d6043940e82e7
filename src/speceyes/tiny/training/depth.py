"""Measures drafts with depth, tiny models: `python -m speceyes.tiny.training.depth --out FILE`.

Threshold and depth rule are chosen on the calibration split, everything else is measured on the
held-out one. Who needs tools is taken from the scenes: the large model's judge says the same of
each held-out question (docs/tiny.md). An answer that the agent is asked for counts as right.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from speceyes.answerer import SpeculativeAnswerer
from speceyes.drafting import DepthRule, depth_of
from speceyes.fallback import AgenticFallback
from speceyes.gate import SeparabilityGate
from speceyes.judge import ToolJudge
from speceyes.models.hf import HFModel
from speceyes.scoring.scales import sigmoid
from speceyes.scoring.scores import raw_scores
from speceyes.tiny import LARGE, SMALL, SMALL_ZOOM, settings
from speceyes.tiny.scenes import Item, Split, batches, questions
from speceyes.tools import Tools
from speceyes.types import Completion, Query

LOSS = 0.005
"""Accuracy, as a share of all questions, that accepted drafts may lose on the calibration
split."""
_Answerer = Callable[[Sequence[Query]], list[Completion]]


@dataclass(frozen=True, slots=True)
class Drafts:
    """Drafts of one drafter.

    Args:
        drafts: One a question.
        right: bool[n].
        raw: float64[n], raw separability under min; -inf where a gate would not score it.
    """

    drafts: tuple[Completion, ...]
    right: np.ndarray
    raw: np.ndarray


def drafters(top_k: int) -> dict[str, _Answerer]:
    """The drafters that are compared, by name."""
    small, zoom = HFModel.from_pretrained(SMALL), HFModel.from_pretrained(SMALL_ZOOM)
    tools = Tools(["zoom"])
    return {
        "small": SpeculativeAnswerer(small, top_k=top_k),
        "small_zoom, depth 0": SpeculativeAnswerer(zoom, top_k=top_k),
        "small_zoom, depth 1": SpeculativeAnswerer(zoom, top_k=top_k, tools=tools, max_depth=1),
        "small_zoom, depth 1, 3 boxes": SpeculativeAnswerer(
            zoom, top_k=top_k, tools=tools, max_depth=1, together=3
        ),
    }


def record(
    asked: dict[str, _Answerer], split: Split, n: int, top_k: int, batch: int = 16
) -> tuple[list[Item], dict[str, Drafts]]:
    """The items, without their images, and what each drafter gave on them."""
    items: list[Item] = []
    said: dict[str, list[Completion]] = defaultdict(list)
    for group in tqdm(batches(questions(split, n), batch), total=-(-n // batch), desc=split):
        items += [Item(_light(i.query), i.answer, i.kind, "", i.needs_tools) for i in group]
        for name, answerer in asked.items():
            said[name] += answerer([item.query for item in group])
    return items, {name: scored(drafts, items, top_k) for name, drafts in said.items()}


def scored(drafts: Sequence[Completion], items: Sequence[Item], top_k: int) -> Drafts:
    """Drafts with their grades and scores."""
    raw = raw_scores([d.top_logprobs for d in drafts], top_k)
    whole = np.array([d.finish == "stop" and bool(d.text.strip()) for d in drafts])
    right = [is_right(d.text, item.answer) for d, item in zip(drafts, items, strict=True)]
    return Drafts(tuple(drafts), np.array(right), np.where(whole & ~np.isnan(raw), raw, -np.inf))


def _light(query: Query) -> Query:
    return Query(query.question, (query.images[0].resize((8, 8)),), query.choices, query.id)


def is_right(said: str, answer: str) -> bool:
    """True where a draft says the answer, whatever its case and full stop."""
    return said.strip().rstrip(".").lower() == answer.lower()


def choose(found: Drafts, let: np.ndarray) -> float:
    """The loosest threshold (0 to 1) at which accepted drafts lose at most `LOSS`."""
    order = np.argsort(-found.raw, kind="stable")
    order = order[let[order] & np.isfinite(found.raw[order])]
    lost = np.cumsum(~found.right[order]) / len(found.raw)
    allowed = np.flatnonzero(lost <= LOSS)
    if not len(allowed):
        return 1.0
    last = int(allowed[-1])
    follow = found.raw[order[last + 1]] if last + 1 < len(order) else 0.98 * found.raw[order[last]]
    return round(sigmoid(float(found.raw[order[last]] + follow) / 2), 12)


def figures(
    found: Drafts, items: Sequence[Item], gate: SeparabilityGate, let: np.ndarray
) -> dict[str, Any]:
    """Shares (0 to 1) of a drafter at its gate, overall and by kind."""
    taken = let & (found.raw >= gate.raw_threshold)

    def of(mask: np.ndarray) -> dict[str, Any]:
        accepted = taken[mask]
        return {
            "n": int(mask.sum()),
            "right": _mean(found.right[mask]),
            "let through": _mean(let[mask]),
            "accepted": _mean(accepted),
            "accepted right": _mean(found.right[mask][accepted]),
            "with agent": _mean(np.where(accepted, found.right[mask], True)),
        }

    kinds = np.array([item.kind for item in items])
    return {
        "threshold": gate.threshold,
        "deep": _mean(np.array([depth_of(d) > 0 for d in found.drafts])),
        **of(np.ones(len(items), dtype=bool)),
        "by_kind": {str(kind): of(kinds == kind) for kind in sorted(set(kinds))},
    }


def _mean(hits: np.ndarray) -> float | None:
    return round(float(np.mean(hits)), 4) if len(hits) else None


def costs(asked: dict[str, _Answerer], n: int, batch: int) -> dict[str, float]:
    """Processor seconds a question about a card, by drafter and for "agent", in batches.

    Every way has questions of its own, so that none finds what another has read, and they take
    turns. The agent's images have been seen by the judge, as in the funnel.
    """
    large, tools = HFModel.from_pretrained(LARGE), Tools(["zoom"])
    agent = AgenticFallback(large, tools=tools, max_tokens=96, max_batch=batch)
    judge = ToolJudge(large, tools=tools)
    ways: dict[str, Callable[[Sequence[Query]], Any]] = {**asked, "agent": agent}
    spent: dict[str, float] = defaultdict(float)
    hard = batches((i for i in _endless() if i.kind.startswith("card/")), batch)
    for turn in range(-1, -(-n // batch)):
        for name, way in ways.items():
            queries = [item.query for item in next(hard)]
            if name == "agent":
                judge(queries)
            start = time.process_time()
            way(queries)
            if turn >= 0:  # the first turn warms up
                spent[name] += time.process_time() - start
    return {name: total / (-(-n // batch) * batch) for name, total in spent.items()}


def _endless() -> Iterator[Item]:
    return questions("calibration", 10**9, start=10**6)


def main(argv: Sequence[str] | None = None) -> None:
    """Writes everything that was measured as JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m speceyes.tiny.training.depth", description=__doc__
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--queries", type=int, default=1000, help="of each split")
    parser.add_argument("--costs", type=int, default=64, help="questions timed for each way")
    parser.add_argument("--batch", type=int, default=16)
    args = parser.parse_args(argv)
    top_k = int(settings()["top_k"])
    at_depth_0 = "small_zoom, depth 0"
    asked = drafters(top_k)
    items, known = record(asked, "calibration", args.queries, top_k, args.batch)
    held, found = record(asked, "heldout", args.queries, top_k, args.batch)
    spent = costs(asked, args.costs, args.batch)
    report: dict[str, Any] = {"queries": args.queries, "top_k": top_k, "cpu_seconds": spent}
    for judged in (True, False):
        ways: dict[str, Any] = {}
        for name in asked:
            let, held_let = (
                np.array([not (judged and item.needs_tools) for item in group])
                for group in (items, held)
            )
            gate = SeparabilityGate(choose(known[name], let), top_k=top_k)
            ways[name] = figures(found[name], held, gate, held_let)
            if "depth 1" in name:
                at_once = known[at_depth_0]
                extra = spent[name] - spent[at_depth_0]
                rule = DepthRule.fit(
                    gate,
                    [d for d, ok in zip(at_once.drafts, let, strict=True) if ok],
                    [d for d, ok in zip(known[name].drafts, let, strict=True) if ok],
                    extra_s=max(extra, 0.0),
                    agent_s=spent["agent"],
                )
                ways[name]["rule"] = _ruled(
                    rule, found[at_depth_0], found[name], held_let, spent[at_depth_0]
                )
        report["judged" if judged else "unjudged"] = ways
    args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _ruled(
    rule: DepthRule, once: Drafts, deep: Drafts, let: np.ndarray, draft_s: float
) -> dict[str, Any]:
    """Effects of the rule on held-out questions, and the seconds that follow for a question."""
    goes = np.array([rule(d) for d in once.drafts]) & let
    rejects = np.array([not rule.gate(d).accepted for d in once.drafts]) & let
    accepted = np.array([rule.gate(d).accepted for d in deep.drafts])
    before = let & ~rejects

    def seconds(depth: np.ndarray) -> float:
        answered = before | (depth & accepted)
        drafted = let.mean() * draft_s + depth.mean() * rule.extra_s
        return float(drafted + (1 - answered.mean()) * rule.agent_s)

    return {
        "edges": [round(e, 6) for e in rule.edges],
        "chances": [round(c, 4) for c in rule.chances],
        "extra_s": round(rule.extra_s, 5),
        "break_even": round(rule.extra_s / rule.agent_s, 4) if rule.agent_s else math.nan,
        "go deeper": _mean(goes),
        "rejected at depth 0": _mean(rejects),
        "accepted of those that go": _mean(accepted[goes]),
        "accepted right of those": _mean(deep.right[goes & accepted]),
        "seconds, never deeper": seconds(np.zeros_like(goes)),
        "seconds, every rejected": seconds(rejects),
        "seconds, by rule": seconds(goes),
        "seconds, agent alone": rule.agent_s,
    }


if __name__ == "__main__":
    main()
