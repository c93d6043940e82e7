"""Effect of notes on the large model's answers: shares of them, selectors, and wrong ones.

    python -m speceyes.tiny.training.reasoning_notes --puzzles 300 --out notes.json

Held-out puzzles, the bundled pair or another one, its settings' rule and heads. Two tables from one
run: reasoning transfer under the rule with every selector and share of the reasoning's tokens, all
of them on the same first answers and the same reasoning, and the large model's answers with right,
wrong and irrelevant notes, as another's in its prompt and as the turn that it began itself.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, final, get_args

import numpy as np

from speceyes import prompts
from speceyes.errors import ConfigError
from speceyes.evaluation.statistics import mcnemar_exact, wilson_interval
from speceyes.images.pixel_cache import pixel_key
from speceyes.models.hf import HFModel
from speceyes.models.rows import generate_rows
from speceyes.protocols import VisionLanguageModel
from speceyes.strategies import ReasoningTransfer, Selector, TransferRule, questions
from speceyes.strategies.selection import By, Weights
from speceyes.strategies.verification import same_words
from speceyes.tiny import REASONER_LARGE, REASONER_SMALL, WEIGHTS, puzzles
from speceyes.tiny.scenes import Item
from speceyes.types import Completion, Conversation, Image, Sampling

BATCH: Final = 32
SHARES: Final = (0.25, 0.5, 0.75)
SELECTORS: Final[tuple[By, ...]] = ("attended", "likeliest", "last", "random")
TRIES: Final = 40
_SEED: Final = 20261129


@final
class Remembering:
    """A model that answers what it has answered before from memory, so that runs which differ in
    what is kept share first answers and reasoning.

    Args:
        model: Asked what is new.
    """

    def __init__(self, model: HFModel) -> None:
        self._model = model
        self._said: dict[Any, Completion] = {}
        self._looked: dict[Any, Weights | None] = {}

    @property
    def name(self) -> str:
        """The model's."""
        return self._model.name

    @property
    def tells_likelihoods(self) -> bool:
        """As the model's."""
        return self._model.tells_likelihoods

    def likelihoods(
        self, conversations: Sequence[Conversation], answers: Sequence[str]
    ) -> list[float | None]:
        """As the model's; nothing of it is kept."""
        return self._model.likelihoods(conversations, answers)

    @property
    def tells_attention(self) -> bool:
        """As the model's."""
        return self._model.tells_attention

    def seen_size(self, image: Image) -> tuple[int, int]:
        """(width, height) in pixels, as the model sees the image."""
        return self._model.seen_size(image)

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Completion]:
        """One completion a conversation, in order."""
        keys = [(_key(c), sampling) for c in conversations]
        _fill(self._said, keys, lambda new: self._model.generate(_at(conversations, new), sampling))
        return [self._said[key] for key in keys]

    def attended(
        self, conversations: Sequence[Conversation], said: Sequence[Sequence[int]], lead: str
    ) -> list[Weights | None]:
        """float32[layers, heads, n] each, or None, in order."""
        keys = [(_key(c), tuple(s), lead) for c, s in zip(conversations, said, strict=True)]
        _fill(
            self._looked,
            keys,
            lambda new: self._model.attended(_at(conversations, new), _at(said, new), lead),
        )
        return [self._looked[key] for key in keys]


def _key(conversation: Conversation) -> tuple[Any, ...]:
    parts = [part for m in conversation.messages for part in (m.role, *m.content)]
    return (
        *(part if isinstance(part, str) else pixel_key(part) for part in parts),
        conversation.prefill,
    )


def _at(rows: Sequence[Any], places: Sequence[int]) -> list[Any]:
    return [rows[i] for i in places]


def _fill(kept: dict[Any, Any], keys: Sequence[Any], ask: Callable[[list[int]], Any]) -> None:
    new = [i for i, key in enumerate(keys) if key not in kept]
    if new:
        kept.update(zip((keys[i] for i in new), ask(new), strict=True))


