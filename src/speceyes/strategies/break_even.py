"""Break-even of handing reasoning over.

The small model's reasoning and the large one's reading of it must cost less than the tokens that
the large model then need not decode.

    N_S d_S + N_key r_L + N'_L d_L  <  N_L d_L

N_S tokens of reasoning at d_S seconds each from the small model, N_key of them read by the large
one at r_L seconds each, a short answer of N'_L tokens, against N_L tokens that the large model
decodes when it reasons by itself at d_L seconds each. Prompts and images are read on both sides and
cancel. The terms are those of "multi-agent inference" with reasoning transfer (arXiv 2604.04929).
"""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from statistics import median
from typing import Any

from speceyes.errors import ConfigError, InputError
from speceyes.protocols import SupportsForget, VisionLanguageModel, offers
from speceyes.types import Conversation, Message, Sampling

_FILLER = " The thing is on the left of the other one, so it was looked at first."


@dataclass(frozen=True, slots=True)
class Pace:
    """Cost of one more token of a model, one query at a time.

    Args:
        read: Seconds for a prompt token.
        decoded: Seconds for a decoded token.

    Raises:
        ConfigError: A cost that is not above 0 (decoded) or below 0 (read).
    """

    read: float
    decoded: float

    def __post_init__(self) -> None:
        if not (0 <= self.read < math.inf and 0 < self.decoded < math.inf):
            raise ConfigError(
                f"read={self.read}, decoded={self.decoded}; they must be finite seconds, "
                "decoded above 0"
            )


@dataclass(frozen=True, slots=True)
class BreakEven:
    """Both sides of the rule, in seconds.

    Args:
        transferred: The left side: reasoning by the small model, read and answered by the large.
        alone: The right side: the large model reasons by itself.
        least: Tokens that the large model must need by itself before the transfer pays.
    """

    transferred: float
    alone: float
    least: float

    @property
    def pays(self) -> bool:
        """True where the transfer is cheaper."""
        return self.transferred < self.alone


def break_even(
    small: Pace, large: Pace, *, reasoning: float, kept: float | None = None, answer: float = 2,
    alone: float,
) -> BreakEven:  # fmt: skip
    """Holds one side of the rule against the other.

    Args:
        small: Of the model that reasons.
        large: Of the model that answers.
        reasoning: N_S, tokens that the small model writes.
        kept: N_key, tokens of these that are handed over; None for all.
        answer: N'_L, tokens of the short answer.
        alone: N_L, tokens that the large model decodes when it reasons by itself.

    Raises:
        ConfigError: A count that is negative, or more kept than were written.

    Example:
        >>> small, large = Pace(read=0.0001, decoded=0.01), Pace(read=0.0005, decoded=0.04)
        >>> rule = break_even(small, large, reasoning=200, kept=50, alone=150)
        >>> rule.pays, round(rule.least, 1)
        (True, 52.6)
    """
    kept = reasoning if kept is None else kept
    counts = {"reasoning": reasoning, "kept": kept, "answer": answer, "alone": alone}
    for name, count in counts.items():
        if not 0 <= count < math.inf:
            raise ConfigError(f"{name}={count}; it must be a number of tokens, 0 or more")
    if kept > reasoning:
        raise ConfigError(f"kept={kept} tokens of reasoning={reasoning}; only what is there")
    cost = reasoning * small.decoded + kept * large.read + answer * large.decoded
    return BreakEven(cost, alone * large.decoded, cost / large.decoded)


def pace(
    model: VisionLanguageModel,
    conversation: Conversation,
    *,
    tokens: int = 48,
    words: int = 400,
    repeats: int = 5,
) -> Pace:
    """Measures what one more token costs a model, alone on its device.

    The same conversation is answered with one token and with many, and once more with a longer
    prompt; what the differences took is divided by the tokens they made. Medians over `repeats`.

    Args:
        model: Of which `generate` is timed; what it keeps of prompts is dropped in between.
        conversation: A question that it answers at length.
        tokens: Most tokens decoded.
        words: About how many words the longer prompt has more.
        repeats: How often each is timed.

    Raises:
        InputError: The model failed, or ended its answer at once, so that nothing can be told.
    """
    last = conversation.messages[-1]
    longer = dataclasses.replace(
        conversation,
        messages=(
            *conversation.messages[:-1],
            Message(last.role, (*last.content, _FILLER * max(1, words // 15))),
        ),
    )
    once, many = Sampling(max_tokens=1), Sampling(max_tokens=max(2, tokens))
    times: dict[str, list[float]] = {"short": [], "long": [], "many": []}
    sizes: dict[str, tuple[int, int]] = {}
    for _ in range(1 + max(1, repeats)):
        for name, asked, sampling in (
            ("short", conversation, once),
            ("long", longer, once),
            ("many", conversation, many),
        ):
            seconds, said = _timed(model, asked, sampling)
            times[name].append(seconds)
            sizes[name] = said.prompt_tokens, len(said.token_ids)
    took = {name: median(seconds[1:]) for name, seconds in times.items()}  # the first warms up
    read = sizes["long"][0] - sizes["short"][0]
    wrote = sizes["many"][1] - sizes["short"][1]
    if wrote < 1 or read < 1:
        raise InputError(
            f"{model.name} wrote {sizes['many'][1]} tokens and read {read} more: choose a "
            "conversation that it answers at length, and a model that counts its prompt's tokens"
        )
    decoded = (took["many"] - took["short"]) / wrote
    if decoded <= 0:
        raise InputError(
            f"{model.name}: {wrote} more tokens took no longer; ask for more tokens or repeats"
        )
    return Pace(max(0.0, (took["long"] - took["short"]) / read), decoded)


def _timed(
    model: VisionLanguageModel, conversation: Conversation, sampling: Sampling
) -> tuple[float, Any]:
    if offers(model, SupportsForget):
        model.forget()
    start = time.perf_counter()
    said = model.generate([conversation], sampling)[0]
    seconds = time.perf_counter() - start
    if said.error is not None:
        raise InputError(f"{model.name} failed: {said.error}")
    return seconds, said
