"""Chooses the attention heads by which reasoning is selected, on a calibration split.

Heads differ: some look at what comes next, some at the sentence's beginning, a few at what settles
the answer. A mean over all of them blurs the few. Each head is tried alone: the large model is
given what that head attends to most, and the heads after which it is right most often are taken
together as long as that doesn't lose.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from speceyes.errors import InputError
from speceyes.models.rows import generate_rows
from speceyes.protocols import VisionLanguageModel, offers
from speceyes.strategies import questions
from speceyes.strategies.reasoning_transfer import TellsAttention
from speceyes.strategies.selection import Head, Selector, Weights
from speceyes.types import Completion, Query, Sampling


@dataclass(frozen=True, slots=True)
class Reasoned:
    """A query of the calibration split with the small model's reasoning.

    Args:
        query: The query.
        reasoning: What the small model wrote, with `Completion.tokens`.
        attention: float32[layers, heads, n] from its answer to the n tokens.
    """

    query: Query
    reasoning: Completion
    attention: Weights


def reason_for(
    small: VisionLanguageModel, queries: Sequence[Query], *, reason_tokens: int = 256
) -> list[Reasoned]:
    """The small model's reasoning and attention for each query that it can reason about.

    Raises:
        InputError: The model can't tell what it attends to.
    """
    if not (offers(small, TellsAttention) and small.tells_attention):
        raise InputError(f"{small.name} can't tell what it attends to")
    asked = [questions.reasoning(query) for query in queries]
    sampling = Sampling(max_tokens=reason_tokens, token_texts=True)
    said = generate_rows(small, asked, sampling)
    looked = small.attended(asked, [one.token_ids for one in said], questions.ANSWER_LEAD)
    return [
        Reasoned(query, one, weights)
        for query, one, weights in zip(queries, said, looked, strict=True)
        if one.error is None and weights is not None
    ]


def choose_heads(
    large: VisionLanguageModel,
    rows: Sequence[Reasoned],
    right: Callable[[Query, str], bool],
    *,
    share: float = 0.5,
    most: int = 4,
    place: questions.Place = "prompt",
    answer_tokens: int = 20,
) -> tuple[Head, ...]:
    """The heads, at most `most`, whose attention keeps what the large model needs.

    Args:
        large: Answers with what is kept in its prompt, once a row for each head and each group.
        rows: The calibration split; see `reason_for`.
        right: Whether an answer to a query is right.
        share: Share of the tokens that is kept.
        most: Most heads.
        place: Where the large model is given what is kept, see `ReasoningTransfer`.
        answer_tokens: Most new tokens of an answer.

    Raises:
        InputError: There are no rows.
    """
    if not rows:
        raise InputError("there is no reasoning to choose heads by")
    layers, heads = rows[0].attention.shape[:2]
    sampling = Sampling(max_tokens=answer_tokens)

    def score(group: tuple[Head, ...]) -> float:
        selector = Selector("attended", share=share, heads=group)
        told = [
            questions.noted(row.query, selector.select(row.reasoning, row.attention)[0], place)
            for row in rows
        ]
        said = generate_rows(large, told, sampling)
        return float(np.mean([right(r.query, c.text) for r, c in zip(rows, said, strict=True)]))

    alone = {(a, b): score(((a, b),)) for a in range(layers) for b in range(heads)}
    order = sorted(alone, key=lambda head: (-alone[head], head))
    chosen: tuple[tuple[int, int], ...] = (order[0],)
    best = alone[order[0]]
    for head in order[1 : 2 * most]:
        if len(chosen) == most:
            break
        if (found := score((*chosen, head))) > best:
            chosen, best = (*chosen, head), found
    return tuple(sorted(chosen))