@final
class Told:
    """A small model that reasons as it is told, and answers what nobody else does.

    Args:
        notes: Its reasoning, by the image (`pixel_key`).
    """

    name = "told"

    def __init__(self, notes: Mapping[bytes, str]) -> None:
        self._notes = notes

    def seen_size(self, image: Image) -> tuple[int, int]:
        """(width, height) in pixels: the image's own."""
        return image.width, image.height

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Completion]:
        """One completion a conversation, in order."""
        return [
            Completion(
                self._notes[pixel_key(one.images[0])]
                if one.messages[-1].text.endswith(prompts.REASON)
                else "unknown"
            )
            for one in conversations
        ]


def shares(
    large: Remembering,
    small: Remembering,
    items: Sequence[Item],
    rule: TransferRule,
    place: questions.Place,
    heads: Sequence[tuple[int, int]],
) -> list[dict[str, Any]]:
    """A row for each selector and share: how many answers are right under the rule, tokens kept of
    those written, and won and lost against random ones of the same share, with McNemar's p.
    """
    tried = [Selector("all")]
    tried += [
        Selector(by, share, heads=tuple(heads) if by == "attended" else ())
        for share in SHARES
        for by in SELECTORS
    ]
    right: dict[tuple[str, float], list[bool]] = {}
    rows: list[dict[str, Any]] = []
    for keep in tried:
        run = ReasoningTransfer(
            large, small, rule=rule, place=place, keep=keep, batch_size=BATCH, answer_tokens=20
        )
        answers = [result.answer for result in run([item.query for item in items])]
        key: tuple[str, float] = (keep.by, 1.0 if keep.by == "all" else keep.share)
        right[key] = [
            same_words(item.query, said or "", item.answer)
            for item, said in zip(items, answers, strict=True)
        ]
        done = run.transferred
        rows.append(
            {
                "by": key[0],
                "share": key[1],
                "n": len(items),
                "right": sum(right[key]),
                "settled": done.agreed,
                "kept": done.kept,
                "written": done.written,
            }
        )
    for row in rows:
        lot = right.get(("random", row["share"]))
        if lot is not None and row["by"] != "random":
            pairs = list(zip(right[row["by"], row["share"]], lot, strict=True))
            won, lost = sum(a > b for a, b in pairs), sum(a < b for a, b in pairs)
            row |= {"won": won, "lost": lost, "p": mcnemar_exact(won, lost)}
    return rows


def wrong_notes(
    large: Remembering,
    items: Sequence[Item],
    numbers: Sequence[int],
    credible: float | None = None,
) -> list[dict[str, Any]]:
    """A row for each kind of notes and place: how many answers are right, and how many are what the
    notes lead to; and, where a limit is given, as a turn that the large model reads first and
    doubts below it (`ReasoningTransfer`).

    "right" notes are the puzzle's own way; "wrong" ones its way in a scene of which one or two
    objects are misread, so that another answer follows; "other" ones the way of another puzzle
    about the same scene. Without notes the answer is the brief one. Puzzles to which no misreading
    gives another answer, within `TRIES`, have no wrong notes.
    """
    rng = np.random.default_rng(_SEED)
    told: dict[str, list[tuple[Item, str, str]]] = {
        kind: [] for kind in ("none", "right", "wrong", "other")
    }
    for item, number in zip(items, numbers, strict=True):
        scene, puzzle = puzzles.draw("heldout", number)
        own = puzzle.solve(scene)
        assert own is not None
        told["none"].append((item, "", ""))
        told["right"].append((item, " ".join(own.reasoning), own.answer))
        for _ in range(TRIES):
            wrong = puzzle.solve(puzzles.altered(scene, rng))
            if wrong is not None and wrong.answer != own.answer:
                told["wrong"].append((item, " ".join(wrong.reasoning), wrong.answer))
                break
        other = own
        while other.reasoning == own.reasoning:
            other = puzzles.pose_any(scene, rng).solve(scene) or own
        told["other"].append((item, " ".join(other.reasoning), other.answer))
    rows = []
    for place in get_args(questions.Place):
        for kind, notes in told.items():
            if kind == "none" and place != "prompt":
                continue
            asked = [questions.noted(item.query, text, place) for item, text, _ in notes]
            said = [c.text for c in _answers(large, asked)]
            heard = list(zip(notes, said, strict=True))
            rows.append(
                {
                    "notes": kind,
                    "place": place if kind != "none" else "",
                    "n": len(heard),
                    "right": sum(same_words(i.query, s, i.answer) for (i, _, _), s in heard),
                    "followed": sum(same_words(i.query, s, to) for (i, _, to), s in heard),
                }
            )
    for kind in ("right", "wrong", "other") if credible is not None else ():
        notes = told[kind]
        small = Told({pixel_key(i.query.images[0]): text for i, text, _ in notes})
        run = ReasoningTransfer(
            large, small, place="turn", credible=credible, batch_size=BATCH, answer_tokens=20
        )
        answers = [result.answer or "" for result in run([i.query for i, _, _ in notes])]
        heard = list(zip(notes, answers, strict=True))
        rows.append(
            {
                "notes": kind,
                "place": "turn, read first",
                "n": len(heard),
                "right": sum(same_words(i.query, s, i.answer) for (i, _, _), s in heard),
                "followed": sum(same_words(i.query, s, to) for (i, _, to), s in heard),
                "doubted": run.transferred.doubted,
            }
        )
    return rows


