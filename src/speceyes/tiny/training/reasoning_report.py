"""Settings and transcripts of a pair that reasons, by its own words.

    python -m speceyes.tiny.training.reasoning_report --large DIR --small DIR --out DIR
    python -m speceyes.tiny.training.reasoning_report --settings FILE --out DIR

Chooses the small model's attention heads, and the rule by which first answers settle and notes are
heeded, on the calibration split (`settings.json`), unless a file has them already, and writes
held-out transcripts with their pictures (`transcripts.md`). On the first the small model's
attention is drawn, by the chosen heads: over the picture, for each object that the reasoning names,
and over the reasoning beside it. Accuracies are `speceyes eval`'s affair.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

from speceyes.models.hf import HFModel
from speceyes.models.rows import generate_rows
from speceyes.strategies import ReasoningTransfer, questions
from speceyes.strategies.attention_heads import choose_heads, reason_for
from speceyes.strategies.selection import Selector, Weights, tokens_of
from speceyes.strategies.transfer_rule import TOP_K
from speceyes.strategies.verification import same_words
from speceyes.tiny import REASONER_LARGE, REASONER_SMALL, puzzles
from speceyes.tiny.scenes import GRID
from speceyes.types import Completion, Image, Query, Sampling

BATCH = 32
HEADS_BY = 96
"""Puzzles by which heads are chosen; each is asked once for each head."""


@dataclass(frozen=True, slots=True)
class Way:
    """A puzzle with all that was said about it.

    Args:
        query: The puzzle.
        gold: The right answer.
        large: The large model's answer at once.
        small: The small model's answer at once.
        reasoning: What the small model wrote.
        attention: float32[layers, heads, n] over the reasoning's tokens.
        notes: What was kept of it.
        final: The large model's answer with the notes.
        whole: Its answer with all of the reasoning.
    """

    query: Query
    gold: str
    large: Completion
    small: Completion
    reasoning: Completion
    attention: Weights
    notes: str
    final: str
    whole: str


def settings(large: HFModel, small: HFModel, n: int) -> dict[str, Any]:
    """Heads and rule, chosen on n calibration puzzles."""
    items = list(puzzles.questions("calibration", n))
    gold = {item.query.id: item.answer for item in items}
    queries = [item.query for item in items]

    def right(query: Query, said: str) -> bool:
        return same_words(query, said, gold[query.id])

    places: tuple[questions.Place, ...] = ("prompt", "turn")
    rules = {
        place: ReasoningTransfer(large, small, batch_size=BATCH, place=place).calibrate(
            queries, right, top_k=TOP_K
        )
        for place in places
    }
    best = max(places, key=lambda place: rules[place].right)
    return {
        "top_k": TOP_K,
        "place": best,
        "rule": rules[best].to_dict(),
        "heads": choose_heads(large, reason_for(small, queries[:HEADS_BY]), right, place=best),
        "credible": credible(large, n),
        "calibration": n,
        "noted": {place: rule.noted for place, rule in rules.items()},
    }


def credible(large: HFModel, n: int) -> float:
    """The least mean log-probability, nats a token, at which the large model should believe a
    reasoning: halfway between the least likely of n right ones about calibration scenes and the
    likeliest of as many in which an object or two are misread so that another answer follows.
    """
    rng = np.random.default_rng(3)
    asked, right, wrong = [], [], []
    for number, item in enumerate(puzzles.questions("calibration", n)):
        scene, puzzle = puzzles.draw("calibration", number)
        own = puzzle.solve(scene)
        assert own is not None
        for _ in range(40):
            other = puzzle.solve(puzzles.altered(scene, rng))
            if other is not None and other.answer != own.answer:
                asked.append(questions.reasoning(item.query))
                right.append(" ".join(own.reasoning))
                wrong.append(" ".join(other.reasoning))
                break
    told = [
        [p for p in large.likelihoods(asked, texts) if p is not None] for texts in (right, wrong)
    ]
    return round((min(told[0]) + max(told[1])) / 2, 4)


def ways(
    large: HFModel, small: HFModel, selector: Selector, n: int, place: questions.Place
) -> list[Way]:
    """The first n held-out puzzles over which the two models' first answers differ."""
    found: list[Way] = []
    start = 0
    while len(found) < n and start < 100 * n:
        items = list(puzzles.questions("heldout", BATCH, start=start))
        start += BATCH
        told = [questions.short(item.query) for item in items]
        short = Sampling(max_tokens=20)
        by_large, by_small = (generate_rows(m, told, short) for m in (large, small))
        left = [
            (item, a, b)
            for item, a, b in zip(items, by_large, by_small, strict=True)
            if not same_words(item.query, a.text, b.text)
        ]
        reasoned = {r.query.id: r for r in reason_for(small, [item.query for item, _, _ in left])}
        for item, a, b in left:
            if item.query.id not in reasoned or len(found) == n:
                continue
            one = reasoned[item.query.id]
            notes, _, _ = selector.select(one.reasoning, one.attention)
            told = [
                questions.noted(item.query, text, place)
                for text in (notes, one.reasoning.text.strip())
            ]
            last = [said.text for said in generate_rows(large, told, short)]
            found.append(
                Way(item.query, item.answer, a, b, one.reasoning, one.attention, notes, *last)
            )
    return found


