"""Scripted models that know the answers to given items, with the faults they are told to have.

They stand for a trained pair where a test is about the demo and its report, not about weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw

from speceyes.answerer import SpeculativeAnswerer
from speceyes.evaluation.demo import Demo
from speceyes.fallback import AgenticFallback
from speceyes.gate import SeparabilityGate
from speceyes.images.pixel_cache import pixel_key
from speceyes.judge import ToolJudge
from speceyes.models.scripted import ScriptedModel
from speceyes.pipeline import ScheduleConfig, SpecPipeline
from speceyes.types import Conversation, Query, Sampling


class Card:
    """An item: a scene with one square of a colour, which is asked for."""

    def __init__(self, number: int, colour: str, kind: str, question: str = "") -> None:
        image = Image.new("RGB", (320, 240), (190, 190, 185))
        side = 110 if kind == "large" else 24
        left, top = 20 + 37 * number % 151, 15 + 53 * number % 101  # no two of many are alike
        ImageDraw.Draw(image).rectangle((left, top, left + side, top + side), fill=colour)
        self.box = (left - 8, top - 8, left + side + 8, top + side + 8)
        self.query = Query(question or "What colour is the square?", (image,), id=f"card-{number}")
        self.answer = colour
        self.kind = kind


def cards(n: int) -> list[Card]:
    """n items, every third one small."""
    colours = ("red", "green", "blue", "orange")
    return [Card(i, colours[i % 4], "small" if i % 3 == 2 else "large") for i in range(n)]


def demo_of(items: Sequence[Any], **settings: Any) -> Demo:
    """A demo whose models know the items by their image.

    The judge lets all but small squares through, and every fifth small one; the small model is
    wrong, and unsure, on small squares; the agent zooms, then answers, and is wrong on item 4.
    """
    known = {pixel_key(item.query.images[0]): (at, item) for at, item in enumerate(items)}

    def found(conversation: Conversation) -> tuple[int, Any]:
        return known[pixel_key(conversation.images[0])]

    def small(conversation: Conversation, sampling: Sampling) -> str:
        item = found(conversation)[1]
        return "pink" if item.kind.startswith(("small", "card")) else item.answer

    def margin(conversation: Conversation) -> float:
        at, item = found(conversation)
        return 3.5 + at % 4 if item.kind.startswith(("small", "card")) else 9.0 + at % 7

    def large(conversation: Conversation, sampling: Sampling) -> str:
        at, item = found(conversation)
        if sampling.first_token:
            return "yes" if item.kind.startswith(("small", "card")) and at % 5 else "no"
        if len(conversation.images) == 1:
            x0, y0, x1, y1 = getattr(item, "box", (100, 100, 400, 400))
            return (
                "<think>It is small, let me look closer.</think><tool_call>"
                f'{{"name": "image_zoom_in_tool", "arguments": {{"bbox_2d": [{x0}, {y0}, {x1}, '
                f"{y1}]}}}}</tool_call>"
            )
        return f"<think>Now I see it.</think><answer>{'pink' if at == 4 else item.answer}</answer>"

    strong = ScriptedModel(large, name="large", delay_s=settings.pop("large_s", 0.0))
    quick = ScriptedModel(small, name="small", margin=margin, delay_s=settings.pop("small_s", 0.0))
    gate = SeparabilityGate(0.98, top_k=8)
    answerer = SpeculativeAnswerer(quick, top_k=8)
    agent = AgenticFallback(strong, tools=["zoom"], max_batch=1)
    batched = AgenticFallback(strong, tools=["zoom"], max_batch=8)
    judge = ToolJudge(strong, tools=["zoom"])
    return Demo(
        pipeline=SpecPipeline(
            judge=judge,
            answerer=answerer,
            gate=gate,
            fallback=batched,
            schedule=ScheduleConfig(batch_size=8),
        ),
        agent=agent,
        agent_batched=batched,
        answerer=answerer,
        gate=gate,
        batch_size=8,
        **settings,
    )
