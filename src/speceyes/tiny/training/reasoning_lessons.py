"""Lessons of the pair that reasons: answers at once, reasoning, answers with notes, in tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from speceyes import prompts
from speceyes.strategies.selection import join_kept
from speceyes.tiny import puzzles
from speceyes.tiny.puzzles import Puzzle, Solution
from speceyes.tiny.scenes import COLOURS, GRID, SHAPES, Scene
from speceyes.tiny.training.lessons import TOKENS, Row
from speceyes.tiny.training.models import END, build_tokenizer
from speceyes.tiny.training.transcripts import chat_text
from speceyes.types import Conversation, Message

Role: TypeAlias = Literal["given", "reason", "answer"]
ROLES: tuple[Role, ...] = ("given", "reason", "answer")


def phrases() -> list[str]:
    """Texts that are one token each beside those of the bundled pair."""
    numbers = range(10)
    places = range(1, GRID + 1)
    rows = [f"{lead}Row {n}:" for n in places for lead in ("", " ", ". ")]
    columns = [f"{lead} column {n}" for n in places for lead in ("", ",")]
    marks = [f" ({n})" for n in numbers] + [f" [{n}]" for n in numbers]
    things = [f" {colour} {shape}" for colour in COLOURS for shape in SHAPES]
    headers = [f" {puzzles.header(group)}" for group in (*COLOURS, *SHAPES)]
    notes = prompts.TRANSFER.removesuffix("{notes}")
    return [
        notes,
        prompts.REASON,
        prompts.REASONED,
        *rows,
        *columns,
        *marks,
        *headers,
        *things,
        " Total:",
        " nothing",
        *(f" {n}" for n in (0, 5, 6, 7, 8, 9)),
        *(f" {puzzles.plural(shape)}" for shape in SHAPES),
        *(puzzles.plural(shape) for shape in SHAPES),
        "neither",
        " neither",
        " objects",
        "How many",
        " are there?",
        "What is the number of",
        " plus the number of",
        "Which are there more of",
        "Is the number of",
        " the same as the number of",
        " above the number of",
    ]


def reasoning_tokenizer() -> PreTrainedTokenizerFast:
    """The bundled pair's tokenizer with more phrases behind it; the ids before stay as they are."""
    tokenizer = build_tokenizer()
    tokenizer.add_tokens([AddedToken(p, normalized=False) for p in phrases()])
    return tokenizer


@dataclass(frozen=True, slots=True)
class Told:
    """A conversation to learn from: pieces of text with their roles."""

    name: str
    pieces: tuple[tuple[str, Role], ...]


def _asked(question: str, instruction: str) -> str:
    content = Message(
        "user", (f"<|vision_start|><|image_pad|><|vision_end|>{question}\n{instruction}",)
    )
    return chat_text(Conversation((content,)))


def told_short(puzzle: Puzzle, solution: Solution) -> Told:
    """The answer at once."""
    given = _asked(puzzle.text, prompts.DRAFT)
    return Told(f"short {puzzle.kind}", ((given, "given"), (f"{solution.answer}{END}", "answer")))


def told_reasoning(puzzle: Puzzle, solution: Solution) -> Told:
    """Reasoning, and the answer behind it. The end of the turn is learned after the reasoning."""
    given = _asked(puzzle.text, prompts.REASON)
    return Told(
        f"reason {puzzle.kind}",
        (
            (given, "given"),
            (" ".join(solution.reasoning), "reason"),
            (f"\n{prompts.REASONED}", "given"),
            (f" {solution.answer}{END}", "answer"),
        ),
    )


def told_noted(puzzle: Puzzle, solution: Solution, notes: str, kind: str) -> Told:
    """The answer at once, with notes in the prompt."""
    lead = prompts.TRANSFER.replace("{notes}", notes)
    given = _asked(puzzle.text, f"{lead}\n{prompts.DRAFT}")
    return Told(f"{kind} notes", ((given, "given"), (f"{solution.answer}{END}", "answer")))


class Encoder:
    """Turns what is told into token rows.

    Args:
        tokenizer: With the puzzles' phrases.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        self._pad = int(tokenizer.convert_tokens_to_ids("<|image_pad|>"))
        self._words = [tokenizer.decode([i]) for i in range(len(tokenizer))]

    def encode(self, text: str) -> list[int]:
        """Token ids; an image's pad is repeated for each of its tokens."""
        raw = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return [i for t in raw for i in ([t] * (TOKENS**2 if t == self._pad else 1))]

    def words(self, text: str) -> list[str]:
        """The texts of its tokens."""
        return [self._words[i] for i in self.encode(text)]

    def row(self, told: Told, scene: int) -> Row:
        """The row; roles index `ROLES`."""
        ids: list[int] = []
        roles: list[int] = []
        for text, role in told.pieces:
            more = self.encode(text)
            ids += more
            roles += [ROLES.index(role)] * len(more)
        none = np.zeros((0, 5), dtype=np.int64)
        return Row(np.array(ids), np.array(roles), (scene,), told.name, none)


class Notes:
    """Draws notes as a selector might hand them over, some of them bad.

    Args:
        encoder: Cuts reasoning into tokens.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    def draw(
        self, scene: Scene, puzzle: Puzzle, solution: Solution, rng: np.random.Generator
    ) -> tuple[str, str]:
        """Kind ("right", "part", "wrong", "other") and text."""
        chance = rng.random()
        if chance < 0.24:
            return "right", " ".join(solution.reasoning)
        if chance < 0.70:
            return "part", self._part(solution, rng)
        if chance < 0.86:
            for _ in range(20):
                other = puzzle.solve(puzzles.altered(scene, rng))
                if other is not None and other.answer != solution.answer:
                    whole = rng.random() < 0.6
                    return "wrong", " ".join(other.reasoning) if whole else self._part(other, rng)
        elsewhere = scene if rng.random() < 0.5 else puzzles.draw_scene(rng)
        while True:
            other_puzzle = puzzles.pose_any(elsewhere, rng)
            if other_puzzle != puzzle:
                other = other_puzzle.solve(elsewhere)
                assert other is not None
                return "other", " ".join(other.reasoning)

    def _part(self, solution: Solution, rng: np.random.Generator) -> str:
        said = " ".join(solution.reasoning)
        words = self._encoder.words(said)
        n = len(words)
        chance, share = rng.random(), rng.uniform(0.2, 0.9)
        count = max(1, round(share * n))
        if chance < 0.4:
            kept = set(rng.permutation(n)[:count].tolist())
        elif chance < 0.7:
            kept = set(range(n - count, n))
        else:
            sentences = solution.reasoning
            some = sorted(rng.permutation(len(sentences))[: max(1, round(share * len(sentences)))])
            return " ".join(sentences[i] for i in some)
        return join_kept(words, [i in kept for i in range(n)])
