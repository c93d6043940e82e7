"""Coroutines that ask on their own share batches; one that is cancelled takes its query back.

Run: python examples/async_many.py
"""

from __future__ import annotations

import asyncio
from collections import Counter

from speceyes import SpecPipeline, tiny
from speceyes.pipeline.events import Event, PhaseEnded
from speceyes.tiny.scenes import questions

QUERIES = 24
rows: Counter[int] = Counter()


def watch(event: Event) -> None:
    """An observer: notes how many queries were drafted together."""
    if isinstance(event, PhaseEnded) and event.phase == "draft":
        rows[event.rows] += 1


async def visitor(pipe: SpecPipeline, item) -> str:
    result = await pipe.ask(item.query)
    return f"{item.query.question} {result.answer} ({result.route})"


async def main() -> None:
    with SpecPipeline.from_pretrained(
        large=tiny.LARGE,
        small=tiny.SMALL,
        observers=[watch],
        gate=tiny.gate(),
    ) as pipe:
        visitors = [visitor(pipe, item) for item in questions("heldout", QUERIES)]
        for line in await asyncio.gather(*visitors):
            print(line)
    together = sum(count for size, count in rows.items() if size > 1)
    print(f"{together} of {sum(rows.values())} drafts shared a batch")


if __name__ == "__main__":
    asyncio.run(main())
