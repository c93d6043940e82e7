"""Scoring the answer's own tokens: lead-ins and punctuation say nothing of whether it is right."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, final

from speceyes.errors import CalibrationError, ConfigError, describe
from speceyes.gate import SeparabilityGate
from speceyes.protocols import HasLeast, HasProcessor, HasThreshold, HasTopK, offers
from speceyes.types import Completion, Verdict

_TAGGED: Final = re.compile(r"<answer>(.*?)(?:</answer>|$)", re.DOTALL | re.IGNORECASE)
Decode: TypeAlias = Callable[[Sequence[int]], str]
"""Token ids to text."""
_LEAD_IN: Final = re.compile(
    r"\s*(?:(?:so|thus|therefore|hence|well|okay)\b[,:]?\s*)?"
    r"(?:(?:the|my)\s+(?:(?:final|correct|right)\s+)?(?:answer|option)\s*(?:is\b|:)"
    r"|(?:final\s+)?answer\s*:"
    r"|it\s+is\b|it['\u2019]s\b|this\s+is\b|that\s+is\b|they\s+are\b|there\s+(?:is|are)\b"
    r"|the\s+(?:[\w-]+\s+){1,6}?(?:is|are)\b)\s*:?\s*",
    re.IGNORECASE,
)


_AROUND: Final = " \t\r\n.,:;!?\"'`*()[]{}"


def answer_span(text: str) -> tuple[int, int]:
    """Place of the answer in a draft's text, as (start, end) in characters.

    Taken off are <answer> tags, an English lead-in ("The answer is", "It's", "The collar of
    the dog is"), and punctuation and white space at both ends. Where nothing would be left, the
    whole text counts.

    Example:
        >>> text = "The collar of the dog is dark red."
        >>> start, end = answer_span(text)
        >>> text[start:end]
        'dark red'
    """
    start, end = 0, len(text)
    if (tagged := _TAGGED.search(text)) is not None:
        start, end = tagged.span(1)
    if (lead := _LEAD_IN.match(text, start, end)) is not None and text[lead.end() : end].strip(
        _AROUND
    ):
        start = lead.end()
    while start < end and text[start] in _AROUND:
        start += 1
    while end > start and text[end - 1] in _AROUND:
        end -= 1
    return (start, end) if start < end else (0, len(text))


def decode_of(model: object) -> Decode | None:
    """Decoder of a model whose tokenizer is in this process; None for others."""
    processor = model.processor if offers(model, HasProcessor) else None
    tokenizer: Any = getattr(processor, "tokenizer", None)
    if tokenizer is None:
        return None

    def decode(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(list(ids), skip_special_tokens=True))

    return decode


@final
@dataclass(frozen=True, slots=True)
class AnswerSpanGate:
    """Any gate, shown only the tokens that carry the answer.

    A token is kept where any of its characters lies within `answer_span`.

    Args:
        gate: Completion to verdict; its threshold belongs to spans then, not to whole drafts.
        decode: Token ids to text, as the model's tokenizer has it, special tokens left out
            (`functools.partial(tokenizer.decode, skip_special_tokens=True)`). Engines that send
            no ids of their own can't be used.

    Raises:
        ConfigError: One of them can't be called.
        CalibrationError: The gate was calibrated, on whole drafts as all calibrations are.

    Example:
        >>> from speceyes.gate import SeparabilityGate
        >>> words = {1: "It", 2: " is", 3: " red"}
        >>> gate = AnswerSpanGate(
        ...     SeparabilityGate(top_k=4), lambda ids: "".join(words[i] for i in ids)
        ... )
        >>> torn, clear = [-0.7, -0.8, -4.0, -4.5], [-0.1, -7.0, -8.0, -9.0]
        >>> gate(Completion("It is red", (1, 2, 3), [torn, torn, clear])).accepted
        True
    """

    gate: Callable[[Completion], Verdict]
    decode: Decode

    def __post_init__(self) -> None:
        for name, part in (("gate", self.gate), ("decode", self.decode)):
            if not callable(part):
                raise ConfigError(f"{name}={part!r} can't be called")
        if isinstance(self.gate, SeparabilityGate) and self.gate.calibration is not None:
            raise CalibrationError(
                "the gate's calibration holds for whole drafts, and it would be shown parts: find "
                "a threshold on spans, and pass a gate with calibration=None"
            )

    @property
    def threshold(self) -> float:
        """The inner gate's; NaN where it has none."""
        found = self.gate.threshold if offers(self.gate, HasThreshold) else None
        return math.nan if found is None else float(found)

    @property
    def least(self) -> float | None:
        """The inner gate's, where it tells: the threshold that accepts whatever can be scored."""
        return self.gate.least if offers(self.gate, HasLeast) else None

    @property
    def top_k(self) -> int | None:
        """The inner gate's K, where it tells."""
        return self.gate.top_k if offers(self.gate, HasTopK) else None

    def score(self, rows: Any) -> float:
        """The inner gate's score of rows that are the answer's already; see `cut`."""
        inner: Any = self.gate
        return float(inner.score(rows))

    def __call__(self, completion: Completion) -> Verdict:
        """The inner gate's verdict on the answer's tokens; it rejects what can't be matched."""
        if completion.error is None and completion.finish == "stop" and completion.token_ids:
            try:
                completion = self.cut(completion)
            except Exception as exc:  # noqa: BLE001 - a decoder's failure rejects this draft only
                return Verdict(False, None, None, self.threshold, reason=describe(exc))
        return self.gate(completion)

    def cut(self, completion: Completion) -> Completion:
        """The completion with the tokens of its answer span alone.

        Raises:
            ConfigError: The decoder doesn't give the draft's text.
        """
        ids = completion.token_ids
        whole = self.decode(ids)
        text = completion.text
        shift = whole.find(text) if text else -1
        if shift < 0:
            raise ConfigError(
                f"decode gives {whole[:80]!r:.80} for a draft that reads {text[:80]!r:.80}: "
                "pass the tokenizer's own decode, and drafts of that model"
            )
        start, end = (at + shift for at in answer_span(text))
        # A token's end is where the text of all up to it ends; bytes of one character that come
        # in several tokens may make it fall back for a moment.
        ends: list[int] = []
        for i in range(1, len(ids) + 1):
            ends.append(max(len(self.decode(ids[:i])), ends[-1] if ends else 0))
        begins = [0, *ends[:-1]]
        kept = [i for i in range(len(ids)) if begins[i] < end and ends[i] > start]
        rows = completion.top_logprobs
        return dataclasses.replace(
            completion,
            text=whole[start:end],
            token_ids=tuple(ids[i] for i in kept),
            top_logprobs=rows[kept] if rows.shape[1] else rows,
        )
