"""Builds funnels of other parts: no judge, the small model as judge, another score, no drafts.

Any part can be exchanged for another with the same call. For real models give names:
python examples/swap_models.py ChenShawn/DeepEyes-7B Qwen/Qwen3-VL-2B-Instruct
"""

from __future__ import annotations

import sys

from speceyes import (
    AgenticFallback,
    HFModel,
    SeparabilityGate,
    SpecPipeline,
    SpeculativeAnswerer,
    ToolJudge,
    tiny,
)
from speceyes.tiny.scenes import questions


def main(large_name: str = str(tiny.LARGE), small_name: str = str(tiny.SMALL)) -> None:
    large, small = HFModel.from_pretrained(large_name), HFModel.from_pretrained(small_name)
    chosen = tiny.settings()  # a threshold belongs to its small model: calibrate for another
    top_k, threshold = chosen["top_k"], chosen["threshold"]

    drafts = SpeculativeAnswerer(small, top_k=top_k)
    gate = SeparabilityGate(threshold, top_k=top_k, aggregate=chosen["aggregate"])
    agent = AgenticFallback(large, tools=["zoom"])
    judge = ToolJudge(large, tools=["zoom"])
    strict = ToolJudge(large, tools=["zoom"], threshold=0.1)
    by_probability = SeparabilityGate(0.98, top_k=top_k, aggregate="log")
    pipes = {
        "the funnel": SpecPipeline(judge=judge, answerer=drafts, gate=gate, fallback=agent),
        "a strict judge": SpecPipeline(judge=strict, answerer=drafts, gate=gate, fallback=agent),
        "no judge": SpecPipeline(answerer=drafts, gate=gate, fallback=agent),
        "score: log": SpecPipeline(
            judge=judge, answerer=drafts, gate=by_probability, fallback=agent
        ),
        "agent alone": SpecPipeline(fallback=agent),
    }
    items = list(questions("heldout", 8))
    for name, pipe in pipes.items():
        results = pipe([item.query for item in items])
        right = sum(r.answer == item.answer for r, item in zip(results, items, strict=True))
        drafted = sum(result.route == "draft" for result in results)
        print(f"{name:<15} {right} of {len(items)} right, {drafted} answered by the draft")


if __name__ == "__main__":
    main(*sys.argv[1:3])
