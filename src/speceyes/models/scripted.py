"""A model whose answers are written down beforehand, for tests, examples and dry runs.

It behaves as an engine does wherever that matters to the funnel: it counts and cuts tokens,
keeps a stop string that was met, returns log-probabilities and first-token probabilities when
asked, and fails one row without hurting the others.
"""

from __future__ import annotations

import math
import re
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, final

import numpy as np
import numpy.typing as npt

from speceyes.errors import ConfigError, InputError, describe
from speceyes.scoring.scores import separability
from speceyes.types import Completion, Conversation, Image, Sampling

Script: TypeAlias = (
    "str | Completion | Exception | Sequence[Script] | Mapping[str, Script] "
    "| Callable[[Conversation, Sampling], Script]"
)
"""What a `ScriptedModel` answers; see there."""

_TOKEN = re.compile(r"\s*\S+|\s+$")


def scripted_logprobs(
    n: int, k: int, margin: float | Sequence[float] = 12.0
) -> npt.NDArray[np.float32]:
    """Top-K log-probabilities of a chosen separability.

    The k-1 competitors are spread evenly with standard deviation 1, and the first column stands
    `margin` above their mean, so that S = (l1 - mean(l2..lK)) / std(l2..lK) is `margin`
    (the token score of Sec. 3.3, arXiv 2603.23483, in the form of the research code).

    Args:
        n: Number of tokens; may be 0.
        k: Number of columns; 3 or more for S to be as said (1 and 2 have no spread).
        margin: S of every token, or of each of the n; at least sqrt(3), below which the first
            column would not be the largest.

    Returns:
        float32[n, k] in nats, each row descending and summing to 1 in probability.

    Raises:
        InputError: A size is out of range, or a margin is below sqrt(3) or not finite.

    Example:
        >>> scripted_logprobs(2, 64, margin=12.0).shape
        (2, 64)
    """
    if n < 0 or k < 1:
        raise InputError(f"n={n}, k={k}; n must be at least 0 and k at least 1")
    margins = np.broadcast_to(np.asarray(margin, dtype=np.float64), (n,))
    if not all(math.isfinite(m) and m >= math.sqrt(3) for m in margins.tolist()):
        raise InputError(f"margin={margin!r}; it must be finite and at least sqrt(3) = 1.7321")
    others = np.linspace(1.0, -1.0, k - 1) if k > 1 else np.zeros(0)
    if k > 2:
        others = others / others.std()
    elif k == 2:
        others = np.zeros(1)
    logits = np.concatenate([margins[:, None], np.tile(others, (n, 1))], axis=1)
    shifted = logits - logits.max(axis=1, keepdims=True, initial=-math.inf)
    rows = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return np.asarray(rows, dtype=np.float32)