def _answers(large: VisionLanguageModel, asked: Sequence[Conversation]) -> list[Completion]:
    found: list[Completion] = []
    for start in range(0, len(asked), BATCH):
        found += generate_rows(large, asked[start : start + BATCH], Sampling(max_tokens=20))
    return found


def tables(told: dict[str, Any]) -> str:
    """Both tables in Markdown."""
    lines = ["| kept | right, % | over random: won, lost, p |", "|---|---|---|"]
    for row in told["shares"]:
        against = f"{row['won']}, {row['lost']}, {row['p']:.2g}" if "p" in row else ""
        name = f"{100 * row['share']:.0f} % {row['by']}" if row["by"] != "all" else "all"
        lines.append(f"| {name} | {_percent(row['right'], row['n'])} | {against} |")
    lines += ["", "| notes | where | right, % | what the notes lead to, % | doubted |"]
    lines.append("|---|---|---|---|--:|")
    for row in told["notes"]:
        followed = _percent(row["followed"], row["n"]) if row["notes"] != "none" else ""
        doubted = str(row.get("doubted", ""))
        cells = (row["notes"], row["place"], _percent(row["right"], row["n"]), followed, doubted)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _percent(hits: int, n: int) -> str:
    low, high = wilson_interval(hits, n)
    return f"{100 * hits / n:.1f} ({100 * low:.1f}-{100 * high:.1f})"


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, prints both tables and writes all counts."""
    parser = argparse.ArgumentParser(prog="python -m speceyes.tiny.training.reasoning_notes")
    for role, bundled in (("large", REASONER_LARGE), ("small", REASONER_SMALL)):
        parser.add_argument(f"--{role}", type=Path, default=bundled, help="default: the bundled")
    parser.add_argument(
        "--settings", type=Path, default=WEIGHTS / "reasoner.json", help="default: the bundled"
    )
    parser.add_argument("--puzzles", type=int, default=300, help="held-out puzzles")
    parser.add_argument("--start", type=int, default=0, help="number of the first")
    parser.add_argument("--out", type=Path, required=True, help="file of all counts, JSON")
    args = parser.parse_args(argv)
    if args.puzzles < 1:
        raise ConfigError(f"--puzzles {args.puzzles}; it must be at least 1")
    chosen = json.loads(args.settings.read_text(encoding="utf-8"))
    large, small = (Remembering(HFModel.from_pretrained(p)) for p in (args.large, args.small))
    items = list(puzzles.questions("heldout", args.puzzles, start=args.start))
    rule = TransferRule.from_dict(chosen["rule"])
    numbers = range(args.start, args.start + args.puzzles)
    told = {
        "puzzles": args.puzzles,
        "start": args.start,
        "shares": shares(large, small, items, rule, chosen["place"], chosen["heads"]),
        "notes": wrong_notes(large, items, numbers, chosen.get("credible")),
    }
    args.out.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"{tables(told)}\n")


if __name__ == "__main__":
    main()
