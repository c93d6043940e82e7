"""From an engine's reply to a `Completion`, or to words about why it can't be one."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from speceyes.errors import ModelError
from speceyes.models._engine_ask import Habits
from speceyes.types import Completion, Finish, Sampling

UNKNOWN = -1
"""Stands for a token whose id the engine doesn't tell."""
_ID = re.compile(r"token_id:(\d{1,12})")
_MASKED = -9000.0
"""Engines write -9999 for a token that a grammar forbids, and for minus infinity."""
_FINISH: Mapping[str, Finish] = {
    "stop": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "tool_calls": "stop",
    "function_call": "stop",
    "length": "length",
}


@dataclass(frozen=True, slots=True)
class _Token:
    """A token of the answer, and what else could have stood there."""

    said: str
    spelt: bytes | None
    id: int
    top: tuple[tuple[str, int, float], ...]


def read(reply: Any, sampling: Sampling, habits: Habits) -> Completion:
    """The completion that a reply holds.

    Args:
        reply: The engine's JSON.
        sampling: What was asked for.
        habits: What the engine does beyond the protocol.

    Raises:
        ModelError: The reply is malformed, or lacks what was asked for.
    """
    try:
        choice = reply["choices"][0]
        message = choice["message"]
        text = _text(message)
        finish = choice.get("finish_reason")
        stopped = choice.get("stop_reason", choice.get("matched_stop"))
        usage = reply.get("usage") or {}
        counted = _count(usage.get("completion_tokens"))
        prompt_tokens = _count(usage.get("prompt_tokens")) or 0
        listed = (choice.get("logprobs") or {}).get("content") or []
        tokens = [_token(entry) for entry in listed]
    except (LookupError, TypeError, AttributeError, ValueError) as exc:
        raise ModelError(
            f"the engine's reply isn't a chat completion ({type(exc).__name__}: {exc}), beginning "
            f"{_begins(reply)}: check that base_url leads to an OpenAI-compatible engine"
        ) from None
    if finish not in _FINISH:
        raise ModelError(
            f"the engine ended the answer with finish_reason={finish!r}; only "
            f"{', '.join(_FINISH)} are known: look into the engine's log"
        )
    met = stopped if isinstance(stopped, str) and stopped in sampling.stop else None
    came, text = text, _with_stop(text, sampling.stop, met, finish == "stop")
    need = sampling.top_k
    if need or sampling.first_token:
        _check_rows(tokens, counted, text)
    rows = _rows(tokens, need)
    first: dict[str, float] = {}
    if sampling.first_token and tokens:
        _rows(tokens[:1], 1)
        first = _first_token(tokens[0])
    known = bool(tokens)
    natural = finish == "stop" and not isinstance(stopped, str)
    if natural and tokens and _is_end(tokens[-1], (came, text), habits):
        tokens, rows = tokens[:-1], rows[:-1]
    ids = tuple(token.id for token in tokens) if known else (UNKNOWN,) * (counted or 0)
    return Completion(
        text=text,
        token_ids=ids,
        top_logprobs=rows if need and len(rows) else np.zeros((0, 0), dtype=np.float32),
        finish=_FINISH[finish],
        prompt_tokens=prompt_tokens,
        first_token=first,
    )


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _begins(reply: Any) -> str:
    return repr(json.dumps(reply)[:120])


def _text(message: Mapping[str, Any]) -> str:
    """What the model wrote, put together again where the engine took it apart."""
    text = message.get("content") or ""
    if not isinstance(text, str):
        raise TypeError("content is not a text")
    thought = message.get("reasoning_content") or message.get("reasoning")
    if isinstance(thought, str) and thought:
        text = f"<think>{thought}</think>{text}"
    for call in message.get("tool_calls") or ():
        function = call["function"]
        arguments = function["arguments"]
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments)
        name = json.dumps(function["name"])
        text += f'\n<tool_call>\n{{"name": {name}, "arguments": {arguments}}}\n</tool_call>'
    return text


def _token(entry: Mapping[str, Any]) -> _Token:
    said, spelt = str(entry["token"]), entry.get("bytes")
    top = tuple(
        (str(other["token"]), _id(str(other["token"])), float(other["logprob"]))
        for other in entry.get("top_logprobs") or ()
    )
    return _Token(said, bytes(spelt) if isinstance(spelt, list) else None, _id(said), top)