def draw_attention(picture: Image, way: Way, selector: Selector, width: int = 900) -> Image:
    """The picture, and beside it the reasoning: the redder a token, the more it is attended to, by
    the fourth root; those that are kept are framed. Over the picture, each object that the
    reasoning names has a frame, as red as what is said of it (`shares_by_place`).
    """
    tokens = tokens_of(way.reasoning)
    heads = selector.heads or tuple(np.ndindex(*way.attention.shape[:2]))
    weights = np.sum([way.attention[a, b] for a, b in heads], axis=0)
    share = (weights / max(float(weights.max()), 1e-9)) ** 0.25  # a total takes nearly all of it
    count = max(1, round(selector.share * len(tokens)))
    kept = set(np.argsort(-weights, kind="stable")[:count].tolist())
    font = ImageFont.load_default(18)
    side = 320
    sheet = PILImage.new("RGB", (width, side + 20), "white")
    sheet.paste(picture.resize((side, side)), (10, 10))
    draw = ImageDraw.Draw(sheet)
    for (row, column), red in shares_by_place(tokens, share).items():
        over, down = 10 + (column - 1) * side // GRID, 10 + (row - 1) * side // GRID
        frame = (over + 3, down + 3, over + side // GRID - 3, down + side // GRID - 3)
        draw.rectangle(frame, outline=_red(red), width=4)
    left = x = side + 25.0
    y = 14
    for at, token in enumerate(tokens):
        text = token.strip()
        long = draw.textlength(text, font=font)
        if x + long > width - 12:
            x, y = left, y + 28
        box = (x - 2, y - 1, x + long + 2, y + 22)
        draw.rectangle(box, fill=_red(share[at]), outline=(30, 30, 30) if at in kept else None)
        draw.text((x, y), text, fill="black", font=font)
        x += long + 7
    return sheet


def _red(share: float) -> tuple[int, int, int]:
    """White for nothing, red for what is attended to most."""
    shade = int(255 - 150 * share)
    return 255, shade, shade


def shares_by_place(tokens: Sequence[str], share: Sequence[float]) -> dict[tuple[int, int], float]:
    """The greatest share of any token that is said of an object, by its row and column from 1.

    Example:
        >>> said = ["Row 2:", " column 3", " red ring", " (1)", ".", " Rings:", " 1", "."]
        >>> shares_by_place(said, [0.9, 0.2, 0.5, 0.1, 0.9, 0.9, 0.9, 0.9])
        {(2, 3): 0.5}
    """
    found: dict[tuple[int, int], float] = {}
    row, place = 0, None
    for token, red in zip(tokens, share, strict=True):
        if number := re.search(r"Row (\d)", token):
            row, place = int(number[1]), None
        elif number := re.search(r"column (\d)", token):
            place = row, int(number[1])
        elif token.strip() in (".", ",") or token.strip().endswith(":"):
            place = None
        if place is not None:
            found[place] = max(found.get(place, 0.0), float(red))
    return found


def write_transcripts(out: Path, found: Sequence[Way], selector: Selector) -> None:
    """`transcripts.md` and its pictures."""
    lines = []
    for number, way in enumerate(found, start=1):
        picture = way.query.images[0]
        name = f"puzzle-{number}.png"
        if number == 1:
            draw_attention(picture, way, selector).save(out / name, optimize=True)
        else:
            picture.resize((200, 200)).save(out / name, optimize=True)
        lines += [
            f"### {number}. {way.query.question}",
            "",
            f"![The scene of puzzle {number}]({name})",
            "",
            "| | |",
            "|---|---|",
            f"| at once | large: {way.large.text.strip()}; small: {way.small.text.strip()} |",
            f"| small, reasoning | {way.reasoning.text.strip()} |",
            f"| kept, {100 * selector.share:.0f} % by attention | {way.notes} |",
            f"| large, after reading | what is kept: {way.final.strip()}; "
            f"all: {way.whole.strip()} (right: {way.gold}) |",
            "",
        ]
    (out / "transcripts.md").write_text("\n".join(lines), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    """Writes settings and transcripts."""
    parser = argparse.ArgumentParser(prog="python -m speceyes.tiny.training.reasoning_report")
    for role, bundled in (("large", REASONER_LARGE), ("small", REASONER_SMALL)):
        parser.add_argument(
            f"--{role}", type=Path, default=bundled, help="exported model; default: the bundled one"
        )
    parser.add_argument("--settings", type=Path, help="heads and rule that were chosen before")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--calibration", type=int, default=200, help="calibration puzzles")
    parser.add_argument("--transcripts", type=int, default=10)
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    large, small = HFModel.from_pretrained(args.large), HFModel.from_pretrained(args.small)
    if args.settings is not None:
        chosen = json.loads(args.settings.read_text(encoding="utf-8"))
    else:
        chosen = settings(large, small, args.calibration)
        told = json.dumps(chosen, indent=1)
        (args.out / "settings.json").write_text(told + "\n", encoding="utf-8")
    selector = Selector("attended", heads=chosen["heads"])
    write_transcripts(
        args.out, ways(large, small, selector, args.transcripts, chosen["place"]), selector
    )


if __name__ == "__main__":
    main()
