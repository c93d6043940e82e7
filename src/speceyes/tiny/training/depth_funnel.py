"""Whole funnels with and without depth: `python -m speceyes.tiny.training.depth_funnel --out FILE`.

Uses what `speceyes.tiny.training.depth` chose on the calibration split.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speceyes.answerer import SpeculativeAnswerer
from speceyes.drafting import DepthRule, depth_of
from speceyes.fallback import AgenticFallback
from speceyes.gate import SeparabilityGate
from speceyes.judge import ToolJudge
from speceyes.models.hf import HFModel
from speceyes.pipeline import SpecPipeline
from speceyes.tiny import LARGE, SMALL, SMALL_ZOOM, depth_settings
from speceyes.tiny.scenes import questions
from speceyes.tiny.training.depth import is_right
from speceyes.tools import Tools
from speceyes.types import Completion, Query


def funnel(name: str, judged: bool, n: int) -> dict[str, float]:
    """A whole funnel with the settings that were chosen, on n held-out questions of its own: shares
    (0 to 1), the agent's tokens and processor seconds a question, drawing the scenes left out.
    """
    known = depth_settings()
    way = known["judged" if judged else "unjudged"][name]
    top_k, tools = int(known["top_k"]), Tools(["zoom"])
    gate = SeparabilityGate(way["threshold"], top_k=top_k)
    deep: dict[str, Any] = {}
    if "rule" in way:
        costs_s = (way["rule"]["extra_s"], known["cpu_seconds"]["agent"])
        bins = (tuple(way["rule"]["edges"]), tuple(way["rule"]["chances"]))
        deep = {"tools": tools, "max_depth": 1, "rule": DepthRule(gate, *bins, *costs_s)}
    small = HFModel.from_pretrained(SMALL if name == "small" else SMALL_ZOOM)
    large = HFModel.from_pretrained(LARGE)
    pipe = SpecPipeline(
        judge=ToolJudge(large, tools=tools) if judged else None,
        answerer=SpeculativeAnswerer(small, top_k=top_k, **deep),
        gate=gate,
        fallback=AgenticFallback(large, tools=tools, max_tokens=96),
    )
    answers: dict[str, str] = {}
    drawing = 0.0

    def asked(n: int, start: int) -> Iterator[Query]:
        nonlocal drawing
        items = questions("heldout", n, start=start)
        while True:
            begun = time.process_time()
            item = next(items, None)
            drawing += time.process_time() - begun
            if item is None:
                return
            answers[item.query.id] = item.answer
            yield item.query

    list(pipe.stream(asked(16, 29_000)))  # warms up
    drawing, begun = 0.0, time.process_time()
    results = list(pipe.stream(asked(n, 30_000)))
    seconds = time.process_time() - begun - drawing
    return {
        "right": float(np.mean([is_right(r.answer or "", answers[r.query_id]) for r in results])),
        "by draft": float(np.mean([r.route == "draft" for r in results])),
        "by deep draft": float(
            np.mean([r.route == "draft" and depth_of(r.draft or Completion("")) for r in results])
        ),
        "agent's tokens": sum(r.trajectory.tokens for r in results if r.trajectory) / n,
        "cpu_seconds": seconds / n,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the figures of four funnels as JSON."""
    parser = argparse.ArgumentParser(prog="python -m speceyes.tiny.training.depth_funnel")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--queries", type=int, default=320)
    args = parser.parse_args(argv)
    ran = {
        f"{name}, {'judge' if judged else 'no judge'}": funnel(name, judged, args.queries)
        for judged in (True, False)
        for name in ("small", "small_zoom, depth 1")
    }
    args.out.write_text(json.dumps(ran, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