def _id(token: str) -> int:
    found = _ID.fullmatch(token)
    return int(found[1]) if found else UNKNOWN


def _with_stop(text: str, stops: Sequence[str], met: str | None, ended: bool) -> str:
    """The text with the stop string that ended it, which engines leave out.

    Where the engine doesn't say which one it was, it is a closing tag whose opening tag the text
    has left open, the last such; otherwise the text is taken as it came.
    """
    inside = [text.find(s) + len(s) for s in stops if s in text]
    if inside:
        return text[: min(inside)]
    if met is not None:
        return text + met
    if ended:
        tags = [s for s in stops if s.startswith("</") and s.endswith(">")]
        opened = {s: text.rfind("<" + s[2:]) for s in tags}
        last = max(opened, key=lambda s: opened[s], default=None)
        if last is not None and opened[last] >= 0:
            return text + last
    return text


def _check_rows(tokens: Sequence[_Token], counted: int | None, text: str) -> None:
    """Raises ModelError where tokens came without their log-probabilities."""
    if not tokens and (text or (counted or 0) > 1):
        raise ModelError(
            "the engine returned no log-probabilities, though they were asked for: it drops "
            "them, as `transformers serve` does. Use one that returns them, such as vLLM or SGLang"
        )
    # The end of the sequence is counted by some and listed by some.
    if counted is not None and tokens and abs(counted - len(tokens)) > 1:
        raise ModelError(
            f"the engine returned log-probabilities for {len(tokens)} of {counted} tokens; each "
            "token needs its own: look for something between here and the engine that cuts replies"
        )


def _rows(tokens: Sequence[_Token], k: int) -> npt.NDArray[np.float32]:
    """float32[n, K], descending, of the K largest log-probabilities of each token.

    Raises:
        ModelError: A token has fewer, or some are not log-probabilities.
    """
    rows = np.zeros((len(tokens), k), dtype=np.float32)
    for row, token in zip(rows, tokens, strict=True) if k else ():
        # Engines put the token that was drawn first, and perhaps again in its place.
        found = {one: chance for _, one, chance in token.top if one != UNKNOWN}
        chances = list(found.values()) if found else [chance for _, _, chance in token.top]
        if any(math.isnan(chance) or chance == math.inf for chance in chances):
            raise ModelError(
                "the engine returned log-probabilities that are not finite numbers: serve the "
                "model in bfloat16 or float32 (vLLM: --dtype)"
            )
        if any(chance > 1e-3 for chance in chances):
            raise ModelError(
                f"the engine returned {max(chances):.3g} as a log-probability; none is above 0: "
                "start vLLM with --logprobs-mode raw_logprobs, not with raw logits"
            )
        real = sorted((chance for chance in chances if chance > _MASKED), reverse=True)
        if len(real) < k:
            masked = len(chances) - len(real)
            raise ModelError(too_few(k, len(real), masked))
        row[:] = np.minimum(real[:k], 0.0)
    return rows


def too_few(k: int, got: int | None, masked: int = 0) -> str:
    """What to do where an engine returns fewer log-probabilities than were asked for; None for
    an engine that refuses without telling how many it would return.
    """
    if masked:
        return (
            f"the engine returned {got} log-probabilities a token and {masked} masked ones, not "
            f"top_k={k}: take structured output, allowed tokens and the like out of extra_body"
        )
    most = "" if got is None else f" ({got})"
    fewer = "a smaller top_k" if not got else f"top_k={got}"
    return (
        f"top_k={k} is more log-probabilities than the engine returns{most}: start vLLM with "
        f"--max-logprobs {k}, or use {fewer} with a gate that is calibrated for it"
    )


def _first_token(token: _Token) -> dict[str, float]:
    """Text to probability of what could come first; tokens of the same text are summed."""
    found: dict[str, float] = {}
    for said, _, chance in token.top:
        if said and chance > _MASKED:
            found[said] = found.get(said, 0.0) + math.exp(min(chance, 0.0))
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _is_end(token: _Token, texts: Sequence[str], habits: Habits) -> bool:
    """Whether the last token is the end of the sequence, which is no part of the answer.

    Args:
        token: The last one.
        texts: The text as it came, and with its stop string.
        habits: What the engine does.
    """
    if habits.ends_listed is not None:
        return habits.ends_listed
    spelt = token.said.encode() if token.spelt is None else token.spelt
    return not spelt or not any(t.encode("utf-8", "replace").endswith(spelt) for t in texts)
