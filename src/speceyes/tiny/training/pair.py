"""Measures the tiny pair, and picks its gate: `python -m speceyes.tiny.training.pair`.

K and the threshold are chosen on the calibration split; what is reported is measured on
held-out scenes, which are in neither it nor the training data. Drafts are recorded once with
all their log-probabilities and gated again for each K, so the choice costs nothing.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from speceyes.answerer import SpeculativeAnswerer
from speceyes.evaluation.grading import is_correct
from speceyes.evaluation.statistics import wilson_interval
from speceyes.fallback import AgenticFallback
from speceyes.gate import SeparabilityGate
from speceyes.judge import ToolJudge
from speceyes.models.hf import HFModel
from speceyes.protocols import VisionLanguageModel
from speceyes.scoring.ranking import auroc
from speceyes.scoring.scales import sigmoid
from speceyes.scoring.scores import raw_scores
from speceyes.tiny.scenes import Split, batches, questions
from speceyes.tools import Tools
from speceyes.types import Completion

RECORDED_K = 32
"""Log-probabilities recorded a token; K is chosen up to this."""
LOSS = 0.005
"""How much accuracy, as a share of all queries, the funnel may lose on the calibration split."""


@dataclass(frozen=True, slots=True)
class Record:
    """Record of each part's work on one item."""

    kind: str
    needs_tools: bool
    judged_tools: bool
    p_tools: float
    draft: Completion
    draft_right: bool
    agent_right: bool
    depth: int
    tokens: int
    stop: str


def record(
    large: VisionLanguageModel,
    small: VisionLanguageModel,
    split: Split,
    n: int,
    *,
    batch: int = 32,
    start: int = 0,
) -> list[Record]:
    """Judges, drafts and answers n items of a split, each part on all of them."""
    tools = Tools(["zoom"])
    judge = ToolJudge(large, tools=tools)
    answerer = SpeculativeAnswerer(small, top_k=RECORDED_K)
    agent = AgenticFallback(large, tools=tools, max_batch=batch, max_tokens=96)
    records: list[Record] = []
    with tqdm(total=n, desc=split) as bar:
        for group in batches(questions(split, n, start=start), batch):
            queries = [item.query for item in group]
            ways = agent(queries)
            for item, judged, draft, way in zip(
                group, judge(queries), answerer(queries), ways, strict=True
            ):
                records.append(
                    Record(
                        item.kind,
                        item.needs_tools,
                        judged.needs_tools,
                        1.0 if judged.p_tools is None else judged.p_tools,
                        draft,
                        is_correct(draft.text, item.answer),
                        is_correct(way.answer, item.answer),
                        way.depth,
                        way.tokens,
                        way.stop,
                    )
                )
            bar.update(len(group))
    return records


def separabilities(records: Sequence[Record], top_k: int) -> np.ndarray:
    """Raw separability under min of each draft; -inf for one that the gate rejects unscored."""
    raw = raw_scores([r.draft.top_logprobs for r in records], top_k, "min")
    whole = np.array([r.draft.finish == "stop" and bool(r.draft.text.strip()) for r in records])
    return np.where(whole & ~np.isnan(raw), raw, -np.inf)


def choose(records: Sequence[Record]) -> dict[str, Any]:
    """K with the best AUROC, and the loosest threshold that costs at most `LOSS` accuracy."""
    right = np.array([r.draft_right for r in records])
    agent = np.array([r.agent_right for r in records])
    let = np.array([not r.judged_tools for r in records])
    curve = {k: auroc(separabilities(records, k), right) for k in range(3, RECORDED_K + 1)}
    # The flat top of the curve is noise: the smallest K within 0.002 of the best.
    top_k = min(k for k, value in curve.items() if value >= max(curve.values()) - 0.002)
    raw = separabilities(records, top_k)
    order = np.argsort(-raw, kind="stable")
    order = order[let[order] & np.isfinite(raw[order])]
    lost = np.cumsum(agent[order].astype(float) - right[order]) / len(records)
    allowed = np.flatnonzero(lost <= LOSS)
    if not len(allowed):
        raise RuntimeError("no threshold keeps the accuracy: every accepted draft loses too much")
    last = int(allowed[-1])
    # Between the last accepted and the first rejected score, on the scale people see.
    follow = raw[order[last + 1]] if last + 1 < len(order) else raw[order[last]]
    threshold = round(sigmoid(float(raw[order[last]] + follow) / 2), 12)
    return {
        "threshold": threshold,
        "top_k": top_k,
        "aggregate": "min",
        "auroc_by_k": {str(k): round(v, 4) for k, v in curve.items()},
    }


