"""Log-probabilities of an engine's reply: checked, sorted, and what is wrong with them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from speceyes.errors import ModelError
from speceyes.models.openai.http_errors import EngineRefusal, LogprobsError
from speceyes.types import Sampling

UNKNOWN_ID = -1
"""Stands for a token whose id the engine doesn't tell."""
_ID = re.compile(r"token_id:(\d{1,12})")
_MASKED = -9000.0
"""Engines write -9999 for a token that a grammar forbids, and for minus infinity."""
_LIMIT = re.compile(r"(?:max allowed|at most|less than or equal to|maximum(?: of)?|<=)[:=]? ?(\d+)")


@dataclass(frozen=True, slots=True)
class ReplyToken:
    """A token of the answer, and what else could have stood there.

    Args:
        text: As the engine writes it: the token's text, or "token_id:N".
        spelling: Its bytes, where told.
        id: Its id, or `UNKNOWN_ID`.
        top: (text, id, log-probability) of the likeliest.
    """

    text: str
    spelling: bytes | None
    id: int
    top: tuple[tuple[str, int, float], ...]

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> ReplyToken:
        """The token of one entry of `logprobs.content`.

        Raises:
            LookupError, TypeError, ValueError: The entry is malformed.
        """
        text, spelling = str(entry["token"]), entry.get("bytes")
        top = tuple(
            (str(other["token"]), _id(str(other["token"])), float(other["logprob"]))
            for other in entry.get("top_logprobs") or ()
        )
        return cls(text, bytes(spelling) if isinstance(spelling, list) else None, _id(text), top)


def _id(token: str) -> int:
    found = _ID.fullmatch(token)
    return int(found[1]) if found else UNKNOWN_ID


def token_texts(tokens: Sequence[ReplyToken]) -> tuple[str, ...]:
    """The text of each token; none at all where the engine tells ids instead of texts."""
    if any(t.spelling is None and _ID.fullmatch(t.text) for t in tokens):
        return ()
    return tuple(
        t.text if t.spelling is None else t.spelling.decode(errors="replace") for t in tokens
    )


def check_complete(tokens: Sequence[ReplyToken], counted: int | None, text: str) -> None:
    """Checks that every token came with its log-probabilities.

    Args:
        tokens: Those that did.
        counted: How many tokens the engine says there are; None where it doesn't.
        text: The answer.

    Raises:
        LogprobsError: None came.
        ModelError: Some are missing.
    """
    if not tokens and (text or (counted or 0) > 1):
        raise LogprobsError(
            "the engine returned no log-probabilities, though they were asked for: it drops "
            "them, as `transformers serve` does. Use one that returns them, such as vLLM or SGLang"
        )
    # The end of the sequence is counted by some and listed by some.
    if counted is not None and tokens and abs(counted - len(tokens)) > 1:
        raise ModelError(
            f"the engine returned log-probabilities for {len(tokens)} of {counted} tokens; each "
            "token needs its own: look for something between here and the engine that cuts replies"
        )


def top_rows(tokens: Sequence[ReplyToken], k: int) -> npt.NDArray[np.float32]:
    """float32[n, K], descending, of the K largest log-probabilities of each token.

    Raises:
        LogprobsError: A token has fewer.
        ModelError: Some are not log-probabilities.
    """
    rows = np.zeros((len(tokens), k), dtype=np.float32)
    for row, token in zip(rows, tokens, strict=True) if k else ():
        # Engines put the token that was drawn first, and perhaps again in its place.
        by_id = {one: value for _, one, value in token.top if one != UNKNOWN_ID}
        values = list(by_id.values()) if by_id else [value for _, _, value in token.top]
        if any(math.isnan(value) or value == math.inf for value in values):
            raise ModelError(
                "the engine returned log-probabilities that are not finite numbers: serve the "
                "model in bfloat16 or float32 (vLLM: --dtype)"
            )
        if any(value > 1e-3 for value in values):
            raise ModelError(
                f"the engine returned {max(values):.3g} as a log-probability; none is above 0: "
                "start vLLM with --logprobs-mode raw_logprobs, not with raw logits"
            )
        real = sorted((value for value in values if value > _MASKED), reverse=True)
        if len(real) < k and len(real) < len(values):
            raise ModelError(
                f"the engine returned {len(real)} log-probabilities a token and "
                f"{len(values) - len(real)} masked ones, not top_k={k}: take structured output, "
                "allowed tokens and the like out of extra_body"
            )
        if len(real) < k:
            raise LogprobsError(_too_few(k, len(real)))
        row[:] = np.minimum(real[:k], 0.0)
    return rows


def first_token(token: ReplyToken) -> dict[str, float]:
    """Text to probability of what could come first; tokens of the same text are summed."""
    found: dict[str, float] = {}
    for text, _, value in token.top:
        if text and value > _MASKED:
            found[text] = found.get(text, 0.0) + math.exp(min(value, 0.0))
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def about_logprobs(refusal: EngineRefusal) -> bool:
    """True where an engine refuses a request for the log-probabilities that it asks for."""
    return refusal.status in (200, 400, 403, 422, 501) and "logprob" in str(refusal).lower()


def refused_logprobs(asked: int, sampling: Sampling, refusal: EngineRefusal) -> LogprobsError:
    """The error where an engine refuses to return log-probabilities, or so many.

    Args:
        asked: How many were asked for.
        sampling: What they are for.
        refusal: The engine's words.
    """
    found = _LIMIT.search(str(refusal))
    says = f"; it says: {refusal}"
    if not sampling.top_k:
        return LogprobsError(
            f"the engine refuses the log-probabilities of the first token ({asked} were asked "
            "for), from which the judge reads yes and no: judge with an engine or model that "
            f"returns them, or by the text (parity=True){says}"
        )
    if found is None:
        return LogprobsError(
            f"the engine refuses top_k={asked} log-probabilities, and perhaps any: use one that "
            f"returns them, such as vLLM with --max-logprobs {asked}{says}"
        )
    drawn = " (one more than top_k, since temperature > 0)" if asked > sampling.top_k else ""
    return LogprobsError(f"{_too_few(asked, int(found[1]))}{drawn}{says}")


def _too_few(k: int, got: int) -> str:
    fewer = f"top_k={got}" if got else "an engine that returns them"
    return (
        f"top_k={k} is more log-probabilities than the engine returns ({got}): start vLLM with "
        f"--max-logprobs {k}, or use {fewer} with a gate that is calibrated for it"
    )
