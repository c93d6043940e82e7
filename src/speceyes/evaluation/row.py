"""One arm's answer to one query, graded: the line that is written to results.jsonl."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from speceyes.errors import InputError
from speceyes.types import Query, Result


class Item(Protocol):
    """A query with its right answer, as `speceyes.tiny.scenes.questions` yields them."""

    @property
    def query(self) -> Query:
        """The question; its id must be its own."""
        ...

    @property
    def answer(self) -> str:
        """The right answer."""
        ...

    @property
    def kind(self) -> str:
        """The kind of question, for breaking figures down."""
        ...


@runtime_checkable
class PublishedItem(Item, Protocol):
    """An item of a published benchmark."""

    @property
    def benchmark(self) -> str:
        """The benchmark's name."""
        ...

    @property
    def parity_prompt(self) -> str | None:
        """The text that published evaluations send in place of the query's own."""
        ...


def needed_tools(result: Result) -> bool:
    """True where a judge, or the draft itself, said that the question needs tools."""
    return result.judgement is not None and result.judgement.needs_tools


@dataclass(frozen=True, slots=True)
class Row:
    """One arm's graded answer.

    Args:
        arm: "agent", "agent_batched", "draft" or "funnel".
        kind: The item's kind.
        question: The question with its options.
        gold: The right answer.
        correct: The grade; no answer is wrong.
        seconds: From when the arm took the query to when it handed out the answer.
        result: What the arm said and how it got there.
    """

    arm: str
    kind: str
    question: str
    gold: str
    correct: bool
    seconds: float
    result: Result

    def to_json(self) -> str:
        """One line of JSON; the result stands under "result", as `Result.to_json` writes it."""
        head = {
            "arm": self.arm,
            "query_id": self.result.query_id,
            "kind": self.kind,
            "question": self.question,
            "gold": self.gold,
            "correct": self.correct,
            "seconds": self.seconds,
        }
        start = json.dumps(head, ensure_ascii=False, separators=(",", ":"))
        return f'{start[:-1]},"result":{self.result.to_json()}}}'

    @classmethod
    def from_json(cls, line: str) -> Row:
        """The row that `to_json` wrote.

        Raises:
            InputError: The line is not such a row.
        """
        try:
            data = json.loads(line)
            names = ("arm", "kind", "question", "gold", "correct", "seconds")
            fields = {name: data[name] for name in names}
            result = json.dumps(data["result"])
        except (ValueError, KeyError, TypeError) as exc:
            raise InputError(f"not a row of results.jsonl: {exc!r} in {line[:120]!r:.120}") from exc
        return cls(**fields, result=Result.from_json(result))