@final
class ScriptedModel:
    """A `VisionLanguageModel` with canned answers.

    It keeps no state between calls, so it can be shared by threads: which of several answers
    comes next is read from the conversation itself.

    Args:
        answer: What is said. A text: always that. A list: its i-th item is the answer to the
            i-th turn of the conversation, the last one repeating. A mapping: the first key that
            occurs in what the user said so far chooses. A callable: given the conversation and
            the sampling. Any of them may hold any other; a `Completion` is passed on unchanged;
            an exception, held or raised, fails that row only.
        name: The model's name.
        delay_s: Seconds slept for each batch, whatever its size.
        seen: (width, height) in pixels of an image as the model sees it; its own size if None.
        margin: Separability S of every answer token, where log-probabilities are asked for; a
            number or a function of the conversation, which may give one for each token. 12
            passes a gate at 0.98, 3 doesn't.

    Raises:
        ConfigError: delay_s is negative or not finite.

    Example:
        >>> from speceyes.types import Message
        >>> model = ScriptedModel({"colour": "red", "": "no idea"})
        >>> ask = Conversation((Message("user", ("Which colour?",)),))
        >>> model.generate([ask], Sampling())[0].text
        'red'
    """

    def __init__(
        self,
        answer: Script,
        *,
        name: str = "scripted",
        delay_s: float = 0.0,
        seen: Callable[[Image], tuple[int, int]] | None = None,
        margin: float | Callable[[Conversation], float | Sequence[float]] = 12.0,
    ) -> None:
        if not (math.isfinite(delay_s) and delay_s >= 0):
            raise ConfigError(f"delay_s={delay_s}; it must be finite and at least 0 seconds")
        self._answer = answer
        self._name = name
        self._delay_s = delay_s
        self._seen = seen
        self._margin = margin

    @property
    def name(self) -> str:
        """The name it was given."""
        return self._name

    def seen_size(self, image: Image) -> tuple[int, int]:
        """(width, height) in pixels, as `seen` says."""
        return (image.width, image.height) if self._seen is None else self._seen(image)

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Completion]:
        """One completion a conversation, in order; a row that raises is a failed completion."""
        if self._delay_s:
            time.sleep(self._delay_s)
        return [self._one(conversation, sampling) for conversation in conversations]

    def _one(self, conversation: Conversation, sampling: Sampling) -> Completion:
        try:
            said = _resolve(self._answer, conversation, sampling)
            if isinstance(said, Completion):
                return said
            margin = self._margin(conversation) if callable(self._margin) else self._margin
            return _complete(said, conversation, sampling, margin)
        except Exception as exc:  # noqa: BLE001 - the script's failure is the row's
            return Completion.failed(describe(exc))


def _resolve(script: Script, conversation: Conversation, sampling: Sampling) -> str | Completion:
    """Follows mappings, lists and callables down to a text or a completion."""
    while not isinstance(script, str | Completion):
        if isinstance(script, Exception):
            raise script
        if isinstance(script, Mapping):
            said = "\n".join(m.text for m in conversation.messages if m.role == "user")
            keys = [key for key in script if key in said]
            if not keys:
                raise LookupError(f"none of the keys {list(script)!r} occurs in {said[-200:]!r}")
            script = script[keys[0]]
        elif callable(script):
            script = script(conversation, sampling)
        else:
            turn = sum(message.role == "assistant" for message in conversation.messages)
            script = script[min(turn, len(script) - 1)]
    return script


def _complete(
    text: str, conversation: Conversation, sampling: Sampling, margin: float | Sequence[float]
) -> Completion:
    """The text as an engine would return it: stopped, cut, counted."""
    ends = [text.find(s) + len(s) for s in sampling.stop if s and s in text]
    stopped = bool(ends)
    text = text[: min(ends)] if ends else text
    tokens = _TOKEN.findall(text)
    # An answer that fills max_tokens has no room left for its end-of-sequence token.
    room = sampling.max_tokens if stopped else sampling.max_tokens - 1
    cut = len(tokens) > room
    tokens = tokens[: sampling.max_tokens] if cut else tokens
    rows = np.zeros((0, 0), dtype=np.float32)
    if sampling.top_k:
        rows = scripted_logprobs(len(tokens), sampling.top_k, margin)
    floor, rejected = sampling.floor, False
    if floor is not None and tokens:
        low = np.flatnonzero(
            separability(rows[:, : floor.top_k], floor.formula) < floor.separability
        )
        if len(low):
            rejected, tokens, rows = True, tokens[: low[0] + 1], rows[: low[0] + 1]
    said = [message.text for message in conversation.messages]
    said += [part for part in conversation.begun if isinstance(part, str)]
    prompt = [_TOKEN.findall(part) for part in said]
    return Completion(
        text="".join(tokens),
        token_ids=tuple(zlib.crc32(token.encode()) for token in tokens),
        top_logprobs=rows,
        finish="rejected" if rejected else "length" if cut else "stop",
        prompt_tokens=sum(map(len, prompt)) + len(conversation.images),
        first_token={tokens[0]: 1.0} if sampling.first_token and tokens else {},
        tokens=tuple(tokens) if sampling.token_texts else (),
    )
