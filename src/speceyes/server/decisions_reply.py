"""Results as decisions: a probability for each answer, and how far it can be trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from speceyes.calibration.chances import Chance, Chances
from speceyes.calibration.record import Labels
from speceyes.evaluation.grading import is_correct
from speceyes.evaluation.grading.options import named
from speceyes.server import chat_response, responses_reply
from speceyes.server.decisions_request import AskedDecision
from speceyes.server.refusal import Refusal
from speceyes.types import Result

Outcome: TypeAlias = tuple[Result | Refusal, float]
"""What became of a question, and the seconds until the models took it up."""

OF: Final[Mapping[Labels, str]] = {"wrong": "truth", "differs_from_agent": "agent"}
"""What a probability is of: that the answer is right, or that the agent would say the same."""
_MOST_READ: Final = 2000  # characters of an answer, which is one of those asked for
_NEITHER: Final = "the answer is none of those that were asked for"


def decision(
    number: str,
    model: str,
    asked: Sequence[AskedDecision],
    outcomes: Sequence[Outcome],
    chances: Chances | None,
) -> dict[str, Any]:
    """The response: an answer to each question, in order.

    Args:
        number: The request's.
        model: The name that is served.
        asked: The questions.
        outcomes: What became of each.
        chances: Of drafts, by the calibration that the gate is of; None where it has none.
    """
    results = [found for found, _ in outcomes if isinstance(found, Result)]
    return {
        "id": f"dec_{number}",
        "object": "decision",
        "model": model,
        "answers": [
            _answer(one, found, queued_s, chances)
            for one, (found, queued_s) in zip(asked, outcomes, strict=True)
        ],
        "usage": responses_reply.usage(results),
    }


def _answer(
    asked: AskedDecision, found: Result | Refusal, queued_s: float, chances: Chances | None
) -> dict[str, Any]:
    head = {"type": asked.kind, "name": asked.name}
    if isinstance(found, Refusal):
        return {**head, "type": "refusal", "speceyes": {"error": found.body()["error"]}}
    said = chosen(asked, found.answer or "")
    own = chat_response.extension(found, queued_s)
    if said is None:
        error = Refusal(422, _NEITHER, code="no_answer").body()["error"]
        return {**head, "type": "refusal", "speceyes": {**own, "error": error}}
    chance, more = _chance(found, chances)
    own |= more
    if asked.kind == "predicate":
        if said == 1:  # what is told is of yes
            chance, between = 1 - chance, own["interval"]
            own["interval"] = between and [1 - end for end in reversed(between)]
        return {**head, "probability": chance, "speceyes": own}
    rest = (1 - chance) / (len(asked.values) - 1)
    return {
        **head,
        "choice": asked.values[said],
        "confidence": chance,
        "probabilities": [
            {"value": value, "probability": chance if at == said else rest}
            for at, value in enumerate(asked.values)
        ],
        "speceyes": own,
    }


def chosen(asked: AskedDecision, answer: str) -> int | None:
    """The one option that an answer says; 0 is yes and 1 is no of a predicate. None for none.

    Example:
        >>> chosen(AskedDecision("predicate", "Is it red?"), "Yes, it is.")
        0
        >>> chosen(AskedDecision("choice", "?", None, ("a", "b"), ("a", "b")), "(B)")
        1
        >>> chosen(AskedDecision("predicate", "Is it red?"), "a car") is None
        True
    """
    answer = answer[:_MOST_READ]
    if asked.kind == "predicate":
        words = ("yes", "no")
        says = [at for at in (0, 1) if is_correct(answer, words[at], question=asked.text)]
        return says[0] if len(says) == 1 else None
    found = named(answer, asked.options)
    if found is None:  # a value without its description
        plain = answer.strip(" .\"'()").casefold()
        bare = [option.partition(":")[0].casefold() for option in asked.options]
        found = bare.index(plain) if bare.count(plain) == 1 else None
    return found


def _chance(found: Result, chances: Chances | None) -> tuple[float, dict[str, Any]]:
    """Probability of the answer, and where it comes from.

    A draft's is calibrated where the gate is. Without a calibration it is what the drafter gave to
    its own words. The agent writes its answer without a probability, which is then told as 1.
    """
    if found.route != "draft" or found.draft is None:
        told = {"source": "agent", "calibrated": False, "raw": None, "of": None, "interval": None}
        return 1.0, told
    raw = _own(found)
    separability = found.verdict.separability if found.verdict else None
    known: Chance | None = None
    of = None if chances is None else OF.get(chances.calibration.labels)
    if chances is not None and of is not None:
        known = chances(separability)
    more = {"source": "draft", "calibrated": known is not None, "raw": raw}
    if known is None:
        return (0.5 if raw is None else raw), {**more, "of": None, "interval": None}
    return known.probability, {**more, "of": of, "interval": [known.low, known.high]}


def _own(found: Result) -> float | None:
    """Probability that the drafter gave to its own words; None where it doesn't tell."""
    rows = found.draft.top_logprobs if found.draft else None
    if rows is None or not rows.size:
        return None
    return min(1.0, math.exp(float(rows[:, 0].sum())))