def _share(hits: Sequence[bool] | np.ndarray) -> dict[str, Any]:
    k, n = int(np.sum(hits)), len(hits)
    low, high = wilson_interval(k, n)
    return {"share": round(k / max(n, 1), 4), "low": round(low, 4), "high": round(high, 4), "n": n}


def figures(records: Sequence[Record], threshold: float, top_k: int) -> dict[str, Any]:
    """Accuracy of each part, of the funnel at that gate, and by kind of question."""
    raw = separabilities(records, top_k)
    gate = SeparabilityGate(threshold, top_k=top_k)
    right = np.array([r.draft_right for r in records])
    agent = np.array([r.agent_right for r in records])
    let = np.array([not r.judged_tools for r in records])
    accepted = let & (raw >= gate.raw_threshold)
    by_kind: dict[str, Any] = {}
    for kind in sorted({r.kind for r in records}):
        mask = np.array([r.kind == kind for r in records])
        by_kind[kind] = {
            "n": int(mask.sum()),
            "agent": round(float(agent[mask].mean()), 3),
            "draft": round(float(right[mask].mean()), 3),
            "judge": round(
                float(
                    np.mean([r.judged_tools == r.needs_tools for r in records if r.kind == kind])
                ),
                3,
            ),
            "accepted": round(float(accepted[mask].mean()), 3),
        }
    stops: dict[str, int] = defaultdict(int)
    for r in records:
        stops[r.stop] += 1
    return {
        "n": len(records),
        "agent": _share(agent),
        "draft": _share(right),
        "funnel": _share(np.where(accepted, right, agent)),
        "judge": _share([r.judged_tools == r.needs_tools for r in records]),
        "accepted_right": _share(right[accepted]),
        "auroc": round(auroc(raw, right), 4),
        "beta": round(float(let.mean()), 4),
        "alpha": round(float(accepted[let].mean()), 4),
        "mean_depth": round(float(np.mean([r.depth for r in records])), 3),
        "zoom_share": round(float(np.mean([r.depth > 0 for r in records])), 3),
        "mean_tokens": round(float(np.mean([r.tokens for r in records])), 2),
        "mean_draft_tokens": round(float(np.mean([len(r.draft.token_ids) for r in records])), 2),
        "stops": dict(stops),
        "by_kind": by_kind,
    }


def agreement(
    large: VisionLanguageModel,
    small: VisionLanguageModel,
    n: int,
    *,
    batch: int = 32,
    start: int = 0,
) -> dict[str, Any]:
    """Share of held-out queries that get in a batch the text they get alone: drafts, and every
    turn of the agent.

    Returns:
        For each a share with its interval, and the ids of those that differ.
    """
    answerer = SpeculativeAnswerer(small, top_k=8)
    tools = Tools(["zoom"])
    agent = AgenticFallback(large, tools=tools, max_batch=batch, max_tokens=96)
    drafts: dict[str, bool] = {}
    ways: dict[str, bool] = {}
    with tqdm(total=n, desc="batch against single") as bar:
        for group in batches(questions("heldout", n, start=start), batch):
            queries = [item.query for item in group]
            together = zip(queries, answerer(queries), agent(queries), strict=True)
            for query, draft, way in together:
                drafts[query.id] = answerer([query])[0].text == draft.text
                alone = [step.text for step in agent([query])[0].steps]
                ways[query.id] = alone == [step.text for step in way.steps]
                bar.update()
    return {
        name: {
            **_share(list(same.values())),
            "differ": [query_id for query_id, ok in same.items() if not ok],
        }
        for name, same in (("draft", drafts), ("agent", ways))
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Writes `settings.json` beside the weights."""
    parser = argparse.ArgumentParser(
        prog="python -m speceyes.tiny.training.pair", description=__doc__
    )
    parser.add_argument("--weights", type=Path, required=True, help="folder with large/ and small/")
    parser.add_argument("--queries", type=int, default=2000, help="of each split")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument(
        "--agreement", type=int, metavar="N", help="only compare N queries in batches and alone"
    )
    args = parser.parse_args(argv)
    large = HFModel.from_pretrained(args.weights / "large")
    small = HFModel.from_pretrained(args.weights / "small")
    if args.agreement:
        print(json.dumps(agreement(large, small, args.agreement, batch=args.batch)))  # noqa: T201
        return
    started = time.perf_counter()
    gate = choose(record(large, small, "calibration", args.queries, batch=args.batch))
    held = figures(
        record(large, small, "heldout", args.queries, batch=args.batch),
        gate["threshold"],
        gate["top_k"],
    )
    gate["calibration_queries"] = args.queries
    gate["allowed_loss"] = LOSS
    gate["heldout"] = held
    gate["seconds"] = round(time.perf_counter() - started)
    (args.weights / "settings.json").write_text(json.dumps(gate, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
