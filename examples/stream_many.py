"""Streams many queries through the funnel and writes each result as a line of JSON.

Nothing is held but the queries under way, so the source may be endless.
Run: python examples/stream_many.py results.jsonl
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from speceyes import Query, Result, SpecPipeline, tiny
from speceyes.pipeline import ScheduleConfig
from speceyes.tiny.scenes import questions

QUERIES = 24


def source() -> Iterator[Query]:
    """The queries, each drawn only when there is room for it."""
    for item in questions("heldout", QUERIES):
        yield item.query


def main(path: str = "results.jsonl") -> None:
    pipe = SpecPipeline.from_pretrained(
        large=tiny.LARGE,
        small=tiny.SMALL,
        gate=tiny.gate(),
        schedule=ScheduleConfig(batch_size=8),
    )
    routes: Counter[str] = Counter()
    with Path(path).open("w", encoding="utf-8") as file:
        for result in pipe.stream(source()):  # as they finish: drafts first
            file.write(result.to_json() + "\n")
            routes[result.route] += 1
            print(f"{result.query_id}: {result.answer} ({result.route})")
    print(dict(routes))

    again = [Result.from_json(line) for line in Path(path).read_text("utf-8").splitlines()]
    assert len(again) == QUERIES


if __name__ == "__main__":
    main(*sys.argv[1:2])
