"""Likelihood of a given answer, from the log-probabilities that vLLM tells of a prompt.

The answer is sent as an assistant's turn that has begun, and `prompt_logprobs` (vLLM's own field of
chat completions) brings an entry for each token of the whole prompt. How many of them are the
answer's only the engine's tokenizer knows, so they are counted from the end, by their texts.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Final

from speceyes.errors import ModelError
from speceyes.types import Conversation, Sampling

ASKED: Final = Sampling(max_tokens=1)
"""Nothing is to be said, but engines say at least one token."""
FIELDS: Final[Mapping[str, Any]] = {"prompt_logprobs": 0}
"""Fields of the request: the prompt's own tokens alone, no rivals."""


def answered(conversation: Conversation, answer: str) -> Conversation:
    """The conversation with the answer as what the assistant has begun to say."""
    return dataclasses.replace(conversation, prefill=(*conversation.begun, answer.strip()))


def mean_logprob(reply: Any, answer: str) -> float | None:
    """The mean log-probability, nats, of the tokens that the answer ends a prompt with.

    Args:
        reply: The engine's JSON.
        answer: The prompt's last words.

    Returns:
        None where its tokens can't be told from those before: one spells part of both.

    Raises:
        ModelError: The reply has no log-probabilities of the prompt.
    """
    try:
        listed = [next(iter(one.values())) if one else None for one in reply["prompt_logprobs"]]
        tokens = [
            None if one is None else (str(one["decoded_token"]), float(one["logprob"]))
            for one in listed
        ]
    except (LookupError, TypeError, ValueError, AttributeError, StopIteration) as exc:
        raise ModelError(
            f"the engine returned no log-probabilities of the prompt ({type(exc).__name__}: {exc})"
        ) from None
    text, values = "", []
    for token in reversed(tokens):
        if token is None:
            return None
        text = token[0] + text
        values.append(token[1])
        if len(text.lstrip()) >= len(answer.strip()):
            break
    if not values or text.strip() != answer.strip():
        return None
    mean = sum(values) / len(values)
    return mean if math.isfinite(mean) else None
