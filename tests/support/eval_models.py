"""A scripted evaluation: cards written as a benchmark, models that know them, a whole run.

As a program, `python eval_models.py FOLDER DELAY` runs or resumes one for each line that it is
sent, for tests that kill it: each time in a process of its own, forked, since reading the modules
takes longer than the run. It tells the process's number, then the status with which it ended.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from speceyes.evaluation import arms, benchmarks
from speceyes.evaluation.context import EvalContext
from speceyes.evaluation.evaluate import Plan, evaluate
from speceyes.evaluation.runs import Run
from speceyes.images.pixel_cache import pixel_key
from speceyes.images.reduced import reduced
from speceyes.models.scripted import ScriptedModel
from speceyes.prompts import CHOICE, DRAFT
from speceyes.protocols import VisionLanguageModel
from speceyes.types import Conversation, Sampling
from support.demo_models import Card, cards
from support.models import FakeModel

COUNT = 36


RUNG = 400
"""Pixels of the first drafts of a ladder."""


def context_of(items: list[Card], *, delay_s: float = 0.0, batch_size: int = 2) -> EvalContext:
    """The small model is wrong and unsure on small squares; the agent zooms, and fails on card 7
    and is wrong on card 4.
    """
    known = {pixel_key(item.query.images[0]): at for at, item in enumerate(items)}
    # And as a ladder's first rung sees them.
    known |= {pixel_key(reduced(item.query, RUNG).images[0]): at for at, item in enumerate(items)}

    def at_of(conversation: Conversation) -> int:
        return known[pixel_key(conversation.images[0])]

    def small(conversation: Conversation, sampling: Sampling) -> str:
        item = items[at_of(conversation)]
        if sampling.first_token:
            return "no"
        if item.kind == "small" and conversation.messages[-1].text.endswith("look closer"):
            return "look closer"
        return "pink" if item.kind == "small" else item.answer

    def margin(conversation: Conversation) -> float:
        at = at_of(conversation)
        return 3.5 + at % 4 if items[at].kind == "small" else 9.0 + at % 7

    def large(conversation: Conversation, sampling: Sampling) -> Any:
        at = at_of(conversation)
        if sampling.first_token:
            return "yes" if items[at].kind == "small" and at % 5 else "no"
        if at == 7:
            return RuntimeError("out of memory")
        if len(conversation.images) == 1:
            box = list(items[at].box)
            return (
                '<think>closer</think><tool_call>{"name": "image_zoom_in_tool", "arguments": '
                f'{{"bbox_2d": {box}}}}}</tool_call>'
            )
        return f"<answer>{'pink' if at == 4 else items[at].answer}</answer>"

    def asks_for_a_draft(conversation: Conversation) -> bool:
        return conversation.messages[-1].text.rstrip().endswith((DRAFT, CHOICE))

    def looker(conversation: Conversation, sampling: Sampling) -> str:
        item = items[at_of(conversation)]
        if asks_for_a_draft(conversation):
            seen = item.kind != "small" or len(conversation.images) > 1
            return item.answer if seen else "pink"
        box = list(item.box)
        return (
            '<think>closer</think><tool_call>{"name": "image_zoom_in_tool", "arguments": '
            f'{{"bbox_2d": {box}}}}}</tool_call>'
        )

    def sure(conversation: Conversation) -> float:
        return 10.0 if len(conversation.images) > 1 else margin(conversation)

    return EvalContext(
        ScriptedModel(large, name="large", delay_s=delay_s),
        FakeModel(small, wide=128, name="small", margin=margin, delay_s=delay_s),
        {},
        top_k=64,
        record_k=128,
        batch_size=batch_size,
        looker=FakeModel(looker, wide=128, name="looker", margin=sure, delay_s=delay_s),
    )


def fixed_of(context: EvalContext, plan: Plan, n: int) -> dict[str, Any]:
    """What the command would put into the manifest."""
    model = {"revision": None, "files": {}}
    prompt_hash = context.answerer(context.top_k).prompt_hash
    return {
        "plan": {name: getattr(plan, name) for name in plan.__dataclass_fields__},
        "benchmark": {"name": "jsonl", "parity": False, "n": n, "bad": []},
        "models": {"large": {"name": "large", **model}, "small": {"name": "small", **model}},
        "context": {"top_k": context.top_k, "prompt_hash": prompt_hash},
    }


def run_in(
    folder: Path,
    *,
    delay_s: float = 0.0,
    n: int = COUNT,
    names: tuple[str, ...] = ("min", "log"),
    max_failures: float = 0.2,
    rivals: Mapping[str, VisionLanguageModel] | None = None,
    rung: int | None = None,
    **plan: Any,
) -> Run:
    """Runs or resumes the evaluation in a folder."""
    items = cards(n)
    data = folder.parent / f"cards-{n}"
    if not data.exists():
        benchmarks.write("jsonl", items, data)
    samples = benchmarks.load(data).samples
    asked = Plan(arms.chosen(names), **{"batch_size": 2, "sweep_batch": (1,), **plan})
    asked_context = context_of(items, delay_s=delay_s, batch_size=asked.batch_size)
    asked_context = replace(asked_context, rivals=rivals or {}, rung=rung)
    fixed = fixed_of(asked_context, asked, n)
    return evaluate(
        samples, asked_context, asked, folder=folder, fixed=fixed, max_failures=max_failures
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as elsewhere:  # reads the modules that are read late
        run_in(Path(elsewhere) / "run")
    for _ in sys.stdin:
        child = os.fork()
        if not child:
            run_in(Path(sys.argv[1]), delay_s=float(sys.argv[2]))
            os._exit(0)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()
